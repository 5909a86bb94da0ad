"""The metrics of unrated calls: their number, the oldest, and that a scrape waits for no query."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from tests.world import NOON_NS, World, call
from tollwire.service.observability.metrics.backlog import Backlog, UnratedCount
from tollwire.service.storage import unrated
from tollwire.service.storage.engine import Database

DEADLINE_SECONDS = 60


def looked(backlog: Backlog) -> dict[str, UnratedCount]:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (found := backlog.latest()) is None:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    return dict(found)


def test_unrated_calls_and_the_oldest(database: Database) -> None:
    world = World.over(database)
    assert looked(Backlog(database)) == {
        reason: UnratedCount(0, 0) for reason in ("NO_RATE", "BLOCKED", "INVALID_NUMBER")
    }
    first, second = world.tenant(), world.tenant()
    world.rate(first, "49", blocked=True)
    for at, (tenant_id, number) in enumerate(
        [(second, "4420"), (first, "4420"), (first, "4930"), (first, "none")]
    ):
        world.cdrs.create(call(tenant_id, number, call_id=f"c{at}", started_at_ns=NOON_NS - at))
    assert looked(Backlog(database)) == {
        "NO_RATE": UnratedCount(2, NOON_NS - 1),
        "BLOCKED": UnratedCount(1, NOON_NS - 2),
        "INVALID_NUMBER": UnratedCount(1, NOON_NS - 3),
    }
    with database.read() as connection:
        assert sum(calls for _, calls, _ in unrated.summary(connection, 3)) == 3


def test_a_result_is_reused_for_a_while(database: Database) -> None:
    world = World.over(database)
    backlog = Backlog(database)
    before = looked(backlog)
    world.cdrs.create(call(world.tenant(), call_id="a"))
    assert backlog.latest() == before


def test_an_unavailable_database_is_one_line(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(unrated, "summary", away)
    backlog = Backlog(database)
    assert backlog.latest() is None
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not caplog.records:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert [(line.name, line.levelno) for line in caplog.records] == [
        ("tollwire.backlog", logging.ERROR)
    ]
    assert backlog.latest() is None
