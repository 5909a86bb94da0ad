"""Whole decks in and out, over both databases."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.world import World, at_once
from tollwire.service.domain.errors import Exhausted, InvalidInput, NotFound, Reason
from tollwire.service.domain.model import (
    ImportMode,
    ImportOutcome,
    ImportPlan,
    Interval,
    Rate,
    RateError,
    Tenant,
)
from tollwire.service.rating import deck_import
from tollwire.service.rating.deck_import import Intake, IntakeMemory
from tollwire.service.storage.engine import Database
from tollwire.v1.rating_service_pb2 import ImportRatesRequest

MERGE, REPLACE = ImportMode.MERGE, ImportMode.REPLACE
_NS = 10**9


def _import(
    world: World,
    rates: Iterable[Rate | RateError],
    mode: ImportMode = MERGE,
    *,
    dry_run: bool = False,
    tenant_id: int = 1,
    allow_gap: bool = False,
) -> ImportOutcome:
    return world.import_deck(tenant_id, mode, dry_run, rates, allow_gap=allow_gap)


def _counts(outcome: ImportOutcome) -> tuple[int, int, int, int]:
    assert outcome.rejected == 0, outcome.errors
    assert outcome.errors == ()
    return outcome.created, outcome.updated, outcome.deleted, outcome.unchanged


def _exported(world: World, tenant_id: int = 1) -> list[Rate]:
    return [rate for part in world.rates.export(tenant_id) for rate in part]


def _bare(rates: list[Rate]) -> list[Rate]:
    """Without the fields that the server sets."""
    return [
        replace(rate, id=0, tenant_id=0, version_id=0, created_at_ns=0, updated_at_ns=0)
        for rate in rates
    ]


def _everything(world: World) -> dict[str, list[Any]]:
    tables = ("rate_versions", "decks", "deck_clock", "id_counters")
    with world.database.read() as connection:
        return {
            table: [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table}")]
            for table in tables
        }


def _many(count: int, seed: int = 1) -> list[Rate]:
    """Rates of all kinds, each prefix and start once, in random order."""
    pick = random.Random(seed)
    # Not a set: its order, and so each rate's terms, would differ between processes.
    keys = dict.fromkeys(
        (
            str(pick.randint(0, 10 ** pick.randint(1, 12))),
            pick.choice((None, None, pick.randint(-(10**9), 2 * 10**9) * _NS + pick.randint(0, 9))),
        )
        for _ in range(count)
    )
    rates = [
        Rate(
            prefix=prefix,
            destination=pick.choice(("", "Öst\\erreich\t'\"", "a,b\n", "%_")),
            cost_per_minute_e8=pick.randint(0, 10**16 - 1),
            billing_increment=pick.randint(1, 86_400),
            connect_fee_e8=pick.choice((0, 5)),
            minimum_seconds=pick.choice((0, 30)),
            intervals=pick.choice(((), (Interval(60, 7, 1), Interval(120, 0, 60)))),
            effective_from_ns=start,
            effective_to_ns=None if start is None else start + 1,
            blocked=pick.random() < 0.1,
        )
        for prefix, start in keys
    ]
    pick.shuffle(rates)
    return rates


def test_an_import_is_exported_as_it_was_sent(world: World) -> None:
    deck = _many(2500)
    outcome = _import(world, deck)
    assert _counts(outcome) == (len(deck), 0, 0, 0)
    found = _exported(world)
    expected = sorted(deck, key=lambda rate: (rate.prefix, rate.effective_from_ns or -(10**20)))
    assert _bare(found) == expected
    assert len({rate.id for rate in found} | {0}) == len(deck) + 1
    assert {rate.tenant_id for rate in found} == {1}
    assert world.rates.get(found[7].id) == found[7]
    assert _exported(world, 2) == []


def test_an_export_is_imported_without_a_change(world: World) -> None:
    _import(world, _many(300))
    before = _everything(world)
    for mode in (MERGE, REPLACE):
        outcome = _import(world, _exported(world), mode)
        assert _counts(outcome) == (0, 0, 0, len(_exported(world)))
    assert _everything(world) == before


def test_an_import_is_rated_with_when_it_returns(world: World) -> None:
    deck = _many(300)
    outcome = _import(world, deck)
    in_memory = world.decks.deck(1)
    assert in_memory.revision == outcome.rate_revision == 2
    assert len(in_memory.deck) == len(deck)


@pytest.mark.parametrize("mode", [MERGE, REPLACE])
def test_an_imported_deck_equals_the_one_that_another_worker_reads(
    world: World, database_url: str, mode: ImportMode
) -> None:
    """The importing worker does not read it back: it has built it."""
    other_database = Database(database_url)
    try:
        for seed in range(4):
            deck = _many(200, seed)
            before = [rate for rate in _exported(world) if rate.cost_per_minute_e8 % 3]
            kept = {(rate.prefix, rate.effective_from_ns) for rate in before}
            new = [rate for rate in deck if (rate.prefix, rate.effective_from_ns) not in kept]
            changed = [replace(rate, blocked=rate.cost_per_minute_e8 % 2 == 0) for rate in before]
            # Some of these decks begin later than those they replace.
            outcome = _import(world, new + changed, mode, allow_gap=True)
            assert outcome.rate_revision == seed + 2
            built = world.decks.in_memory(1)
            read = World.over(other_database).decks.deck(1)
            assert built is not None and built.revision == read.revision
            assert list(built.deck) == list(read.deck)
            assert len(read.deck) == len(_exported(world))
            built.deck._check()
    finally:
        other_database.close()


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("mode", [MERGE, REPLACE])
def test_the_changes_of_a_deck(world: World, mode: ImportMode, dry_run: bool) -> None:
    same = world.rate(1, "1", destination="same")
    old = world.rate(1, "2", destination="old")
    gone = world.rate(1, "3")
    other_start = world.rate(1, "4", effective_from_ns=5)
    stranger = world.rate(2, "2", destination="of tenant 2")
    before = _everything(world)
    revision = world.decks.deck(1).revision
    deck = [
        Rate(prefix="+1", destination="same", cost_per_minute_e8=600_0000),
        Rate(prefix="2", destination="new", cost_per_minute_e8=600_0000, id=99, tenant_id=1),
        Rate(prefix="4"),
        Rate(prefix="5"),
    ]
    outcome = _import(world, deck, mode, dry_run=dry_run)
    assert _counts(outcome) == (2, 1, 2 if mode == REPLACE else 0, 1)
    if dry_run:
        assert outcome.rate_revision == revision
        assert _everything(world) == before
        return
    assert outcome.rate_revision == revision + 1
    found = {(rate.prefix, rate.effective_from_ns): rate for rate in _exported(world)}
    assert found["1", None] == same
    changed = found["2", None]
    assert (changed.id, changed.created_at_ns) == (old.id, old.created_at_ns)
    assert (changed.destination, changed.etag) != (old.destination, old.etag)
    assert changed.updated_at_ns > old.updated_at_ns
    kept = {(rate.prefix, rate.effective_from_ns) for rate in (gone, other_start)}
    named = {("1", None), ("2", None), ("4", None), ("5", None)}
    assert found.keys() == (named | kept if mode == MERGE else named)
    assert world.rates.get(stranger.id) == stranger
    ids = [rate.id for rate in found.values()]
    assert len(set(ids)) == len(ids)
    assert world.rate(1, "6").id > max(ids)


@pytest.mark.parametrize(
    "changed",
    [
        {"destination": "other"},
        {"cost_per_minute_e8": 1_0000},
        {"billing_increment": 2},
        {"connect_fee_e8": 0},
        {"minimum_seconds": 1},
        {"intervals": ()},
        {"intervals": (Interval(60, 7, 2),)},
        {"effective_to_ns": None},
        {"effective_to_ns": 10 * _NS + 1},
        {"blocked": True},
    ],
)
def test_each_field_makes_an_update(world: World, changed: dict[str, Any]) -> None:
    rate = Rate(
        prefix="44",
        destination="UK",
        connect_fee_e8=3_0000,
        intervals=(Interval(60, 7, 1),),
        effective_from_ns=5 * _NS,
        effective_to_ns=10 * _NS,
    )
    _import(world, [rate])
    assert _counts(_import(world, [rate])) == (0, 0, 0, 1)
    assert _counts(_import(world, [replace(rate, **changed)])) == (0, 1, 0, 0)
    assert _bare(_exported(world)) == [replace(rate, **changed)]


def test_an_empty_deck(world: World) -> None:
    world.rate(1, "44")
    assert _counts(_import(world, [])) == (0, 0, 0, 0)
    assert _counts(_import(world, [], REPLACE, dry_run=True)) == (0, 0, 1, 0)
    assert _counts(_import(world, [], REPLACE)) == (0, 0, 1, 0)
    assert _exported(world) == []


def test_an_import_at_the_same_position_after_a_deletion_is_a_new_rate(world: World) -> None:
    first = world.rate(1, "44")
    _import(world, [], REPLACE)
    _import(world, [Rate(prefix="44", cost_per_minute_e8=600_0000)])
    (again,) = _exported(world)
    assert again.id > first.id


class TestRejection:
    def test_one_bad_rate_keeps_the_whole_deck_out(self, world: World) -> None:
        world.rate(1, "3")
        before = _everything(world)
        revision = world.decks.deck(1).revision
        deck: list[Rate | RateError] = [
            Rate(prefix="1"),
            Rate(prefix="x", billing_increment=0),
            RateError(2, "cost_per_minute", "must be a number"),
            Rate(prefix="2", intervals=(Interval(0, 1, 1),)),
            Rate(prefix="5", tenant_id=2),
            Rate(prefix="6"),
        ]
        for dry_run in (False, True):
            outcome = _import(world, deck, REPLACE, dry_run=dry_run)
            assert [(error.index, error.field) for error in outcome.errors] == [
                (1, "prefix"),
                (1, "billing_increment"),
                (2, "cost_per_minute"),
                (3, "intervals[0].start_seconds"),
                (4, "tenant_id"),
            ]
            assert replace(outcome, errors=()) == ImportOutcome(rejected=4, rate_revision=revision)
            assert _everything(world) == before

    def test_the_messages_are_those_of_a_single_rate(self, world: World) -> None:
        bad = Rate(tenant_id=1, prefix="x", destination="\0", billing_increment=0)
        with pytest.raises(InvalidInput) as raised:
            world.rates.create(bad)
        outcome = _import(world, [bad])
        assert [(f"rate.{error.field}", error.message) for error in outcome.errors] == [
            (violation.field, violation.description) for violation in raised.value.violations
        ]

    def test_a_rate_that_comes_twice_is_rejected(self, world: World) -> None:
        deck = [
            Rate(prefix="44"),
            Rate(prefix="49"),
            Rate(prefix="44", effective_from_ns=5),
            Rate(prefix="+44", destination="other"),
            Rate(prefix="44"),
        ]
        outcome = _import(world, deck)
        assert [(error.index, error.field) for error in outcome.errors] == [
            (3, "prefix"),
            (4, "prefix"),
        ]
        assert [error.message for error in outcome.errors] == [
            f"rates[{index}] has the same prefix and effective_from as rates[0]; remove one of them"
            for index in (3, 4)
        ]
        assert [error.first_index for error in outcome.errors] == [0, 0]
        assert (outcome.rejected, outcome.created) == (2, 0)
        assert _exported(world) == []

    def test_errors_of_all_kinds_come_in_the_order_of_the_deck(self, world: World) -> None:
        deck: list[Rate | RateError] = [
            Rate(prefix="44"),
            Rate(prefix="44"),
            Rate(prefix="x"),
            Rate(prefix="44"),
            RateError(4, "connect_fee", "no"),
        ]
        outcome = _import(world, deck)
        assert [error.index for error in outcome.errors] == [1, 2, 3, 4]
        assert outcome.rejected == 4

    def test_the_first_thousand_errors_are_listed_and_all_are_counted(self, world: World) -> None:
        deck = [Rate(prefix="44")]
        deck += [Rate(prefix="x") if index % 2 else Rate(prefix="44") for index in range(1, 3001)]
        outcome = _import(world, deck)
        assert outcome.rejected == 3000
        assert [error.index for error in outcome.errors] == list(range(1, 1001))

    def test_many_errors_of_one_rate_count_once(self, world: World) -> None:
        errors = [RateError(1, field, "no") for field in ("prefix", "connect_fee", "blocked")]
        deck: list[Rate | RateError] = [Rate(prefix="1"), *errors, Rate(prefix="x")]
        outcome = _import(world, deck)
        assert outcome.rejected == 2
        assert [error.index for error in outcome.errors] == [1, 1, 1, 2]


class TestBounds:
    def test_a_deck_may_be_too_large(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deck_import, "MAX_DECK_RATES", 2)
        request = ImportRatesRequest(rates=[{"prefix": "1"}] * 3).SerializeToString()

        def fill(intake: Intake) -> None:
            intake.expect(2)
            list(intake.read(request))
            intake.expect(0)

        with pytest.raises(InvalidInput) as raised:
            world.rates.import_deck(ImportPlan(1, MERGE), fill)
        assert [violation.field for violation in raised.value.violations] == ["rates"]

    def test_concurrent_imports_share_the_memory_limit(self) -> None:
        request = ImportRatesRequest(
            rates=[
                {"prefix": str(n), "cost_per_minute": "1", "billing_increment": 1}
                for n in range(1000)
            ]
        ).SerializeToString()
        memory = IntakeMemory(250_000)
        with Intake(1, memory) as first, Intake(1, memory) as second:
            assert list(first.read(request)) == []
            with pytest.raises(Exhausted) as raised:
                for _ in range(3):
                    list(second.read(request))
            assert raised.value.reason is Reason.TOO_MANY_STREAMS
        with Intake(1, memory) as third:
            for _ in range(2):
                assert list(third.read(request)) == []
        assert memory.free_bytes == 250_000


class TestTenant:
    @pytest.mark.parametrize("tenant_id", [0, -1])
    def test_it_must_be_named(self, world: World, tenant_id: int) -> None:
        with pytest.raises(InvalidInput) as raised:
            _import(world, [], tenant_id=tenant_id)
        assert [violation.field for violation in raised.value.violations] == ["tenant_id"]
        with pytest.raises(InvalidInput):
            world.rates.export(tenant_id)

    def test_it_must_exist(self, world: World) -> None:
        deck = iter([Rate()])
        with pytest.raises(NotFound) as raised:
            world.import_deck(9, MERGE, False, deck)
        assert raised.value.reason == Reason.TENANT_NOT_FOUND
        assert list(deck) == [Rate()], "the deck was read needlessly"
        with pytest.raises(NotFound):
            world.rates.export(9)
        world.tenants.delete(2)
        with pytest.raises(NotFound):
            world.rates.export(2)

    def test_it_may_be_deleted_during_the_import(self, world: World) -> None:
        def deck() -> Iterator[Rate]:
            yield Rate(prefix="1")
            world.tenants.delete(1)
            yield Rate(prefix="2")

        for dry_run in (True, False):
            with pytest.raises(NotFound):
                world.import_deck(1, MERGE, dry_run, deck())
            world.tenants.create(Tenant(id=1))


def test_a_broken_import_changes_nothing(world: World) -> None:
    before = _everything(world)

    def broken() -> Iterator[Rate]:
        yield from _many(11_000)
        raise ConnectionError("the client is gone")

    for _ in range(2):
        with pytest.raises(ConnectionError):
            world.import_deck(1, REPLACE, False, broken())
    assert _everything(world) == before
    assert _counts(_import(world, [Rate(prefix="1")])) == (1, 0, 0, 0)


def test_others_write_during_an_import(world: World) -> None:
    """A slow sender blocks no other writer, and the comparison includes their changes."""
    first_part = [Rate(prefix=str(prefix)) for prefix in range(100_000, 110_000)]

    def deck() -> Iterator[Rate]:
        yield from first_part
        yield Rate(prefix="44", destination="new")
        # Ten thousand rates are staged by now, and these still return at once.
        world.rate(1, "44", destination="old")
        world.rate(1, "49")
        world.rate(2, "44")
        yield Rate(prefix="45")

    outcome = world.import_deck(1, REPLACE, False, deck())
    assert _counts(outcome) == (len(first_part) + 1, 1, 1, 0)
    assert [rate.prefix for rate in _exported(world)][-2:] == ["44", "45"]


def test_an_export_shows_one_moment(world: World) -> None:
    _import(world, [Rate(prefix=str(prefix)) for prefix in range(1000, 4000)])
    before = _exported(world)
    parts = world.rates.export(1)
    found = list(next(parts))
    changes: list[Callable[[], Any]] = [
        lambda: world.rates.delete(before[-1].id, ""),
        lambda: world.rates.update(
            replace(before[1500], destination="new"), frozenset({"destination"}), ""
        ),
        lambda: world.rate(1, "2500", effective_from_ns=5),
        lambda: _import(world, [Rate(prefix="1")], REPLACE),
        lambda: world.tenants.delete(1),
    ]
    for change in changes:
        change()
    for part in parts:
        found += part
    assert found == before


def test_two_concurrent_imports_are_serialised(world: World, database_url: str) -> None:
    other = Database(database_url)
    try:
        worlds = [world, World.over(other), world]
        decks = [
            [Rate(prefix=str(prefix), destination=str(number)) for prefix in range(500)]
            for number in range(3)
        ]
        outcomes = at_once(
            *(partial(_import, one, deck) for one, deck in zip(worlds, decks, strict=True))
        )
        assert sorted(outcome.created for outcome in outcomes) == [0, 0, 500]
        assert sorted(outcome.updated for outcome in outcomes) == [0, 500, 500]
        assert sorted(outcome.rate_revision for outcome in outcomes) == [2, 3, 4]
        assert len({rate.destination for rate in _exported(world)}) == 1
        for one in worlds:
            one.decks.refresh()
            assert (one.decks.deck(1).revision, len(one.decks.deck(1).deck)) == (4, 500)
    finally:
        other.close()
