"""The ids of rows that come in bulk: consecutive, never given twice, and nobody waits for them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from service.storage import ids
from service.storage.engine import Database
from service.storage.record_tables import ID_BLOCK_SIZE, ID_BLOCKS
from tests.subjects.world import at_once


def take(database: Database, count: int, table: str = "cdrs") -> range:
    with database.write() as connection:
        first = ids.take_rows(connection, table, count)
    return range(first, first + count)


@pytest.mark.parametrize("table", ["cdrs", "cdr_pricings"])
def test_an_empty_table_begins_with_one(database: Database, table: str) -> None:
    assert take(database, 3, table) == range(1, 4)


@pytest.fixture
def postgresql(database: Database) -> Database:
    """On SQLite the rows themselves say which ids are taken."""
    if database.is_sqlite:
        pytest.skip("SQLite gives the ids by itself")
    return database


def test_each_table_has_its_own(postgresql: Database) -> None:
    for table in ID_BLOCKS:
        assert take(postgresql, 2, table) == range(1, 3)
        assert take(postgresql, 2, table) == range(3, 5)


def test_what_was_rolled_back_stays_a_gap(postgresql: Database) -> None:
    with pytest.raises(RuntimeError), postgresql.write() as connection:
        assert ids.take_rows(connection, "cdrs", 5) == 1
        raise RuntimeError("rolled back")
    assert take(postgresql, 1) == range(6, 7)


def test_another_process_has_blocks_of_its_own(postgresql: Database) -> None:
    other = Database(postgresql.engine.url.render_as_string(hide_password=False))
    try:
        assert take(postgresql, 10) == range(1, 11)
        assert take(other, 10).start == ID_BLOCK_SIZE + 1
        assert take(postgresql, 10) == range(11, 21)
        # What is left of the block is too small: the next one begins, and consecutive it stays.
        assert take(postgresql, ID_BLOCK_SIZE - 10).start == 2 * ID_BLOCK_SIZE + 1
        assert take(postgresql, 10) == range(21, 31)
        assert take(other, ID_BLOCK_SIZE - 10).start == ID_BLOCK_SIZE + 11
        assert take(other, 1).start == 3 * ID_BLOCK_SIZE + 1
    finally:
        other.close()


def test_threads_never_get_the_same(postgresql: Database) -> None:
    sizes = (1, ID_BLOCK_SIZE // 3, ID_BLOCK_SIZE // 2, 7)

    def taker(size: int) -> Callable[[], list[range]]:
        return lambda: [take(postgresql, size) for _ in range(12)]

    taken = sorted(
        (one for result in at_once(*map(taker, sizes)) for one in result),
        key=lambda one: one.start,
    )
    assert len(taken) == 12 * len(sizes)
    for one, following in pairwise(taken):
        assert one.stop <= following.start
