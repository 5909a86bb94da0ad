"""Reads rows from PostgreSQL in bulk, as binary COPY data."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus
from psycopg.waiting import Ready, Wait

_PART_BYTES = 2**20


def copy_out(driver: psycopg.Connection[Any], query: str) -> bytes:
    """The rows of a query that has no parameters."""
    with _copying(driver, query):
        received, _ = driver.wait(_received(driver))
        return bytes(received)


@contextmanager
def copy_out_parts(driver: psycopg.Connection[Any], query: str) -> Iterator[Iterator[bytes]]:
    """The same in parts of whole rows."""
    with _copying(driver, query):
        yield _parts(driver)


@contextmanager
def _copying(driver: psycopg.Connection[Any], query: str) -> Iterator[None]:
    statement = f"COPY ({query}) TO STDOUT (FORMAT BINARY)".encode()
    with driver.cursor() as cursor, cursor.copy(statement):
        yield


def _parts(driver: psycopg.Connection[Any]) -> Iterator[bytes]:
    is_last = False
    while not is_last:
        received, is_last = driver.wait(_received(driver, _PART_BYTES))
        yield bytes(received)


def _received(
    driver: psycopg.Connection[Any], part_bytes: int | None = None
) -> Generator[Wait, Ready | int, tuple[bytearray, bool]]:
    """The next data of a COPY: all, or about ``part_bytes``; and whether it is the last. Iteration
    over psycopg's own Copy waits anew for each row, which takes several times as long as to receive
    it. One buffer, because many kept pieces are work for the garbage collector."""
    received = bytearray()
    remote = driver.pgconn
    while True:
        size, piece = remote.get_copy_data(1)
        while size > 0:
            received += piece
            if part_bytes is not None and len(received) >= part_bytes:
                return received, False
            size, piece = remote.get_copy_data(1)
        if size < 0:
            break
        while not (yield Wait.R):
            pass
        remote.consume_input()
    (result,) = yield from generators.fetch_many(remote)
    if result.status != ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(result)
    return received, True
