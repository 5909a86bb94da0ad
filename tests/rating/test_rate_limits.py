"""Limits of rates: of one prefix, of a tenant, and of the memory of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.world import World
from tollwire.service.cache.decks import DeckLimits, Decks
from tollwire.service.domain.errors import OverLimit, Reason
from tollwire.service.domain.model import MAX_PREFIX_RATES, ImportMode, Rate
from tollwire.service.storage.engine import Database
from tollwire.service.storage.refusals import DatabaseRefused

MERGE, REPLACE = ImportMode.MERGE, ImportMode.REPLACE
MIB = 1024 * 1024

Limited = Callable[[DeckLimits], World]


@pytest.fixture
def limited(database: Database) -> Iterator[Limited]:
    """A worker with limits of its own, and tenants 1 and 2."""
    opened: list[World] = []

    def open_(limits: DeckLimits) -> World:
        world = World.over(database, Decks(database, limits=limits))
        opened.append(world)
        if len(opened) == 1:
            world.tenant()
            world.tenant()
        return world

    yield open_
    for world in opened:
        world.decks.close()


def rate(prefix: str, **fields: object) -> Rate:
    return replace(
        Rate(prefix=prefix, cost_per_minute_e8=10**8, billing_increment=60),
        **fields,
    )


def windows(prefix: str, count: int) -> list[Rate]:
    return [rate(prefix, effective_from_ns=at, effective_to_ns=at + 10) for at in range(count)]


def refused(limit: str, most: int, change: Callable[[], object]) -> None:
    with pytest.raises(OverLimit, match="nothing was changed") as raised:
        change()
    assert raised.value.reason is Reason.TOO_MANY_RATES
    assert raised.value.metadata == {"limit": limit, "most": str(most)}


def test_the_rates_of_one_prefix(limited: Limited) -> None:
    world = limited(DeckLimits())
    most = MAX_PREFIX_RATES
    outcome = world.import_deck(1, MERGE, False, windows("44", most))
    assert outcome.created == most
    too_many = [*windows("44", most), rate("44", effective_from_ns=10**12), rate("4")]
    other = world.rate(1, "45", effective_from_ns=10**12)
    for change in (
        lambda: world.rate(1, "44", effective_from_ns=10**12),
        lambda: world.import_deck(1, MERGE, False, [rate("44", effective_from_ns=10**12)]),
        # Later ones than all of the deck, and earlier ones.
        lambda: world.import_deck(1, MERGE, True, [rate("44")]),
        lambda: world.import_deck(1, REPLACE, False, too_many),
        lambda: world.import_deck(2, MERGE, False, windows("", most + 1)),
        lambda: world.rates.update(replace(other, prefix="44"), frozenset({"prefix"}), ""),
    ):
        refused("rates_of_prefix", most, change)
    assert len(world.rates.list(2, "", 10, "").items) == 0
    # Another prefix, a change of a rate, other periods in place of these.
    assert world.import_deck(1, MERGE, False, [rate("448"), *windows("44", 1)]).created == 1
    later = [replace(one, effective_from_ns=10**13 + at) for at, one in enumerate(too_many[:-2])]
    later = [replace(one, effective_to_ns=None) for one in later]
    assert world.import_deck(1, REPLACE, False, later, allow_gap=True).created == most
    deleted = world.rates.list(1, "44", 1, "").items[0]
    world.rates.delete(deleted.id, "")
    world.rate(1, "44", effective_from_ns=1)


def test_the_rates_of_a_tenant(limited: Limited) -> None:
    world = limited(DeckLimits(tenant_rates=3))
    first = world.rate(1, "1")
    world.rate(1, "2")
    refused(
        "rates_of_tenant", 3, lambda: world.import_deck(1, MERGE, False, [rate("3"), rate("4")])
    )
    world.import_deck(1, MERGE, False, [rate("1", cost_per_minute_e8=5), rate("3")])
    refused("rates_of_tenant", 3, lambda: world.rate(1, "4"))
    world.rates.update(replace(first, prefix="4"), frozenset({"prefix"}), "")
    world.rate(2, "4")
    assert world.import_deck(1, REPLACE, False, [rate(str(n)) for n in (5, 6, 7)]).created == 3
    # A worker with a lower limit rates with what exists, and lets it shrink and change.
    lower = limited(DeckLimits(tenant_rates=2))
    present = lower.rates.list(1, "", 10, "").items
    assert len(present) == 3
    refused("rates_of_tenant", 2, lambda: lower.rate(1, "8"))
    lower.import_deck(1, MERGE, False, [rate("5", cost_per_minute_e8=7)])
    lower.rates.update(replace(present[0], destination="x"), frozenset({"destination"}), "")
    assert lower.import_deck(1, REPLACE, False, [rate("5")]).deleted == 2


def test_the_memory_of_all_rates(limited: Limited) -> None:
    """Nothing is read from the database or built for a deck that does not fit."""
    world = limited(DeckLimits(deck_bytes=MIB))
    many = [rate(f"{number:04}" + "0123456789" * 2) for number in range(4_000)]
    world.import_deck(1, MERGE, False, many[:1_000])
    half = world.decks.nbytes()
    for tenant_id in (1, 2):
        refused("deck_bytes", MIB, lambda: world.import_deck(tenant_id, MERGE, False, many[1_000:]))  # noqa: B023
    assert world.decks.nbytes() == half
    world.import_deck(2, MERGE, False, many[:2_000])
    assert half < world.decks.nbytes() <= MIB


def test_a_server_whose_rates_take_too_much_memory_does_not_start(
    limited: Limited, database: Database
) -> None:
    world = limited(DeckLimits())
    world.import_deck(1, MERGE, False, [rate(f"{number:06}" + "0" * 26) for number in range(4_000)])
    assert world.decks.nbytes() > MIB
    refused("deck_bytes", MIB, lambda: _tight(world).rate(1, "1"))
    fresh = Decks(database, limits=DeckLimits(deck_bytes=MIB))
    with pytest.raises(DatabaseRefused, match=r"--max-deck-bytes.*1,048,576"):
        fresh.load()
    fresh.close()


def _tight(world: World) -> World:
    """The same worker after its limit was lowered."""
    world.decks._limits = DeckLimits(deck_bytes=MIB)
    return world
