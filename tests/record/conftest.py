"""Fixtures that the subjects' tests share. A module that needs more in its world overrides them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.subjects.world import World
from tollwire.service.record import reversal_parts
from tollwire.service.storage.engine import Database


@pytest.fixture
def world(database: Database) -> World:
    """All subjects over a fresh database."""
    return World.over(database)


@pytest.fixture
def payer(world: World) -> int:
    """A tenant with a rate for prefix 44: 0.0200 a minute, in steps of 6 seconds."""
    tenant_id = world.tenant()
    world.rate(tenant_id, "44", 200, 6)
    return tenant_id


@pytest.fixture
def other(world: World) -> Iterator[World]:
    """Another worker on the same database."""
    database = Database(world.database.engine.url.render_as_string(hide_password=False))
    yield World.over(database)
    database.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reversals in parts of 7 CDRs, or of 3 chunks of an upload."""
    monkeypatch.setattr(reversal_parts, "PART_CDRS", 7)
    monkeypatch.setattr(reversal_parts, "PART_CHUNKS", 3)
