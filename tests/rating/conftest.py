"""Fixtures for the tests of rates and decks."""

from __future__ import annotations

import pytest

from tests.world import World


@pytest.fixture
def world(world: World) -> World:
    """With tenants 1 and 2."""
    world.tenant()
    world.tenant()
    return world
