"""Finds, prices and counts the UNRATED calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select, tuple_, update

from ratingcore.record.values import Content, RecordOutcome
from tollwire.service.domain.model import CdrFilter
from tollwire.service.storage.cdrs import CONTENT_COLUMNS, recorded
from tollwire.service.storage.conditions import IS_REVERSED, in_period
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.schema.record_tables import IS_UNRATED, CdrReversalRow, CdrRow


class UnratedCall(NamedTuple):
    """A call without a price, with the reason and the rate revision at which it had none."""

    cdr_id: int
    content: Content
    unrated_reason: int
    rate_revision: int


def hold(
    connection: Connection, wanted: CdrFilter, after: tuple[int, int] | None, limit: int
) -> list[UnratedCall]:
    """Lock the next UNRATED calls of a tenant that are not reversed, by rising (started_at_ns, id),
    from behind ``after`` on.

    Other transactions neither price nor reverse them until this one ends. A call that another
    transaction prices or reverses is waited for, and then left out.
    """
    order = (CdrRow.started_at_ns, CdrRow.id)
    query = (
        select(CdrRow.unrated_reason, CdrRow.rate_revision, CdrRow.id, *CONTENT_COLUMNS)
        .where(
            IS_UNRATED,
            ~IS_REVERSED,
            CdrRow.tenant_id == wanted.tenant_id,
            *in_period(CdrRow.started_at_ns, wanted.started_after_ns, wanted.started_before_ns),
        )
        .order_by(*order)
        .limit(limit)
        .with_for_update(of=CdrRow)
    )
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    while True:
        found = [
            UnratedCall(*recorded(row), reason, revision)
            for reason, revision, *row in connection.execute(query)
        ]
        # A statement does not see commits made while it waited for a lock; the next one does.
        if not found or not _are_any_reversed(connection, found):
            return found


def _are_any_reversed(connection: Connection, calls: Sequence[UnratedCall]) -> bool:
    table = CdrReversalRow.__table__
    of_these = dialect_of(connection).among(table.c.cdr_id, [one.cdr_id for one in calls])
    return connection.execute(select(table.c.id).where(of_these).limit(1)).first() is not None


def next_tenant(connection: Connection, after_tenant_id: int) -> int | None:
    """The tenant with the lowest id above ``after_tenant_id`` that has UNRATED calls."""
    query = select(func.min(CdrRow.tenant_id)).where(IS_UNRATED, CdrRow.tenant_id > after_tenant_id)
    return connection.execute(query).scalar()


def price(connection: Connection, outcomes: Sequence[tuple[int, RecordOutcome]]) -> int:
    """Give the UNRATED CDRs with these ids these outcomes, the only change that a CDR permits.
    Returns the number of CDRs that changed."""
    if not outcomes:
        return 0
    query = (
        update(CdrRow)
        .where(CdrRow.id == bindparam("cdr_id"), IS_UNRATED)
        .values({name: bindparam(f"new_{name}") for name in RecordOutcome._fields})
    )
    names = ("cdr_id", *(f"new_{name}" for name in RecordOutcome._fields))
    parameters = [dict(zip(names, (cdr_id, *values), strict=True)) for cdr_id, values in outcomes]
    return connection.execute(query, parameters).rowcount


def summary(connection: Connection, most: int) -> list[tuple[int, int, int]]:
    """The reason, the number and the first started_at_ns of UNRATED calls that are not reversed.
    Counts the first ``most`` in the order of their own index."""
    looked_at = (
        select(CdrRow.unrated_reason, CdrRow.started_at_ns)
        .where(IS_UNRATED, ~IS_REVERSED)
        .order_by(CdrRow.tenant_id, CdrRow.started_at_ns, CdrRow.id)
        .limit(most)
        .subquery()
    )
    reason, started_at_ns = looked_at.c
    query = select(reason, func.count(), func.min(started_at_ns)).group_by(reason)
    return [(reason, calls, oldest) for reason, calls, oldest in connection.execute(query)]
