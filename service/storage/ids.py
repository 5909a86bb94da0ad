"""Ids that are never used twice, not even after what they named was deleted.

Of what clients name (tenants, rates, uploads) an id is taken within the transaction that uses it;
where that is rolled back, so is the counter. The counter's row is locked until the commit, so ids
are taken late.

Rows that come in bulk take theirs with ``take_rows``, which makes nobody wait: the rows of a
transaction have consecutive ids, and what a transaction that was rolled back had taken, or a
process that ended had left, stays a gap.
"""

from __future__ import annotations

import threading

from sqlalchemy import Connection, case, func, select, update

from service.storage.record_tables import ID_BLOCK_SIZE, ID_BLOCKS
from service.storage.schema import METADATA
from service.storage.tables import IdCounter

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
    if connection.dialect.name == "sqlite":
        # Nobody else writes meanwhile, and rows of these tables are never deleted.
        newest = connection.execute(select(func.max(METADATA.tables[table].c.id))).scalar()
        return int(newest or 0) + 1
    blocks: Blocks = connection.get_execution_options()["id_blocks"]
    return blocks.take(connection, table, count)


class Blocks:
    """The ids that one process may give to rows on PostgreSQL: of each table what is left of the
    block that it took from the table's sequence. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, range] = {}

    def take(self, connection: Connection, table: str, count: int) -> int:
        """The first of ``count`` consecutive ids, at most ID_BLOCK_SIZE."""
        with self._lock:
            left = self._left.get(table, range(0))
            if count <= len(left):
                self._left[table] = left[count:]
                return left[0]
        # Without the lock: a database that does not answer holds up nobody else. A sequence's value
        # is taken whatever becomes of the transaction.
        first = int(connection.execute(select(ID_BLOCKS[table].next_value())).scalar_one())
        rest = range(first + count, first + ID_BLOCK_SIZE)
        with self._lock:
            if len(rest) > len(self._left.get(table, range(0))):
                self._left[table] = rest
        return first
