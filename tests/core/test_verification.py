"""Recomputing stored calls: random decks against the oracle, and damaged rates and rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from ratingcore.base.memory import live_blocks
from ratingcore.record.kept_rates import KeptRates
from ratingcore.record.stored_rows import STORED_FIELDS, StoredRows, read_tuples
from ratingcore.record.verification import Finding, recompute
from tests.core.allocations import each_allocation_fails
from tests.core.decks import (
    STATUS_NAMES,
    PlainCall,
    PlainRate,
    calls,
    dialling_rules,
    oracle_of,
    rate_lists,
)
from tests.examples import examples

TENANT_ID = 2**40
REVISION = 7
STATUSES = {name: number for number, name in STATUS_NAMES.items()}
REASONS = {"NO_RATE": 1, "BLOCKED": 2, "INVALID_NUMBER": 3}
FIRST_VERSION = 2**33
DECKS = st.tuples(rate_lists, st.sampled_from([1, 2, 3, 4]), dialling_rules, st.integers(4, 8))
Deck = tuple[list[PlainRate], int, tuple[str, str, str], int]


def kept_of(deck: Deck) -> KeptRates:
    rates, rounding, dialling, cost_decimals = deck
    kept = KeptRates()
    for index, rate in enumerate(rates):
        put_rate(kept, FIRST_VERSION + index, rate)
    kept.put_tenant(TENANT_ID, REVISION, [(1, rounding, *dialling, cost_decimals)])
    return kept


def put_rate(kept: KeptRates, version_id: int, rate: PlainRate, **changed: Any) -> None:
    values = {
        "tenant_id": TENANT_ID,
        "created_revision": 1,
        "retired_revision": None,
        "prefix": rate.prefix,
        "cost_per_minute_e8": rate.price_e8,
        "billing_increment": rate.increment,
        "connect_fee_e8": rate.connect_fee_e8,
        "minimum_seconds": rate.minimum_seconds,
        "intervals": rate.intervals,
        "effective_from_ns": rate.from_ns,
        "effective_to_ns": rate.to_ns,
        "blocked": rate.blocked,
    }
    assert changed.keys() <= values.keys()
    kept.put_rate(version_id, *(values | changed).values())


def row_of(deck: Deck, call: PlainCall, row_id: int = 1, **changed: Any) -> tuple[Any, ...] | None:
    """The row of a call by the oracle; None if it cannot be recorded."""
    result = oracle_of(*deck).rate(call.number, call.at_ns, call.seconds, call.billable)
    if result.refused:
        return None
    values: dict[str, Any] = dict.fromkeys([name for name, _ in STORED_FIELDS], 1)
    values |= {
        "id": row_id,
        "tenant_id": TENANT_ID,
        "call_id": f"call {row_id}",
        "extension_id": None,
        "caller_number": "",
        "destination_number": call.number,
        "direction": 2 if call.billable else 3,
        "duration_seconds": call.seconds,
        "started_at_ns": call.at_ns,
        "ended_at_ns": None,
        "status": STATUSES[result.status],
        "unrated_reason": REASONS.get(result.reason),
        "bill_seconds": result.bill_seconds,
        "cost_units": None,
        "cost_fraction_e8": None,
        "rate_version_id": None,
        "rate_revision": REVISION,
    }
    if result.cost is not None:
        values["cost_units"], values["cost_fraction_e8"] = divmod(int(result.cost * 10**8), 10**8)
    if result.status == "RATED":
        assert result.rate_index is not None
        values["rate_version_id"] = FIRST_VERSION + result.rate_index
    return tuple((values | changed).values())


def storable(made: Sequence[PlainCall]) -> list[PlainCall]:
    return [
        call
        for call in made
        if 0 <= call.at_ns < 2**63 - 1 and not {"\0", "\ud800"} & set(call.number)
    ]


def rows_of(deck: Deck, made: Sequence[PlainCall]) -> list[tuple[Any, ...]]:
    rows = (row_of(deck, call, row_id) for row_id, call in enumerate(storable(made), 1))
    return [row for row in rows if row is not None]


def read(rows: Sequence[tuple[Any, ...]]) -> StoredRows:
    stored = read_tuples(rows)
    assert stored.misfits == []
    return stored


@examples(100)
@given(DECKS, st.lists(calls, min_size=1, max_size=20))
def test_calls_rated_by_the_oracle_verify(deck: Deck, made: list[PlainCall]) -> None:
    assert recompute(read(rows_of(deck, made)), kept_of(deck)) == []


NAMES = [name for name, _ in STORED_FIELDS]


def changed_by(row: tuple[Any, ...], **by: int) -> tuple[Any, ...]:
    return tuple(
        value + by[name] if name in by else value for name, value in zip(NAMES, row, strict=True)
    )


@examples(50)
@given(DECKS, st.lists(calls, min_size=1, max_size=20))
def test_any_other_outcome_is_found(deck: Deck, made: list[PlainCall]) -> None:
    rows = rows_of(deck, made)
    priced = [row for row in rows if row[NAMES.index("status")] != 3]
    assume(priced)
    kept = kept_of(deck)
    dearer = [changed_by(row, cost_units=1, bill_seconds=1) for row in priced]
    expected: list[tuple[int, Finding, int]] = []
    for position, row in enumerate(priced):
        values = dict(zip(NAMES, row, strict=True))
        cost_scaled = values["cost_units"] * 10**8 + values["cost_fraction_e8"]
        expected.append((position, Finding.BILL_SECONDS, values["bill_seconds"]))
        expected.append((position, Finding.COST, cost_scaled))
    assume(all(row[NAMES.index("cost_units")] < 10**15 for row in dearer))
    assert recompute(read(dearer), kept) == expected


def test_a_revision_has_the_rules_of_its_time() -> None:
    deck: Deck = ([PlainRate("44", 1, 1)], 1, ("", "", ""), 8)
    kept = kept_of(deck)
    kept.put_tenant(
        TENANT_ID,
        9,
        [
            (2, 4, "", "", "", 8),
            (4, 3, "44", "0", "", 8),
            (6, 9, "", "", "", 8),
            (8, 1, "", "", "", 9),
        ],
    )
    found = {}
    for revision in range(1, 11):
        row = row_of(deck, PlainCall("447", 0, 29), revision, rate_revision=revision)
        assert row is not None
        found |= {revision: [one[1:] for one in recompute(read([row]), kept)]}
    assert found == {
        1: [(Finding.RULES_MISSING, 0)],
        2: [],  # DOWN: 29 s cost nothing, as with HALF_UP
        3: [],
        4: [(Finding.COST, 1)],
        5: [(Finding.COST, 1)],
        **{revision: [(Finding.RULES_DAMAGED, 0)] for revision in range(6, 10)},
        10: [(Finding.RULES_MISSING, 0)],
    }


def test_missing_rates_and_rules_are_named() -> None:
    deck: Deck = ([PlainRate("44")], 1, ("", "", ""), 8)
    row = row_of(deck, PlainCall("447"))
    assert row is not None
    kept = KeptRates()
    rows = read([row])
    assert (kept.missing_versions(rows), kept.tenants_of(rows)) == ([FIRST_VERSION], [TENANT_ID])
    assert kept.revision(TENANT_ID) == 0
    assert recompute(rows, kept) == [(0, Finding.TENANT_MISSING, 0)]
    kept.put_tenant(TENANT_ID, REVISION, [(1, 1, "", "", "", 8)])
    assert kept.revision(TENANT_ID) == REVISION
    assert recompute(rows, kept) == [(0, Finding.RATE_MISSING, 0)]
    put_rate(kept, FIRST_VERSION, deck[0][0])
    assert kept.missing_versions(rows) == []
    assert recompute(rows, kept) == []


ANYTHING = (
    st.none()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=40)
    | st.binary(max_size=4)
    | st.floats()
    | st.lists(st.integers(-(2**70), 2**70) | st.tuples(st.integers(), st.integers()), max_size=70)
)
FIELDS = (
    *("tenant_id", "created_revision", "retired_revision", "prefix", "cost_per_minute_e8"),
    *("billing_increment", "connect_fee_e8", "minimum_seconds", "intervals"),
    *("effective_from_ns", "effective_to_ns", "blocked"),
)


@examples(75)
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, min_size=1, max_size=3))
def test_rates_with_any_values_are_harmless(changed: dict[str, Any]) -> None:
    deck: Deck = ([PlainRate("44")], 1, ("", "", ""), 8)
    row = row_of(deck, PlainCall("447"))
    assert row is not None
    kept = kept_of(deck)
    put_rate(kept, FIRST_VERSION, deck[0][0], **changed)
    assert {one[0] for one in recompute(read([row]), kept)} <= {0}


WRONG_RULES = st.tuples(
    st.just(1),
    st.just(1),
    *[st.sampled_from(["", "1", "x", "1" * 17, None, 5])] * 3,
    st.sampled_from([8, 3, 9, None, "8"]),
).map(list)


@examples(120)
@given(st.lists(st.lists(ANYTHING, max_size=7) | WRONG_RULES, max_size=3))
def test_rules_with_any_values_are_harmless(rules: list[list[Any]]) -> None:
    deck: Deck = ([PlainRate("44")], 1, ("", "", ""), 8)
    row = row_of(deck, PlainCall("447"))
    assert row is not None
    kept = kept_of(deck)
    kept.put_tenant(TENANT_ID, REVISION, [tuple(values) for values in rules])  # type: ignore[misc]
    assert len(recompute(read([row]), kept)) <= 1


def test_a_rate_with_another_number_of_values_is_damaged() -> None:
    deck: Deck = ([PlainRate("44")], 1, ("", "", ""), 8)
    row = row_of(deck, PlainCall("447"))
    assert row is not None
    good: list[Any] = [TENANT_ID, 1, None, "44", 1, 1, 0, 0, (), None, None, False]
    for values in (good[:-1], good[:4], good[:3], [*good, 0]):
        kept = kept_of(deck)
        kept.put_rate(FIRST_VERSION, *values)
        assert [one[0] for one in recompute(read([row]), kept)] == [0]


def test_every_allocation_may_fail() -> None:
    rates = [PlainRate(f"44{at}", at, 1, intervals=((at + 1, 7, 1),)) for at in range(100)]
    deck: Deck = (rates, 1, ("", "", ""), 8)
    rows = read(
        [
            changed_by(row, cost_units=at % 2)
            for at, row in enumerate(rows_of(deck, [PlainCall(rate.prefix) for rate in rates]))
        ]
    )
    before = live_blocks()

    def attempt() -> list[tuple[int, Finding, int]]:
        kept = kept_of(deck)
        assert kept.missing_versions(rows) == []
        return recompute(rows, kept)

    made, count = each_allocation_fails(attempt)
    assert count > 10
    assert [one[:2] for one in made] == [(at, Finding.COST) for at in range(1, 100, 2)]
    assert live_blocks() == before
