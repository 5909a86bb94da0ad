"""Several statements in one round trip to PostgreSQL, with parameters and results in binary.

psycopg's own pipeline waits once for each statement, and takes several times the processor time for
each: it adapts Python values and looks up types. Only the statements that every recorded call needs
come through here.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeAlias

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import Ready, Wait

_BINARY = 1
_INT8_OID = 20

# A statement whose parameters have casts, and the parameters.
Step: TypeAlias = tuple[bytes, Sequence[bytes | None]]
# The names of the statements that each session prepares once.
_NAMES: dict[bytes, bytes] = {}


def prepared(statement: bytes) -> bytes:
    """``statement``, which each session is to prepare at its first use: to parse and plan the
    statements of a recorded call takes as long as to run them. Behind a connection pooler, which
    has no sessions, it is parsed each time."""
    _NAMES[statement] = b"tollwire_%d" % len(_NAMES)
    return statement


class NotBegun(Exception):
    """A transaction did not begin, for the reason that is the cause. Nothing was run in it."""


def int8(value: int) -> bytes:
    return struct.pack(">q", value)


def int8_array(values: Iterable[int]) -> bytes:
    items = [struct.pack(">iq", 8, value) for value in values]
    return struct.pack(">5i", 1, 0, _INT8_OID, len(items), 1) + b"".join(items)


def int_of(value: bytes | None) -> int:
    """The integer in a column that is not NULL."""
    assert value is not None
    return int.from_bytes(value, "big", signed=True)


def run(driver: Any, steps: Sequence[Step]) -> list[PGresult]:
    """The results of the statements, in order. Raises the psycopg.Error of the first statement that
    fails; the later ones are not run, and the transaction has failed."""
    remote = driver.pgconn
    with _pipeline_mode(remote):
        coming = _add(driver, steps)
        remote.pipeline_sync()
        return _checked(driver.wait(_results(driver, coming, is_last=True)))


def begin_and_run(
    driver: Any,
    begin: Sequence[Step],
    steps: Sequence[Step],
    answering: AbstractContextManager[object],
) -> list[PGresult]:
    """``run`` in a new transaction, which the statements ``begin`` begin, in the same round trip.

    The server answers them before it runs ``steps``, which may wait for locks; the wait for this
    answer is within ``answering``. NotBegun if they fail."""
    remote = driver.pgconn
    with _pipeline_mode(remote):
        of_begin = _add(driver, begin)
        remote.send_flush_request()
        coming = _add(driver, steps)
        remote.pipeline_sync()
        try:
            with answering:
                begun = driver.wait(_results(driver, of_begin))
            if any(one.status != ExecStatus.COMMAND_OK for one in begun):
                # If the server has ended the session, this shows that the connection is closed.
                driver.wait(_results(driver, coming, is_last=True))
            _checked(begun)
        except psycopg.Error as error:
            raise NotBegun from error
        return _checked(driver.wait(_results(driver, coming, is_last=True)))


def _add(driver: Any, steps: Sequence[Step]) -> list[bytes]:
    """For each result to come: the name of the statement that is prepared; empty for a step's."""
    remote = driver.pgconn
    coming: list[bytes] = []
    for statement, parameters in steps:
        name = b"" if driver.is_pooled else _NAMES.get(statement, b"")
        formats = [_BINARY] * len(parameters)
        if not name:
            remote.send_query_params(
                statement, parameters, param_formats=formats, result_format=_BINARY
            )
        else:
            if name not in driver.prepared and name not in coming:
                remote.send_prepare(name, statement)
                coming.append(name)
            remote.send_query_prepared(
                name, parameters, param_formats=formats, result_format=_BINARY
            )
        coming.append(b"")
    return coming


def _results(
    driver: Any, coming: Sequence[bytes], *, is_last: bool = False
) -> Generator[Wait, Ready | int, list[PGresult]]:
    """The results of the next steps. ``is_last``: the pipeline ends after them."""
    remote = driver.pgconn
    yield from generators.send(remote)
    results: list[PGresult] = []
    for name in coming:
        found = yield from generators.fetch_many(remote)
        if name and found[0].status == ExecStatus.COMMAND_OK:
            driver.prepared.add(name)
        else:
            results += found
    if is_last:
        yield from generators.fetch_many(remote)
    return results


def _checked(results: list[PGresult]) -> list[PGresult]:
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
    return results


@contextmanager
def _pipeline_mode(remote: Any) -> Iterator[None]:
    remote.enter_pipeline_mode()
    try:
        yield
    finally:
        # Not while results are missing, but then the connection is closed.
        with suppress(psycopg.Error):
            remote.exit_pipeline_mode()
