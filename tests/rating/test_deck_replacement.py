"""Decks that replace another at a date, and decks that would leave calls without a rate."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.world import World
from tollwire.service.domain.errors import FailedPrecondition, Reason
from tollwire.service.domain.model import (
    Call,
    Direction,
    Disposition,
    ImportMode,
    ImportOutcome,
    Rate,
)

_NS = 10**9
_DAY = 86_400 * _NS
NOW = time.time_ns() // _NS * _NS
MERGE, REPLACE = ImportMode.MERGE, ImportMode.REPLACE
NEXT_WEEK = NOW + 7 * _DAY


def rate(prefix: str, start_ns: int | None = None, end_ns: int | None = None, **more: Any) -> Rate:
    fields = {"cost_per_minute_e8": 600_0000, "billing_increment": 60, **more}
    return Rate(
        tenant_id=0, prefix=prefix, effective_from_ns=start_ns, effective_to_ns=end_ns, **fields
    )


def take(world: World, *deck: Rate, mode: ImportMode = REPLACE, **plan: Any) -> ImportOutcome:
    outcome = world.import_deck(1, mode, plan.pop("dry_run", False), deck, **plan)
    assert outcome.rejected == 0, outcome.errors
    return outcome


def present(world: World) -> dict[tuple[str, int | None], Rate]:
    found = [rate for part in world.rates.export(1) for rate in part]
    return {(rate.prefix, rate.effective_from_ns): rate for rate in found}


def windows(world: World) -> list[tuple[str, int | None, int | None]]:
    return [
        (one.prefix, one.effective_from_ns, one.effective_to_ns) for one in present(world).values()
    ]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_deck_that_begins_next_week_must_not_leave_nothing_in_effect(
    world: World, dry_run: bool
) -> None:
    take(world, rate("44"), rate("33"))
    before = present(world)
    with pytest.raises(FailedPrecondition) as refused:
        take(world, rate("44", NEXT_WEEK), rate("49", NEXT_WEEK + 1), dry_run=dry_run)
    assert refused.value.reason is Reason.IMPORT_GAP
    begins = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NEXT_WEEK // _NS))
    assert refused.value.metadata == {"prefixes": "2", "begins_at": begins}
    for word in ("2 of the 2 prefixes", begins, "--effective-from", "--allow-gap"):
        assert word in str(refused.value)
    assert present(world) == before


def test_a_deck_that_begins_next_week_must_not_leave_a_prefix_without_a_rate(world: World) -> None:
    take(world, rate("44"), rate("33"))
    with pytest.raises(FailedPrecondition, match="1 of the 2 prefixes") as refused:
        take(world, rate("44", NEXT_WEEK), rate("33"))
    assert refused.value.reason is Reason.IMPORT_GAP


def test_a_deck_that_has_ended_must_not_leave_nothing_in_effect(world: World) -> None:
    take(world, rate("44"))
    with pytest.raises(FailedPrecondition, match="whose rates have all ended"):
        take(world, rate("44", None, NOW - _DAY))


@pytest.mark.parametrize(
    ("mode", "before", "deck"),
    [
        # The deletion of rates that the deck lacks is intended.
        (REPLACE, [rate("44"), rate("33")], [rate("44")]),
        (REPLACE, [rate("44")], [rate("33")]),
        (REPLACE, [rate("44")], []),
        # No rate is in effect, so none can be lost.
        (REPLACE, [], [rate("44", NEXT_WEEK)]),
        (REPLACE, [rate("44", NEXT_WEEK)], [rate("44", NEXT_WEEK + 1)]),
        (REPLACE, [rate("44", None, NOW - _DAY)], [rate("44", NEXT_WEEK)]),
        # Present and future rates of one prefix.
        (REPLACE, [rate("44")], [rate("44", None, NEXT_WEEK), rate("44", NEXT_WEEK)]),
        (REPLACE, [rate("44")], [rate("44", NOW - _DAY), rate("33", NEXT_WEEK)]),
        (MERGE, [rate("44")], [rate("44", NEXT_WEEK)]),
    ],
)
def test_other_decks_are_accepted(
    world: World, mode: ImportMode, before: list[Rate], deck: list[Rate]
) -> None:
    take(world, *before)
    take(world, *deck, mode=mode)
    assert present(world).keys() >= {(one.prefix, one.effective_from_ns) for one in deck}


def test_a_gap_that_is_allowed(world: World) -> None:
    take(world, rate("44"))
    outcome = take(world, rate("44", NEXT_WEEK), allow_gap=True)
    assert (outcome.created, outcome.deleted, outcome.closed) == (1, 1, 0)
    assert windows(world) == [("44", NEXT_WEEK, None)]


def test_from_a_date_on_the_present_rates_end_and_are_not_deleted(world: World) -> None:
    take(
        world,
        rate("33", None, NOW - _DAY),  # has ended
        rate("44"),
        rate("44", NOW - _DAY),
        rate("44", NEXT_WEEK + 1),  # was to begin later
        rate("49", None, NEXT_WEEK + 5),
        rate("7", NEXT_WEEK),  # is in the deck
    )
    before = present(world)
    outcome = take(
        world,
        *(rate("44"), rate("39"), rate("7", cost_per_minute_e8=5_0000)),
        rate("48", NEXT_WEEK + 9),
        effective_from_ns=NEXT_WEEK,
    )
    counts = (outcome.created, outcome.updated, outcome.closed, outcome.deleted, outcome.unchanged)
    assert counts == (3, 1, 3, 1, 0)
    after = present(world)
    assert sorted(windows(world), key=str) == sorted(
        [
            ("33", None, NOW - _DAY),
            ("44", None, NEXT_WEEK),
            ("44", NOW - _DAY, NEXT_WEEK),
            ("44", NEXT_WEEK, None),
            ("49", None, NEXT_WEEK),
            ("39", NEXT_WEEK, None),
            ("7", NEXT_WEEK, None),
            ("48", NEXT_WEEK + 9, None),
        ],
        key=str,
    )
    for key in (("44", None), ("44", NOW - _DAY), ("49", None)):
        kept = replace(
            before[key],
            effective_to_ns=NEXT_WEEK,
            version_id=after[key].version_id,
            updated_at_ns=after[key].updated_at_ns,
        )
        assert after[key] == kept
        assert after[key].version_id > before[key].version_id
    assert after["33", None] == before["33", None]
    # The same deck once more changes nothing.
    again = take(
        world,
        *(rate("44"), rate("39"), rate("7", cost_per_minute_e8=5_0000)),
        rate("48", NEXT_WEEK + 9),
        effective_from_ns=NEXT_WEEK,
    )
    assert (again.unchanged, again.created, again.closed) == (4, 0, 0)
    assert present(world) == after


def test_calls_are_rated_by_the_old_deck_until_the_date(world: World) -> None:
    take(world, rate("44", cost_per_minute_e8=600_0000), rate("447", cost_per_minute_e8=700_0000))
    take(world, rate("44", cost_per_minute_e8=900_0000), effective_from_ns=NEXT_WEEK)
    costs = []
    for number, at_ns in enumerate((NOW, NEXT_WEEK - 1, NEXT_WEEK)):
        call = Call(
            tenant_id=1,
            call_id=str(number),
            caller_number="1",
            destination_number="4479",
            direction=Direction.OUTBOUND,
            disposition=Disposition.ANSWERED,
            duration_seconds=60,
            started_at_ns=at_ns,
        )
        priced_by = world.cdrs.create(call).rate
        assert priced_by is not None
        costs.append(priced_by.cost_per_minute_e8)
    assert costs == [700_0000, 700_0000, 900_0000]


def test_a_rate_of_the_deck_that_ends_before_the_date_is_rejected(world: World) -> None:
    outcome = world.import_deck(
        1, REPLACE, False, [rate("44", None, NOW)], effective_from_ns=NEXT_WEEK
    )
    assert [(error.index, error.field) for error in outcome.errors] == [(0, "effective_to")]


def test_a_merge_from_a_date_on_closes_nothing(world: World) -> None:
    take(world, rate("44"), rate("33"))
    outcome = take(world, rate("44"), mode=MERGE, effective_from_ns=NEXT_WEEK)
    assert (outcome.created, outcome.closed, outcome.deleted) == (1, 0, 0)
    assert sorted(windows(world), key=str) == [
        *(("33", None, None), ("44", NEXT_WEEK, None), ("44", None, None))
    ]


def test_any_decks_against_a_plain_computation(world: World) -> None:
    pick = random.Random(11)
    times = [None, NOW - 2 * _DAY, NOW - _DAY, NOW + _DAY, NEXT_WEEK, NEXT_WEEK + _DAY]

    def some() -> dict[tuple[str, int | None], Rate]:
        found = {}
        for _ in range(pick.randrange(7)):
            start, end = pick.choice(times), pick.choice([*times[1:], None, None])
            if start is None or end is None or start < end:
                prefix = pick.choice(["4", "44", "49"])
                found[prefix, start] = rate(
                    prefix, start, end, cost_per_minute_e8=pick.randrange(2)
                )
        return found

    def ends(one: Rate) -> int:
        return 2**80 if one.effective_to_ns is None else one.effective_to_ns

    def in_effect(rates: Any, at_ns: int) -> set[str]:
        return {one.prefix for one in rates if (one.effective_from_ns or 0) <= at_ns < ends(one)}

    refused = 0
    for _ in range(60):
        base, deck, at = some(), some(), pick.choice([None, NOW - _DAY, NEXT_WEEK])
        take(world, *base.values(), allow_gap=True)
        deck = {
            (prefix, start or at): replace(one, effective_from_ns=start or at)
            for (prefix, start), one in deck.items()
            if ends(one) > (start or at or 0)
        }
        expected = dict(deck)
        for key, one in base.items():
            start = one.effective_from_ns or 0
            if key not in deck and at is not None and start < at:
                expected[key] = replace(one, effective_to_ns=at) if ends(one) > at else one
        when = max(NOW, at or 0)
        old, new = in_effect(base.values(), when), in_effect(expected.values(), when)
        later = {o.prefix for o in expected.values() if (o.effective_from_ns or 0) > when}
        gap = bool(deck) and ((old and not new) or bool((old - new) & later))
        sent = list(deck.values())
        pick.shuffle(sent)
        try:
            take(world, *sent, effective_from_ns=at)
        except FailedPrecondition as error:
            assert gap and error.reason is Reason.IMPORT_GAP
            refused += 1
            take(world, *sent, effective_from_ns=at, allow_gap=True)
        else:
            assert not gap
        found = {
            key: (one.effective_to_ns, one.cost_per_minute_e8)
            for key, one in present(world).items()
        }
        assert found == {
            key: (one.effective_to_ns, one.cost_per_minute_e8) for key, one in expected.items()
        }
    assert refused > 5
