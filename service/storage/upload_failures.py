"""The records that uploads did not record, with their bytes as they were sent.

They are written in bulk, with the chunk that they came in, and kept until ``delete_before``. What
the bytes mean is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, select, tuple_

from tollwire.service.domain.record_model import FailedRecord, UploadFailure
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.schema.record_tables import UploadFailureRow

_TABLE = UploadFailureRow.__table__
_COLUMNS = (
    _TABLE.c.upload_id,
    _TABLE.c.record_index,
    _TABLE.c.call_id,
    _TABLE.c.reason,
    _TABLE.c.message,
    _TABLE.c.content,
    _TABLE.c.created_at_ns,
)


class Wanted(NamedTuple):
    """Which failed records to list. ``reason`` "": with any."""

    upload_id: int
    reason: str
    kept_since_ns: int


class Outline(NamedTuple):
    """Which failed record, and how many bytes its texts and its content have at most."""

    record_index: int
    most_bytes: int


def add(connection: Connection, upload_id: int, failed: Iterable[FailedRecord]) -> None:
    """Store the failed records of one chunk. They are taken one at a time."""
    rows = (
        (
            upload_id,
            record.failure.index,
            record.failure.call_id,
            record.failure.reason,
            record.failure.message,
            record.content,
            record.created_at_ns,
        )
        for record in failed
    )
    dialect_of(connection).bulk_insert(connection, UploadFailureRow.__tablename__, _COLUMNS, rows)


def of_chunk(
    connection: Connection, upload_id: int, first_index: int, end_index: int
) -> list[UploadFailure]:
    """Those from ``first_index`` on and before ``end_index``, without their content."""
    columns = (_TABLE.c[name] for name in ("record_index", "call_id", "reason", "message"))
    query = (
        select(*columns)
        .where(
            UploadFailureRow.upload_id == upload_id,
            UploadFailureRow.record_index >= first_index,
            UploadFailureRow.record_index < end_index,
        )
        .order_by(UploadFailureRow.record_index)
    )
    return [UploadFailure(*row) for row in connection.execute(query)]


def kept(
    connection: Connection, upload_id: int, first_index: int, end_index: int
) -> list[FailedRecord]:
    """Those from ``first_index`` on and before ``end_index``, with their content."""
    return between(connection, Wanted(upload_id, "", 0), first_index, end_index - 1)


def count(connection: Connection, upload_id: int, first_index: int, records: int) -> int:
    """How many of ``records`` records from ``first_index`` on are kept as failed ones."""
    query = select(func.count()).where(
        UploadFailureRow.upload_id == upload_id,
        UploadFailureRow.record_index.between(first_index, first_index + records - 1),
    )
    return connection.execute(query).scalar_one()


def outlines(connection: Connection, wanted: Wanted, after_index: int, limit: int) -> list[Outline]:
    """The next failed records after ``after_index``, by rising index. Their content is measured
    without being read."""
    # A character has up to four bytes.
    texts = func.length(_TABLE.c.call_id) + func.length(_TABLE.c.message)
    query = (
        select(UploadFailureRow.record_index, func.length(_TABLE.c.content) + 4 * texts)
        .where(*_conditions(wanted), UploadFailureRow.record_index > after_index)
        .order_by(UploadFailureRow.record_index)
        .limit(limit)
    )
    return [Outline(*row) for row in connection.execute(query)]


def between(
    connection: Connection, wanted: Wanted, first_index: int, last_index: int
) -> list[FailedRecord]:
    """The failed records from ``first_index`` to ``last_index``, by rising index."""
    query = (
        select(_TABLE)
        .where(*_conditions(wanted), UploadFailureRow.record_index.between(first_index, last_index))
        .order_by(UploadFailureRow.record_index)
    )
    return [
        FailedRecord(
            UploadFailure(row.record_index, row.call_id, row.reason, row.message),
            row.content,
            row.created_at_ns,
        )
        for row in connection.execute(query)
    ]


def delete_before(connection: Connection, created_before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` of those that were created before that; returns how many. Passes by
    those that another transaction is just deleting."""
    key = (UploadFailureRow.upload_id, UploadFailureRow.record_index)
    oldest = (
        select(*key)
        .where(UploadFailureRow.created_at_ns < created_before_ns)
        .order_by(UploadFailureRow.created_at_ns)
        .limit(limit)
        .with_for_update(skip_locked=True)
        # PostgreSQL may run a plain subquery again and again, each time past what it has locked.
        .cte("oldest")
    )
    deletion = delete(UploadFailureRow).where(tuple_(*key).in_(select(oldest)))
    # SQLite's driver does not count the rows of a statement that begins with WITH.
    return len(connection.execute(deletion.returning(UploadFailureRow.record_index)).all())


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions = [
        UploadFailureRow.upload_id == wanted.upload_id,
        UploadFailureRow.created_at_ns >= wanted.kept_since_ns,
    ]
    if wanted.reason:
        conditions.append(UploadFailureRow.reason == wanted.reason)
    return conditions
