"""Ids that are never used twice, not even after their resource was deleted.

The id of a resource that clients name (tenant, rate, upload) is taken in the transaction that uses
it; a rollback also takes back the counter. The counter's row stays locked until the commit, so take
ids late.

Rows in bulk take their ids with ``take_rows``, for which no transaction waits until a commit: the
rows of a transaction have consecutive ids, above all ids taken before by any worker. So ids rise in
the order in which transactions take them, which may differ from the order of their commits: a
reader that must not miss a row uses the ledger (tollwire.service.record.feed). The ids of a
transaction that was rolled back remain a gap.
"""

from __future__ import annotations

from sqlalchemy import Connection, case, update

from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.schema.tenant_tables import IdCounter

# Ids from here on, if callers choose them, do not move the counter: otherwise one create with the
# highest id would leave no ids.
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
    """Never assign ``used_id``, which a caller chose."""
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
