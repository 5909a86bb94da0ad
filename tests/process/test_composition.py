"""The rehearsal of a start: it has no effect, and later changes compile nothing."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import Connection, event

from tests.world import World
from tollwire.service.domain.model import Rate
from tollwire.service.process.composition import rehearse_start
from tollwire.service.storage import decks
from tollwire.service.storage.engine import Database

_COUNTS = (
    "SELECT (SELECT count(*) FROM rate_versions), (SELECT count(*) FROM audit_entries),"
    " (SELECT next_id FROM id_counters WHERE name = 'rate_versions')"
)


def test_a_rehearsal_changes_nothing(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    world = World.over(database)
    world.rate(world.tenant(), "44")

    def state() -> tuple[object, ...]:
        with database.read() as connection:
            counts = connection.exec_driver_sql(_COUNTS).one()
            return (*counts, decks.change_seq(connection))

    before = state()
    caplog.set_level(logging.INFO)
    rehearse_start(database)
    assert state() == before
    assert "not rehearsed" not in caplog.text


def test_a_change_after_a_rehearsal_compiles_only_its_audit_entry(database_url: str) -> None:
    database = Database(database_url)
    world = World.over(database)
    rate = world.rate(world.tenant(), "44")
    other = Database(database_url)
    # Not that of all tests.
    compiled: dict[object, object] = {}

    @event.listens_for(other.engine, "engine_connect")
    def _use(connection: Connection) -> None:
        connection.execution_options(compiled_cache=compiled)

    rehearse_start(other)
    known: list[object] = []
    rates = World.over(other).rates

    @event.listens_for(other.engine, "before_cursor_execute")
    def _note(*arguments: object) -> None:
        context = arguments[4]
        hit = getattr(context, "cache_hit", None)
        if hit is not None and hit.name == "CACHE_MISS":
            known.append(arguments[2])

    rates.update(Rate(id=rate.id, cost_per_minute_e8=7), frozenset({"cost_per_minute_e8"}), "")
    assert [text for text in known if "audit_entries" not in str(text)] == []
    other.close()
    database.close()
