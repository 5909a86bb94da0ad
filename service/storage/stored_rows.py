"""CDRs read in bulk, for whoever goes through all of them: by rising id, in bounded parts.

Each part is a query of its own and may be a transaction of its own. A CDR is never deleted, so a
CDR that was committed before the reading began is read, whatever is recorded meanwhile: ``last_id``
fixes where the reading ends, and of those that are committed while it goes on some may be read.

The rows come as the database gives them, PostgreSQL's as binary COPY data and SQLite's as tuples;
who makes something of them is handed in, because this module knows no rating core.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus
from psycopg.waiting import Ready, Wait
from sqlalchemy import Connection, func, select

from tollwire.service.domain.record_model import VerificationFilter
from tollwire.service.storage.cdr_rows import ROW_FIELDS
from tollwire.service.storage.conditions import in_period
from tollwire.service.storage.schema.record_tables import CdrRow, UploadChunkRow

T_co = TypeVar("T_co", covariant=True)

_SELECT = f"SELECT id, {', '.join(ROW_FIELDS)} FROM cdrs WHERE id BETWEEN"


class Reader(Protocol[T_co]):
    """Makes something of rows that have an id and the values of ROW_FIELDS."""

    def copy(self, data: bytes) -> T_co:
        """Of one whole COPY."""

    def tuples(self, rows: Iterable[tuple[Any, ...]]) -> T_co:
        """Of rows that are read as they are asked for."""


def last_id(connection: Connection) -> int | None:
    """The highest id of a CDR; None where there is none."""
    return connection.execute(select(func.max(CdrRow.id))).scalar()


def next_id(connection: Connection, after_id: int | None) -> int | None:
    """The lowest id above ``after_id``, or of all: ids may have gaps of any width."""
    query = select(func.min(CdrRow.id))
    if after_id is not None:
        query = query.where(CdrRow.id > after_id)
    return connection.execute(query).scalar()


def of_upload(connection: Connection, upload_id: int) -> tuple[int, int] | None:
    """Between which ids the CDRs are that an upload created; None where it created none."""
    query = select(
        func.min(UploadChunkRow.first_cdr_id),
        func.max(UploadChunkRow.first_cdr_id + UploadChunkRow.created - 1),
    ).where(UploadChunkRow.upload_id == upload_id, UploadChunkRow.created > 0)
    first, last = connection.execute(query).one()
    return None if first is None else (first, last)


def read(
    connection: Connection,
    reader: Reader[T_co],
    first_id: int,
    last_id: int,
    wanted: VerificationFilter,
) -> T_co:
    """The CDRs with these ids that match, by rising id."""
    query = f"{_SELECT} {first_id} AND {last_id}{_conditions(connection, wanted)} ORDER BY id"
    return _read(connection, reader, query)


def read_first(
    connection: Connection, reader: Reader[T_co], first_id: int, last_id: int, limit: int
) -> T_co:
    """The first ``limit`` CDRs with these ids, by rising id."""
    # Written as a number the lowest of all would be a NUMERIC, for which there is no index.
    between = f"CAST('{first_id}' AS BIGINT) AND CAST('{last_id}' AS BIGINT)"
    return _read(connection, reader, f"{_SELECT} {between} ORDER BY id LIMIT {limit}")


@contextmanager
def any_texts(connection: Connection) -> Iterator[None]:
    """Within the block SQLite's texts are read even where they are no UTF-8: what is wrong in them
    comes as surrogates. The service never writes such a text."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.text_factory = _as_it_is
    try:
        yield
    finally:
        driver.text_factory = str


def _read(connection: Connection, reader: Reader[T_co], query: str) -> T_co:
    if connection.dialect.name == "sqlite":
        return _read_sqlite(connection, reader, query)
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with driver.cursor() as cursor, cursor.copy(_copied(query)):
        data = driver.wait(_received(driver))
    return reader.copy(bytes(data))


def _received(connection: psycopg.Connection[Any]) -> Generator[Wait, Ready | int, bytearray]:
    """All that a COPY sends. To iterate over psycopg's own Copy would ask the connection to wait
    anew for each row, which takes several times as long as to receive it; and pieces that are kept
    are work for the garbage collector."""
    received = bytearray()
    remote = connection.pgconn
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


def _copied(query: str) -> bytes:
    return f"COPY ({query}) TO STDOUT (FORMAT BINARY)".encode()


def _conditions(connection: Connection, wanted: VerificationFilter) -> str:
    """The filter as text: COPY takes no parameters, and all values are integers."""
    conditions = in_period(CdrRow.started_at_ns, wanted.started_after_ns, wanted.started_before_ns)
    if wanted.tenant_id:
        conditions.append(CdrRow.tenant_id == wanted.tenant_id)
    if wanted.within is not None:
        conditions.append(CdrRow.tenant_id.in_(wanted.within))
    if wanted.upload_id:
        conditions.append(CdrRow.upload_id == wanted.upload_id)
    compiled = [
        condition.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        for condition in conditions
    ]
    return "".join(f" AND {one}" for one in compiled)


def _read_sqlite(connection: Connection, reader: Reader[T_co], query: str) -> T_co:
    driver: Any = connection.connection.driver_connection
    try:
        return _read_tuples(driver, reader, query)
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
    # The reader is to see it.
    with any_texts(connection):
        return _read_tuples(driver, reader, query)


def _read_tuples(driver: Any, reader: Reader[T_co], query: str) -> T_co:
    with closing(driver.cursor()) as cursor:
        return reader.tuples(cursor.execute(query))


def _as_it_is(text: bytes) -> str:
    return text.decode(errors="surrogateescape")
