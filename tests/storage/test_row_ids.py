"""The ids of rows that are inserted in bulk: consecutive, rising, never used twice, and no
transaction waits for the commit of another."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.world import at_once
from tollwire.service.storage import ids
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema.record_tables import ROW_IDS


def take(database: Database, count: int, table: str = "cdrs") -> range:
    with database.write() as connection:
        first = ids.take_rows(connection, table, count)
    return range(first, first + count)


@pytest.mark.parametrize("table", ["cdrs", "cdr_pricings"])
def test_an_empty_table_begins_with_one(database: Database, table: str) -> None:
    assert take(database, 3, table) == range(1, 4)


@pytest.fixture
def postgresql(database: Database) -> Database:
    """On SQLite the rows themselves determine the ids in use."""
    if database.is_sqlite:
        pytest.skip("SQLite assigns the ids")
    return database


def test_each_table_has_its_own(postgresql: Database) -> None:
    for table in ROW_IDS:
        assert take(postgresql, 2, table) == range(1, 3)
        assert take(postgresql, 1, table) == range(3, 4)
        assert take(postgresql, 2, table) == range(4, 6)


def test_rolled_back_ids_stay_a_gap(postgresql: Database) -> None:
    with pytest.raises(RuntimeError), postgresql.write() as connection:
        assert ids.take_rows(connection, "cdrs", 5) == 1
        raise RuntimeError("rolled back")
    assert take(postgresql, 1) == range(6, 7)


def test_ids_rise_in_all_processes_and_no_transaction_waits(
    postgresql: Database,
) -> None:
    other = Database(postgresql.engine.url.render_as_string(hide_password=False))
    try:
        with postgresql.write() as held:
            assert ids.take_rows(held, "cdrs", 10_000) == 1
            # While the first transaction is open.
            assert take(other, 10) == range(10_001, 10_011)
            assert ids.take_rows(held, "cdrs", 1) == 10_011
            assert take(other, 1) == range(10_012, 10_013)
        assert take(postgresql, 5) == range(10_013, 10_018)
    finally:
        other.close()


def test_threads_never_get_the_same(postgresql: Database) -> None:
    sizes = (1, 10_000, 333, 7, 1, 2)

    def taker(size: int) -> Callable[[], list[range]]:
        return lambda: [take(postgresql, size) for _ in range(40)]

    results = at_once(*map(taker, sizes))
    for of_one in results:
        assert of_one == sorted(of_one, key=lambda one: one.start)
    taken = sorted((one for result in results for one in result), key=lambda one: one.start)
    assert taken[0].start == 1
    # Without a gap: the ids of one begin after those of the one before.
    for one, following in pairwise(taken):
        assert one.stop == following.start
