"""CDRs read in bulk, for whoever goes through all of them: by rising id, in bounded parts.

Each part is a query of its own and may be a transaction of its own. A CDR is never deleted, so a
CDR that was committed before the reading began is read, whatever is recorded meanwhile: ``last_id``
fixes where the reading ends, and of those that are committed while it goes on some may be read.

The rows come as the database gives them, PostgreSQL's as binary COPY data and SQLite's as tuples;
who makes something of them is handed in, because this module knows no rating core.
"""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import Connection, func, select

from tollwire.service.domain.record_model import VerificationFilter
from tollwire.service.storage.cdr_rows import ROW_FIELDS, RowReader
from tollwire.service.storage.conditions import in_period
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.schema.record_tables import CdrRow, UploadChunkRow

T = TypeVar("T")

_SELECT = f"SELECT id, {', '.join(ROW_FIELDS)} FROM cdrs WHERE id BETWEEN"


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
    reader: RowReader[T],
    first_id: int,
    last_id: int,
    wanted: VerificationFilter,
) -> T:
    """The CDRs with these ids that match, by rising id."""
    query = f"{_SELECT} {first_id} AND {last_id}{_conditions(connection, wanted)} ORDER BY id"
    return dialect_of(connection).read_rows(connection, query, reader)


def read_first(
    connection: Connection, reader: RowReader[T], first_id: int, last_id: int, limit: int
) -> T:
    """The first ``limit`` CDRs with these ids, by rising id."""
    # Written as a number the lowest of all would be a NUMERIC, for which there is no index.
    between = f"CAST('{first_id}' AS BIGINT) AND CAST('{last_id}' AS BIGINT)"
    query = f"{_SELECT} {between} ORDER BY id LIMIT {limit}"
    return dialect_of(connection).read_rows(connection, query, reader)


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
