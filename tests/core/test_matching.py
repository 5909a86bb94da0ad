"""Rating rules 1, 3 and 4: which rate applies to a call."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore import (
    BLOCKED,
    INVALID_NUMBER,
    NO_RATE,
    NOT_BILLABLE,
    RATED,
    REFUSED,
    UNRATED,
    Deck,
    DeckBuilder,
)
from tests.core.decks import (
    PlainCall,
    PlainRate,
    calls,
    deck_of,
    dialling_rules,
    expected,
    oracle_of,
    outcome,
    rate_lists,
)

Shape = Callable[[random.Random, int, int], tuple[int, int | None]]


@pytest.fixture
def examples() -> Deck:
    """The deck of the worked examples."""
    return deck_of(
        [PlainRate("1", 120, 60), PlainRate("44", 200, 6), PlainRate("447", 1500, 6)],
    )


@pytest.mark.parametrize(
    ("number", "seconds", "billable", "result"),
    [
        ("+44 20 7946 0000", 7, True, ("RATED", "", 12, 40, 1)),
        ("447911123456", 63, True, ("RATED", "", 66, 1650, 2)),
        ("14155550123", 1, True, ("RATED", "", 60, 120, 0)),
        ("4930123456", 10, True, ("UNRATED", "NO_RATE", None, None, None)),
        ("447911123456", 0, False, ("NOT_BILLABLE", "", 0, 0, None)),
        ("anything", 600, False, ("NOT_BILLABLE", "", 0, 0, None)),
    ],
)
def test_worked_examples(
    examples: Deck, number: str, seconds: int, billable: bool, result: tuple[object, ...]
) -> None:
    assert outcome(examples, PlainCall(number, 0, seconds, billable)) == result


def test_the_fields_of_a_rating(examples: Deck) -> None:
    rating = examples.rate("+44 7911 123456", 0, 63, True)
    assert (rating.status, rating.unrated_reason) == (RATED, 0)
    assert (rating.bill_seconds, rating.cost_scaled) == (66, 1650)
    assert (rating.rate_id, rating.version_id) == (1002, 2)
    assert (rating.matched_prefix, rating.destination) == ("447", "somewhere")
    assert (rating.cost_per_minute_e8, rating.billing_increment) == (1500, 6)
    assert rating.normalized_number == "447911123456"
    assert examples.rate_at(rating.rate_index).prefix == "447"
    assert "1650" in repr(rating)


@pytest.mark.parametrize(
    ("number", "billable", "status", "reason", "normalized"),
    [
        ("49", True, UNRATED, NO_RATE, "49"),
        ("x", True, UNRATED, INVALID_NUMBER, ""),
        ("44", False, NOT_BILLABLE, 0, ""),
    ],
)
def test_a_rating_without_a_rate(
    examples: Deck, number: str, billable: bool, status: int, reason: int, normalized: str
) -> None:
    rating = examples.rate(number, 0, 1, billable)
    assert (rating.status, rating.unrated_reason) == (status, reason)
    cost = 0 if status == NOT_BILLABLE else None
    assert (rating.bill_seconds, rating.cost_scaled) == (cost, cost)
    assert (rating.rate_id, rating.version_id, rating.rate_index) == (0, 0, -1)
    assert (rating.matched_prefix, rating.destination) == ("", "")
    assert (rating.cost_per_minute_e8, rating.billing_increment) == (None, 0)
    assert rating.normalized_number == normalized


def test_a_blocked_rating_has_its_rate() -> None:
    deck = deck_of([PlainRate("4", 5, 7), PlainRate("44", 6, 30, blocked=True)])
    rating = deck.rate("441", 0, 1, True)
    assert (rating.status, rating.unrated_reason) == (UNRATED, BLOCKED)
    assert (rating.bill_seconds, rating.cost_scaled) == (None, None)
    assert (rating.rate_id, rating.version_id, rating.matched_prefix) == (1001, 1, "44")
    assert (rating.cost_per_minute_e8, rating.billing_increment) == (6, 30)
    assert deck.rate("45", 0, 60, True).cost_scaled == 5  # the shorter prefix is not blocked


def test_a_refused_rating_has_its_rate() -> None:
    deck = deck_of([PlainRate("4", 999_999_999_999, 1)])
    rating = deck.rate("4", 0, 2_147_483_647, True)
    assert (rating.status, rating.unrated_reason) == (REFUSED, 0)
    assert (rating.bill_seconds, rating.cost_scaled, rating.rate_id) == (None, None, 1000)


def test_the_catch_all_rates_all_other_numbers() -> None:
    deck = deck_of([PlainRate("44"), PlainRate("", destination="elsewhere")])
    assert deck.rate("9", 0, 1, True).destination == "elsewhere"
    assert deck.rate("4", 0, 1, True).matched_prefix == ""
    assert deck.rate("44", 0, 1, True).matched_prefix == "44"
    assert deck.rate("x", 0, 1, True).unrated_reason == INVALID_NUMBER


def test_only_a_catch_all() -> None:
    assert outcome(deck_of([PlainRate("")]), PlainCall("7"))[0] == "RATED"


def test_an_empty_deck() -> None:
    for deck in (Deck(), deck_of([])):
        deck._check()
        assert len(deck) == 0
        assert list(deck) == []
        assert outcome(deck, PlainCall("44")) == ("UNRATED", "NO_RATE", None, None, None)


def test_longest_and_shortest_prefixes() -> None:
    rates = [PlainRate("5" * length) for length in range(33)]
    deck = deck_of(rates)
    for length in range(1, 33):
        assert len(deck.rate("5" * length, 0, 1, True).matched_prefix) == length
        assert len(deck.rate("5" * (length - 1) + "6", 0, 1, True).matched_prefix) == length - 1
    assert deck.rate("5" * 33, 0, 1, True).unrated_reason == INVALID_NUMBER


def test_a_lone_prefix_of_32_digits() -> None:
    deck = deck_of([PlainRate("12345678" * 4)])
    assert outcome(deck, PlainCall("12345678" * 4))[0] == "RATED"
    assert outcome(deck, PlainCall("12345678" * 3 + "1234567"))[1] == "NO_RATE"


def test_every_digit() -> None:
    prefixes = [a + b for a in "0123456789" for b in "0123456789"]
    random.Random(1).shuffle(prefixes)
    deck = deck_of([PlainRate(prefix) for prefix in prefixes])
    for version_id, prefix in enumerate(prefixes):
        assert deck.rate(prefix + "5", 0, 1, True).version_id == version_id


@pytest.mark.parametrize(
    ("begin", "end", "at", "matches"),
    [
        (10, 20, 9, False),
        (10, 20, 10, True),
        (10, 20, 19, True),
        (10, 20, 20, False),
        (None, 20, -(2**63), True),
        (None, 20, 20, False),
        (10, None, 2**63 - 1, True),
        (10, None, 9, False),
        (2_000_000_000, 3_000_000_000, 1_999_999_999, False),
        (2_000_000_000, 3_000_000_000, 2_999_999_999, True),
        (2_000_000_000, 3_000_000_000, 3_000_000_000, False),
        (-1, 0, -1, True),
        (-1, 0, 0, False),
        (-(10**9), 0, -(10**9), True),
        (-(10**9), 0, -(10**9) - 1, False),
        (-(10**22), 10**22, 0, True),  # beyond 64 bits of nanoseconds
        (10**22, None, 2**63 - 1, False),
        (None, -(10**22), -(2**63), False),
        (None, 2**63 - 1, 2**63 - 2, True),
        (None, 2**63 - 1, 2**63 - 1, False),
        (None, 2**63, 2**63 - 1, True),
        (2**63 - 1, None, 2**63 - 1, True),
    ],
)
def test_windows(begin: int | None, end: int | None, at: int, matches: bool) -> None:
    deck = deck_of([PlainRate("4", from_ns=begin, to_ns=end)])
    rating = deck.rate("4", at, 1, True)
    assert rating.status == (RATED if matches else UNRATED)
    assert rating.matched_prefix == ("4" if matches else "")
    (info,) = deck
    assert (info.effective_from_ns, info.effective_to_ns) == (begin, end)


def test_a_rate_not_in_effect_hides_nothing() -> None:
    deck = deck_of(
        [
            PlainRate("4"),
            PlainRate("44", from_ns=10, to_ns=20),
            PlainRate("447", from_ns=30, to_ns=40),
            PlainRate("4479", to_ns=5),
        ]
    )
    for at, version_id in ((0, 3), (5, 0), (10, 1), (20, 0), (30, 2), (40, 0)):
        assert outcome(deck, PlainCall("44791", at))[4] == version_id


def test_the_latest_start_wins_even_if_it_ends_first() -> None:
    deck = deck_of(
        [
            PlainRate("4", from_ns=None),
            PlainRate("4", from_ns=10),
            PlainRate("4", from_ns=20, to_ns=25),
            PlainRate("4", from_ns=15, to_ns=30),
        ]
    )
    expectations = ((9, 0), (10, 1), (15, 3), (20, 2), (25, 3), (30, 1))
    for at, version_id in expectations:
        assert outcome(deck, PlainCall("4", at))[4] == version_id


@pytest.mark.parametrize("duration", [-1, 2_147_483_648])
def test_wrong_durations(examples: Deck, duration: int) -> None:
    with pytest.raises(ValueError, match="duration_seconds"):
        examples.rate("44", 0, duration, True)


def test_wrong_arguments(examples: Deck) -> None:
    for at, duration in ((2**63, 1), (-(2**63) - 1, 1), (0, 2**63)):
        with pytest.raises(OverflowError):
            examples.rate("44", at, duration, True)
    with pytest.raises(TypeError):
        examples.rate(None, 0, 1, True)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        examples.rate("44", 0.5, 1, True)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        examples.rate("44", 0, 1.5, True)  # type: ignore[arg-type]


@given(rate_lists, st.integers(1, 4), dialling_rules, st.lists(calls, min_size=1, max_size=20))
def test_as_the_oracle(
    rates: list[PlainRate],
    rounding: int,
    dialling: tuple[str, str, str],
    tried: list[PlainCall],
) -> None:
    deck = deck_of(rates, rounding, dialling)
    oracle = oracle_of(rates, rounding, dialling)
    for call in tried:
        assert outcome(deck, call) == expected(oracle, call)


def test_large_random_decks_as_the_oracle() -> None:
    """With a direct table of several digits, and groups of shorter and longer prefixes."""
    random_ = random.Random(20)
    for size in (30, 300, 3_000):
        prefixes = {
            "".join(random_.choices("0123456789", k=random_.choice([1, 2, 3, 4, 5, 6, 9])))
            for _ in range(size)
        }
        rates = [
            PlainRate(prefix, random_.randrange(10_000), from_ns=begin)
            for prefix in sorted(prefixes)
            for begin in random_.choice([(None,), (None,), (None, 5), (5,)])
        ]
        deck = deck_of(rates)
        oracle = oracle_of(rates)
        for _ in range(500):
            number = random_.choice(sorted(prefixes)) if random_.random() < 0.7 else ""
            number += "".join(random_.choices("0123456789", k=random_.randrange(1, 8)))
            call = PlainCall(number, random_.choice([4, 5]))
            assert outcome(deck, call) == expected(oracle, call)


def _sequence(random_: random.Random, at: int, count: int) -> tuple[int, int | None]:
    return at, at + random_.choice([1, 2, 3])


def _nested(random_: random.Random, at: int, count: int) -> tuple[int, int | None]:
    return at, 2 * count - at


def _crossing(random_: random.Random, at: int, count: int) -> tuple[int, int | None]:
    return at, at + random_.randrange(1, count)


def _mostly_short(random_: random.Random, at: int, count: int) -> tuple[int, int | None]:
    if random_.random() < 0.01:
        return at, None
    return at, at + random_.choice([1, 1, 1, 50])


@pytest.mark.parametrize("shape", [_sequence, _nested, _crossing, _mostly_short])
def test_thousands_of_windows_of_one_prefix_as_the_oracle(shape: Shape) -> None:
    """Also after changes, with which the deck builds the group anew."""
    random_ = random.Random(7)
    count = 2_000
    rates = [
        PlainRate("44", from_ns=begin, to_ns=end)
        for begin, end in (shape(random_, at, count) for at in range(count))
    ]
    random_.shuffle(rates)
    rates.append(PlainRate("4"))
    rates.append(PlainRate("5", from_ns=3))
    deck = deck_of(rates)
    oracle = oracle_of(rates)
    instants = [random_.randrange(-2, 2 * count + 2) for _ in range(150)]
    for at in instants:
        call = PlainCall("441", at)
        assert outcome(deck, call)[4] == oracle.match(call.number, at)
    # The group is copied where another prefix changes, and built where one of its rates does.
    for version_id in (None, 5, 1_234):
        builder = DeckBuilder(deck)
        PlainRate("5", from_ns=10 + (version_id or 0)).put(builder, count + 10 + (version_id or 0))
        if version_id is not None:
            builder.remove(version_id, "44")
            rates[version_id] = replace(rates[version_id], prefix="999")
        deck = builder.build(2, 1, "", "", "", 8)
        deck._check()
    oracle = oracle_of(rates)
    for at in instants:
        assert outcome(deck, PlainCall("441", at))[4] == oracle.match("441", at)
