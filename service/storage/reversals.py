"""The rows that take CDRs back.

The database makes each row from the CDR's own (INSERT … SELECT), so nothing of it passes through
Python on its way in and a million of them cost no objects. The row of the CDR is not touched.

What can still change must be held: an UNRATED CDR is locked before it is read, so that it is priced
and then reversed, or reversed and then never priced. Every other CDR is final. Of two transactions
that reverse the same CDR the unique index lets one through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute

from service.model import ReversalRequest
from service.storage import ids
from service.storage.cdrs import IS_UNRATED
from service.storage.owners import Within, of_tenants
from service.storage.record_tables import CdrReversalRow, CdrRow, UploadChunkRow, UploadRow

_TABLE = "cdr_reversals"
ROW_FIELDS = (
    "id",
    "cdr_id",
    "tenant_id",
    "started_at_ns",
    "cost_units",
    "cost_fraction_e4",
    "created_at_ns",
    "upload_id",
    "reason",
    "requested_by",
)
_COLUMNS = tuple(CdrReversalRow.__table__.c[name] for name in ROW_FIELDS)


class IdRange(NamedTuple):
    """The CDRs from id ``first`` to id ``last``, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


def hold_cdr(connection: Connection, cdr_id: int, within: Within = None) -> bool:
    """Whether the CDR is there and of one of those tenants; one of another is not waited for.
    Nobody else reverses or prices it before this transaction ends."""
    owned = of_tenants(connection, CdrRow.__table__.c.tenant_id, 0, within)
    query = select(CdrRow.id).where(CdrRow.id == cdr_id, *owned).with_for_update()
    return connection.execute(query).first() is not None


def add(
    connection: Connection, ranges: Sequence[IdRange], request: ReversalRequest, now_ns: int
) -> Sequence[Any]:
    """Reverse those of the CDRs that are not yet. The new rows as they are stored, with ROW_FIELDS,
    by their consecutive ids."""
    if connection.dialect.name == "postgresql":
        _hold_unrated(connection, ranges)
    first_id, count = _insert(connection, ranges, request, now_ns)
    return stored(connection, first_id, count) if count else []


def _hold_unrated(connection: Connection, ranges: Sequence[IdRange]) -> None:
    """Lock the UNRATED ones, in the order in which RateUnrated does."""
    query = (
        select(CdrRow.id)
        .where(IS_UNRATED, _among(CdrRow.id, ranges))
        .order_by(CdrRow.tenant_id, CdrRow.started_at_ns, CdrRow.id)
        .with_for_update()
    )
    connection.execute(query).all()


def _insert(
    connection: Connection, ranges: Sequence[IdRange], request: ReversalRequest, now_ns: int
) -> tuple[int, int]:
    """The first id and the number of the rows; their ids are consecutive."""
    most = sum(one.size for one in ranges)
    while True:
        first_id = ids.take_rows(connection, _TABLE, most)
        try:
            with connection.begin_nested():
                query = _insert_query(ranges, request, first_id, now_ns)
                return first_id, connection.execute(query).rowcount
        except IntegrityError as error:
            # Another transaction has reversed one of them meanwhile; by now that is committed, and
            # the next attempt leaves it out.
            if not _is_reversed_meanwhile(error):
                raise


def _insert_query(
    ranges: Sequence[IdRange], request: ReversalRequest, first_id: int, now_ns: int
) -> Any:
    number = func.row_number().over(order_by=CdrRow.id)
    new = select(
        number + literal(first_id - 1, BigInteger),
        CdrRow.id,
        CdrRow.tenant_id,
        CdrRow.started_at_ns,
        -CdrRow.cost_units,
        -CdrRow.cost_fraction_e4,
        literal(now_ns, BigInteger),
        CdrRow.upload_id,
        literal(request.reason, Text),
        literal(request.requested_by, Text),
    ).where(_among(CdrRow.id, ranges), ~_is_reversed(ranges))
    query = insert(CdrReversalRow).from_select(ROW_FIELDS, new)
    # Else the number of inserted rows is not kept.
    return query.execution_options(preserve_rowcount=True)


def _is_reversed_meanwhile(error: IntegrityError) -> bool:
    cause = error.orig
    return (
        isinstance(cause, psycopg.errors.UniqueViolation)
        and cause.diag.constraint_name == "uq_cdr_reversals_cdr_id"
    )


def _is_reversed(ranges: Sequence[IdRange]) -> ColumnElement[bool]:
    """That a CDR of these ranges is reversed. PostgreSQL does not conclude by itself that only
    their reversals matter, and would read all that there are for each part of an upload."""
    of_it = CdrReversalRow.cdr_id == CdrRow.id
    among = _among(CdrReversalRow.cdr_id, ranges)
    return select(CdrReversalRow.id).where(of_it, among).exists()


def _among(cdr_id: InstrumentedAttribute[int], ranges: Sequence[IdRange]) -> ColumnElement[bool]:
    return or_(*(cdr_id.between(first, last) for first, last in ranges))


def stored(connection: Connection, first_id: int, count: int) -> Sequence[Any]:
    """The rows with ``count`` ids from ``first_id`` on, with ROW_FIELDS, by rising id."""
    query = (
        select(*_COLUMNS)
        .where(CdrReversalRow.id.between(first_id, first_id + count - 1))
        .order_by(CdrReversalRow.id)
    )
    return connection.execute(query).all()


def mark_upload(connection: Connection, upload_id: int, now_ns: int) -> bool:
    """From now on no chunk of the upload gets in. Whether that was not so before. The transaction
    holds the upload."""
    marked = connection.execute(
        update(UploadRow)
        .where(UploadRow.id == upload_id, UploadRow.reversed_at_ns.is_(None))
        .values(reversed_at_ns=now_ns)
    )
    return marked.rowcount > 0


def made_by(
    connection: Connection, upload_id: int, after_index: int, limit: int
) -> list[tuple[int, IdRange]]:
    """The upload's next chunks that created CDRs, at most ``limit``, behind the one that begins at
    ``after_index``: where each begins, and its CDRs."""
    query = (
        select(UploadChunkRow.first_index, UploadChunkRow.first_cdr_id, UploadChunkRow.created)
        .where(
            UploadChunkRow.upload_id == upload_id,
            UploadChunkRow.first_index > after_index,
            UploadChunkRow.created > 0,
        )
        .order_by(UploadChunkRow.first_index)
        .limit(limit)
    )
    return [
        (first_index, IdRange(first, first + created - 1))
        for first_index, first, created in connection.execute(query)
    ]
