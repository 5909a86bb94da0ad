"""Several statements in one round trip to PostgreSQL, with parameters and results in binary.

psycopg's own pipeline waits once for each statement, and takes several times the processor time for
each: it adapts Python values and looks up types. Only the statements that every recorded call needs
come through here.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
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
    results: list[PGresult] = driver.wait(_exchange(driver.pgconn, steps))
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
    return results


def _exchange(remote: Any, steps: Sequence[Step]) -> Generator[Wait, Ready | int, list[PGresult]]:
    remote.enter_pipeline_mode()
    try:
        for statement, parameters in steps:
            # Not prepared: psycopg deallocates all statements of a session after a rollback, and a
            # connection pooler has no sessions. To plan these takes a fifth of a millisecond.
            remote.send_query_params(
                statement,
                parameters,
                param_formats=[_BINARY] * len(parameters),
                result_format=_BINARY,
            )
        remote.pipeline_sync()
        yield from generators.send(remote)
        results: list[PGresult] = []
        for _ in steps:
            results += yield from generators.fetch_many(remote)
        yield from generators.fetch_many(remote)  # the end of the pipeline
        return results
    finally:
        # Not while results are missing, but then the connection is closed.
        with suppress(psycopg.Error):
            remote.exit_pipeline_mode()
