"""The failed records of uploads, with their bytes as they were sent.

They are written in bulk, in the transaction of their chunk, and kept until ``delete_before``. Must
not depend on the meaning of the bytes.
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
    """The failed records to list. ``reason`` "": with any reason."""

    upload_id: int
    reason: str
    kept_since_ns: int


class Outline(NamedTuple):
    """A failed record, and the most bytes that its texts and its content can have."""

    record_index: int
    most_bytes: int


def add(connection: Connection, upload_id: int, failed: Iterable[FailedRecord]) -> None:
    """Store the failed records of one chunk. Takes one at a time from ``failed``."""
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
    """The failed records from ``first_index`` on and before ``end_index``, without content."""
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
    """The failed records from ``first_index`` on and before ``end_index``, with content."""
    return between(connection, Wanted(upload_id, "", 0), first_index, end_index - 1)


def count(connection: Connection, upload_id: int, first_index: int, records: int) -> int:
    """How many of ``records`` records from ``first_index`` on are stored as failed ones."""
    query = select(func.count()).where(
        UploadFailureRow.upload_id == upload_id,
        UploadFailureRow.record_index.between(first_index, first_index + records - 1),
    )
    return connection.execute(query).scalar_one()


def outlines(connection: Connection, wanted: Wanted, after_index: int, limit: int) -> list[Outline]:
    """The next failed records after ``after_index``, by rising index. The database measures their
    content without reading it."""
    # A character has at most four bytes.
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
    """Delete at most ``limit`` failed records that were created before ``created_before_ns``;
    returns the number. Skips rows that another transaction deletes at the same time."""
    key = (UploadFailureRow.upload_id, UploadFailureRow.record_index)
    oldest = (
        select(*key)
        .where(UploadFailureRow.created_at_ns < created_before_ns)
        .order_by(UploadFailureRow.created_at_ns)
        .limit(limit)
        .with_for_update(skip_locked=True)
        # PostgreSQL may run a plain subquery several times, each time without the locked rows.
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
