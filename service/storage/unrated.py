"""How many CDRs have no price: a summary that reads no more than it must."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from tollwire.service.storage.cdrs import IS_REVERSED, IS_UNRATED
from tollwire.service.storage.schema.record_tables import CdrRow


def summary(connection: Connection, most: int) -> list[tuple[int, int, int]]:
    """(reason, how many, the first started_at_ns) of those that are not reversed; of no more than
    ``most``, in the order of the index that has nothing but them."""
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
