"""The retention of failed records: listed no longer than that, deleted in parts, still counted."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from tests.world import World, at_once, calls
from tollwire.service.domain.model import BadCall
from tollwire.service.record.retention import DELETED_AT_ONCE, FailureRetention, kept_since_ns
from tollwire.service.record.uploads import Uploads
from tollwire.service.storage import upload_failures
from tollwire.service.storage.engine import Database

BAD = BadCall("direction", "is required")
DAY_NS = 86_400 * 10**9


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_ns = 10**18

    def __call__(self) -> int:
        return self.now_ns


def indexes(world: World, upload_id: int) -> list[int]:
    page = world.uploads.list_failures(upload_id, "", 1000, "")
    return [one.failure.index for one in page.items]


def remaining(database: Database) -> int:
    with database.read() as connection:
        query = "SELECT count(*) FROM upload_failures"
        return int(connection.exec_driver_sql(query).scalar_one())


def test_kept_records() -> None:
    assert kept_since_ns(0, 10**18) == 0
    assert kept_since_ns(2, 10**18) == 10**18 - 2 * DAY_NS
    assert kept_since_ns(36_500, DAY_NS) == 0


def test_old_ones_are_not_listed_and_then_deleted(world: World) -> None:
    clock = Clock()
    uploads = Uploads(world.database, world.decks, clock, failure_retention_days=2)
    world = replace(world, uploads=uploads)
    retention = FailureRetention(world.database, 2, clock)
    payer = world.tenant()
    upload_id = world.commit(0, 0, [BAD, *calls(payer, 0, 2), BAD]).upload_id
    clock.now_ns += DAY_NS
    world.commit(upload_id, 4, [BAD])
    clock.now_ns += DAY_NS
    assert indexes(world, upload_id) == [0, 3, 4]
    assert retention.delete_old() == 0
    clock.now_ns += 1
    assert indexes(world, upload_id) == [4]
    assert remaining(world.database) == 3
    assert retention.delete_old() == 2
    assert indexes(world, upload_id) == [4]
    assert remaining(world.database) == 1
    # The counts stay, and a chunk that comes again is answered with the remaining records.
    assert world.uploads.get(upload_id).rejected == 3
    again = world.commit(upload_id, 0, [BAD, *calls(payer, 0, 2), BAD])
    assert (again.created, again.rejected, again.failures) == (2, 2, ())
    assert len(world.commit(upload_id, 4, [BAD]).failures) == 1


def test_only_the_oldest_are_deleted(world: World) -> None:
    clock = Clock()
    world = replace(world, uploads=Uploads(world.database, world.decks, clock))
    upload_id = 0
    for offset in range(5):
        clock.now_ns += 10
        upload_id = world.commit(upload_id, 2 * offset, [BAD, BAD]).upload_id
    with world.database.write() as connection:
        assert upload_failures.delete_before(connection, clock.now_ns, 3) == 3
    assert indexes(world, upload_id)[-6:] == [4, 5, 6, 7, 8, 9]
    assert remaining(world.database) == 7
    with world.database.write() as connection:
        assert upload_failures.delete_before(connection, clock.now_ns, 10) == 5
    assert indexes(world, upload_id) == [8, 9]


def test_many_are_deleted_in_parts_and_by_many_at_once(world: World) -> None:
    clock = Clock()
    count = 3 * DELETED_AT_ONCE + 7
    world = replace(world, uploads=Uploads(world.database, world.decks, clock))
    world.commit(0, 0, [BAD] * count)
    clock.now_ns += 10 * DAY_NS
    sweeps = [FailureRetention(world.database, 1, clock) for _ in range(2)]
    deleted = at_once(*(sweep.delete_old for sweep in sweeps))
    # One deletion may find the last records locked by another, which then fails: they are deleted
    # later.
    assert sum(deleted) + remaining(world.database) == count
    assert sweeps[0].delete_old() + sum(deleted) == count
    assert remaining(world.database) == 0


def test_the_thread_deletes_at_once_and_again(world: World) -> None:
    clock = Clock()
    world = replace(world, uploads=Uploads(world.database, world.decks, clock))
    upload_id = world.commit(0, 0, [BAD]).upload_id
    clock.now_ns += 2 * DAY_NS
    retention = FailureRetention(world.database, 1, clock, pause_seconds=0.01)
    retention.start()
    try:
        for _ in range(2):
            deadline = time.monotonic() + 30
            while remaining(world.database):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            clock.now_ns -= 2 * DAY_NS
            world.commit(upload_id, world.uploads.get(upload_id).committed_offset, [BAD])
            clock.now_ns += 2 * DAY_NS
    finally:
        retention.close()
    assert "retention" not in [thread.name for thread in threading.enumerate()]


def test_unlimited_retention_needs_no_thread(world: World) -> None:
    world.commit(0, 0, [BAD])
    retention = FailureRetention(world.database, 0)
    retention.start()
    assert "retention" not in [thread.name for thread in threading.enumerate()]
    retention.close()
    assert remaining(world.database) == 1


def test_an_unavailable_database_does_not_end_the_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    retention = FailureRetention(database, 1, pause_seconds=0.01)
    retention.start()
    deadline = time.monotonic() + 30
    while len(caplog.records) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    retention.close()
    database.close()
    assert {record.getMessage() for record in caplog.records} == {
        "cannot delete old failed records now (DATABASE_UNAVAILABLE); will retry"
    }
    assert "retention" not in [thread.name for thread in threading.enumerate()]
