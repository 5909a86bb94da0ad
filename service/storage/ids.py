"""Ids that are never used twice, not even after what they named was deleted.

Of what clients name (tenants, rates, uploads) an id is taken within the transaction that uses it;
where that is rolled back, so is the counter. The counter's row is locked until the commit, so ids
are taken late.

Rows that come in bulk take theirs with ``take_rows``, which makes nobody wait for a commit: the
rows of a transaction have consecutive ids, above all that were taken before, by any worker. So ids
rise in the order in which transactions take them, and not quite in that of their commits: for a
reader that must not miss a row there is the ledger (tollwire.service.record.feed). What a
transaction that was rolled back had taken stays a gap.
"""

from __future__ import annotations

from sqlalchemy import Connection, case, update

from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.schema.tenant_tables import IdCounter

# Ids that callers choose from here on do not move the counter: after a single create with the
# greatest id there would be none left to give.
_END_OF_COUNTING = 2**62


def take(connection: Connection, name: str, count: int = 1) -> int:
    """The first of ``count`` new consecutive ids of a kind ("tenants", "rate_versions", …)."""
    query = (
        update(IdCounter)
        .where(IdCounter.name == name)
        .values(next_id=IdCounter.next_id + count)
        .returning(IdCounter.next_id - count)
    )
    return int(connection.execute(query).scalar_one())


def move_past(connection: Connection, name: str, used_id: int) -> None:
    """Never give out ``used_id``, which a caller chose by itself."""
    if used_id < _END_OF_COUNTING:
        behind = IdCounter.next_id <= used_id
        connection.execute(
            update(IdCounter)
            .where(IdCounter.name == name)
            .values(next_id=case((behind, used_id + 1), else_=IdCounter.next_id))
        )


def take_rows(connection: Connection, table: str, count: int) -> int:
    """The first of ``count`` consecutive ids for new rows of a table ("cdrs", "cdr_pricings",
    "cdr_reversals"), within the transaction that writes them."""
    return dialect_of(connection).take_row_ids(connection, table, count)
