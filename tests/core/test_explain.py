"""The explanation of a rating agrees with the rating, and has the reasons."""

from __future__ import annotations

from fractions import Fraction
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore import NOT_BILLABLE, RATED, REFUSED, Deck, Explanation
from tests.core.decks import (
    PlainCall,
    PlainRate,
    calls,
    deck_of,
    dialling_rules,
    rate_lists,
)

ALL = 2**32 - 1
# effective_from, effective_to
periods = st.tuples(st.none() | st.integers(0, 9), st.none() | st.integers(1, 5)).map(
    lambda one: (one[0], None if one[1] is None else (one[0] or 0) + one[1])
)
YEAR_2026_NS = 1_767_225_600 * 10**9


def explain(deck: Deck, number: str, at_ns: int = 0, seconds: int = 60) -> Explanation:
    return deck.explain(number, at_ns, seconds, True)


def steps(explanation: Explanation) -> dict[str, str]:
    return {step.name: step.result for step in explanation.steps}


@given(rate_lists, st.integers(1, 4), dialling_rules, calls, st.integers(4, 8))
def test_it_agrees_with_the_rating(
    rates: list[PlainRate],
    rounding: int,
    dialling: tuple[str, str, str],
    call: PlainCall,
    cost_decimals: int,
) -> None:
    deck = deck_of(rates, rounding, dialling, cost_decimals)
    arguments = (call.number, call.at_ns, call.seconds, call.billable)
    rating = deck.rate(*arguments)
    explanation = deck.explain(*arguments)
    assert explanation.normalized_number == rating.normalized_number
    winners = [rate.version_id for rate in explanation.considered if rate.won]
    assert winners == ([] if rating.rate_index < 0 else [rating.version_id])
    if rating.normalized_number:
        assert [
            (rate.version_id, rate.rate_id, rate.prefix, rate.destination)
            for rate in explanation.considered
        ] == [
            (rate.version_id, rate.rate_id, rate.prefix, rate.destination)
            for rate in deck.candidates(rating.normalized_number, call.at_ns, ALL)[0]
        ]
    results = steps(explanation)
    if rating.status in (RATED, NOT_BILLABLE):
        assert rating.cost_scaled is not None
        assert Fraction(results["cost"]) * 10**cost_decimals == rating.cost_scaled
        assert len(results["cost"].partition(".")[2]) == cost_decimals
        assert int(results["billed seconds"]) == rating.bill_seconds
    elif rating.status == REFUSED:
        assert "refused" in results["cost"]
    else:
        assert "cost" not in results
        reason = {1: "NO_RATE", 2: "BLOCKED", 3: "INVALID_NUMBER"}[rating.unrated_reason]
        assert explanation.steps[-1].result == f"UNRATED, {reason}"


@given(rate_lists, st.text("0123", max_size=8))
def test_candidates_are_all_rates_with_a_prefix_of_the_number(
    rates: list[PlainRate], number: str
) -> None:
    deck = deck_of(rates)
    candidates = sorted(
        (rate for rate in deck if number.startswith(rate.prefix)),
        key=lambda rate: -len(rate.prefix),
    )
    assert deck.candidates(number, 0, ALL) == (candidates, 0)


@given(
    st.lists(periods, max_size=12, unique_by=itemgetter(0)), st.integers(0, 10), st.integers(1, 5)
)
def test_candidates_of_a_prefix_with_many_rates(
    windows: list[tuple[int | None, int | None]], at_ns: int, most: int
) -> None:
    """They are consecutive, begin next to the instant, and have the rate in effect."""
    deck = deck_of([PlainRate("4", from_ns=begin, to_ns=end) for begin, end in windows])
    rates = list(deck)
    found, omitted = deck.candidates("44", at_ns, most)
    rating = deck.rate("44", at_ns, 1, True)
    in_effect = rating.version_id if rating.matched_prefix else None
    assert len(found) + omitted == len(rates)
    near = found[:most]
    begin = rates.index(near[0]) if near else 0
    assert near == rates[begin : begin + most]
    assert [rate.version_id for rate in found[most:]] in ([], [in_effect])
    if any(rate.version_id == in_effect for rate in rates[begin + most :]):
        assert found[most:]
    begun = [rate for rate in rates if (rate.effective_from_ns or -1) <= at_ns]
    later = [rate for rate in rates if rate not in begun]
    if len(rates) > most:
        assert not begun or begun[0] in near or most == 1
        assert not later or later[-1] in near or most == 1


def test_an_explanation_of_many_rates_is_bounded() -> None:
    """The rate in effect has begun long before the others."""
    windows = [(0, 2_000), *((at, 1_000) for at in range(1, 900))]
    deck = deck_of([PlainRate("4", from_ns=begin, to_ns=end) for begin, end in windows])
    explanation = explain(deck, "44", 1_003)
    assert len(explanation.considered) == 21
    assert explanation.omitted == 900 - 21
    assert explanation.considered[-1].won


@pytest.mark.parametrize("wrong", ["4x", "+4", "٤", "4" * 33, "\ud800"])
def test_candidates_of_a_number_that_is_not_normalised(wrong: str) -> None:
    with pytest.raises(ValueError):
        Deck().candidates(wrong, 0, ALL)


