"""Ids that are never used twice, not even after what they named was deleted.

An id is taken within the transaction that uses it; where that is rolled back, so is the counter.
The counter's row is locked until the commit, so ids are taken late.
"""

from __future__ import annotations

from sqlalchemy import Connection, case, update

from service.storage.engine import Database
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


def reserve(database: Database, connection: Connection, name: str, count: int) -> int:
    """As ``take``, for a transaction that goes on for seconds: where the database lets two write at
    once, the counter is moved in a transaction of its own, and stays so even if the other fails."""
    if database.is_sqlite:
        return take(connection, name, count)
    with database.write() as own:
        return take(own, name, count)


def move_past(connection: Connection, name: str, used_id: int) -> None:
    """Never give out ``used_id``, which a caller chose by itself."""
    if used_id < _END_OF_COUNTING:
        behind = IdCounter.next_id <= used_id
        connection.execute(
            update(IdCounter)
            .where(IdCounter.name == name)
            .values(next_id=case((behind, used_id + 1), else_=IdCounter.next_id))
        )
