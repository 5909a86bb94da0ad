"""Reads all CDRs in bulk, for verification: by rising id, in bounded parts.

Each part is a query of its own and may be a transaction of its own. CDRs are never deleted, so a
CDR that was committed before the reading began is always read: ``last_id`` limits the reading. CDRs
that are committed meanwhile may be read.

The rows come in the format of the database: binary COPY data from PostgreSQL, tuples from SQLite.
The caller passes the object that converts them.
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
    """The highest id of a CDR; None if there are no CDRs."""
    return connection.execute(select(func.max(CdrRow.id))).scalar()


def next_id(connection: Connection, after_id: int | None) -> int | None:
    """The lowest id above ``after_id``, or of all CDRs. Ids may have gaps of any width."""
    query = select(func.min(CdrRow.id))
    if after_id is not None:
        query = query.where(CdrRow.id > after_id)
    return connection.execute(query).scalar()


def of_upload(connection: Connection, upload_id: int) -> tuple[int, int] | None:
    """The lowest and the highest id of the CDRs of an upload; None if it created none."""
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
    # The lowest possible id, written as a number, would be a NUMERIC, which no index has.
    between = f"CAST('{first_id}' AS BIGINT) AND CAST('{last_id}' AS BIGINT)"
    query = f"{_SELECT} {between} ORDER BY id LIMIT {limit}"
    return dialect_of(connection).read_rows(connection, query, reader)


def _conditions(connection: Connection, wanted: VerificationFilter) -> str:
    """The filter as text: COPY has no parameters, and all values are integers."""
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