def test_why_each_rate_lost() -> None:
    deck = deck_of(
        [
            PlainRate(""),
            PlainRate("4"),
            PlainRate("44", from_ns=YEAR_2026_NS),
            PlainRate("44", from_ns=YEAR_2026_NS + 20),
            PlainRate("447", to_ns=YEAR_2026_NS + 5),
            PlainRate("4479", from_ns=YEAR_2026_NS + 10**9),
            PlainRate("44791", from_ns=400_000_000_000 * 10**9),
        ]
    )
    explanation = explain(deck, "+44 791", YEAR_2026_NS + 20)
    assert [(rate.version_id, rate.won, rate.reason) for rate in explanation.considered] == [
        (6, False, "lost: not in effect before 400000000000 s from 1970"),
        (5, False, "lost: not in effect before 2026-01-01T00:00:01Z"),
        (4, False, "lost: expired at 2026-01-01T00:00:00.000000005Z"),
        (3, True, "won: the longest prefix in effect"),
        (2, False, "lost: a rate with the same prefix has a later effective_from"),
        (1, False, "lost: its prefix is shorter than '44'"),
        (0, False, "lost: its prefix is shorter than '44'"),
    ]
    assert (
        explanation.considered[3].effective_from_ns,
        explanation.considered[3].effective_to_ns,
    ) == (
        YEAR_2026_NS + 20,
        None,
    )


def test_the_arithmetic() -> None:
    deck = deck_of([PlainRate("44", 200_0000, 6, 500_0000, 10)], cost_decimals=4)
    explanation = explain(deck, "4420", seconds=7)
    assert [tuple(step) for step in explanation.steps] == [
        (
            "normalisation",
            "'4420' without scheme, separators and '+'; no dialling rule applies",
            "4420",
        ),
        (
            "prefixes",
            "the tenant's rates with one of the prefixes 4420, 442, … to the empty prefix",
            "'44'",
        ),
        (
            "match",
            "the longest prefix of 4420 in effect at 1970-01-01T00:00:00Z",
            "'44', rate 1000",
        ),
        ("minimum", "7 s is below the minimum of 10 s", "10"),
        ("billed seconds", "ceil(10 / 6) * 6", "12"),
        ("exact cost", "0.0500 connect fee + 12 / 60 * 0.0200", "27/500"),
        ("cost", "rounded once to 4 decimals, HALF_UP", "0.0540"),
    ]


def test_the_arithmetic_of_intervals() -> None:
    deck = deck_of(
        [PlainRate("44", 100_1000, 30, 0, 0, ((60, 50_0000, 6),))], rounding=2, cost_decimals=5
    )
    explanation = explain(deck, "44", seconds=61)
    assert [tuple(step) for step in explanation.steps[3:]] == [
        ("billed seconds from 0", "the call reaches 60: 60 - 0", "60"),
        ("billed seconds from 60", "ceil(1 / 6) * 6", "6"),
        ("billed seconds", "the sum of the parts", "66"),
        ("exact cost", "60 / 60 * 0.01001 + 6 / 60 * 0.0050", "1051/100000"),
        ("cost", "rounded once to 5 decimals, HALF_EVEN", "0.01051"),
    ]


@pytest.mark.parametrize(
    ("number", "working"),
    [
        ("0044207", "international prefix 00 removed"),
        ("0207", "national prefix 0 replaced by country code 44"),
        ("+0207", "no dialling rule applies"),
        ("44207", "no dialling rule applies"),
        ("00" + "4" * 32, "international prefix 00 removed"),
    ],
)
def test_the_dialling_rule_is_named(number: str, working: str) -> None:
    deck = deck_of([PlainRate("44")], 1, ("44", "0", "00"))
    found = {step.name: step.working for step in explain(deck, number).steps}
    assert found["normalisation"].endswith(working)


def test_each_step_of_the_normalisation_is_shown() -> None:
    deck = deck_of([PlainRate("44"), PlainRate(""), PlainRate("447", blocked=True)])
    explanation = explain(deck, "SIP:+44 (791)-1@example.com;user=phone")
    assert [(step.name, step.result) for step in explanation.steps] == [
        ("scheme", "+44 (791)-1@example.com;user=phone"),
        ("domain and parameters", "+44 (791)-1"),
        ("separators", "+447911"),
        ("plus", "447911"),
        ("normalisation", "447911"),
        ("prefixes", "'447', '44', ''"),
        ("match", f"'447', rate {explanation.considered[0].rate_id}"),
        ("blocked", "UNRATED, BLOCKED"),
    ]
    assert [(rate.blocked, rate.in_effect) for rate in explanation.considered] == [
        (True, True),
        (False, True),
        (False, True),
    ]
    assert explanation.considered[0].reason.endswith("it is blocked")


def test_the_rest_of_an_invalid_number_is_shown() -> None:
    explanation = explain(Deck(), "tel:+49 none")
    assert explanation.steps[-1].working.endswith("but '49none'")
    assert explanation.steps[-1].result == "UNRATED, INVALID_NUMBER"


@given(st.text(" -.()/+@;sipteSIPTEL:0123", max_size=12))
def test_the_steps_of_the_normalisation_lead_to_its_result(number: str) -> None:
    deck = Deck()
    explanation = explain(deck, number)
    if explanation.normalized_number:
        before = [one for one in explanation.steps if one.name != "prefixes"][:-1]
        assert before[-1].result == explanation.normalized_number
        left = before[-2].result if before[1:] else number
        assert left == explanation.normalized_number


def test_wrong_arguments_are_refused_as_by_the_rating() -> None:
    with pytest.raises(ValueError, match="duration_seconds"):
        Deck().explain("4", 0, -1, True)
    with pytest.raises(OverflowError):
        Deck().explain("4", 2**64, 1, True)
    with pytest.raises(TypeError):
        Deck().explain(None, 0, 1, True)  # type: ignore[arg-type]
