"""Reads rows from PostgreSQL in bulk, as binary COPY data."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus
from psycopg.waiting import Ready, Wait


def copy_out(driver: psycopg.Connection[Any], query: str) -> bytes:
    """The rows of a query that has no parameters."""
    statement = f"COPY ({query}) TO STDOUT (FORMAT BINARY)".encode()
    with driver.cursor() as cursor, cursor.copy(statement):
        return bytes(driver.wait(_received(driver)))


def _received(driver: psycopg.Connection[Any]) -> Generator[Wait, Ready | int, bytearray]:
    """All data of a COPY. Iteration over psycopg's own Copy waits anew for each row, which takes
    several times as long as to receive it. One buffer, because many kept pieces are work for the
    garbage collector."""
    received = bytearray()
    remote = driver.pgconn
    while True:
        size, piece = remote.get_copy_data(1)
        while size > 0:
            received += piece
            size, piece = remote.get_copy_data(1)
        if size < 0:
            break
        while not (yield Wait.R):
            pass
        remote.consume_input()
    (result,) = yield from generators.fetch_many(remote)
    if result.status != ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(result)
    return received
