"""Decks from decks: the result depends on the rates only, not on the sequence of builds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratingcore import Deck, DeckBuilder
from tests.core.changes import Changes, in_order
from tests.core.decks import (
    PlainCall,
    PlainRate,
    deck_of,
    outcome,
    rate_lists,
)
from tests.examples import examples


@given(rate_lists)
def test_a_deck_has_the_rates_that_were_put(rates: list[PlainRate]) -> None:
    deck = deck_of(rates)
    assert len(deck) == len(rates)
    assert list(deck) == in_order(list(enumerate(rates)))


@given(rate_lists, st.randoms(use_true_random=False))
def test_any_sequence_of_builds_gives_the_same_deck(rates: list[PlainRate], random_: Any) -> None:
    """Rates are added, removed and added again in three builds, in any order."""
    order = list(enumerate(rates))
    random_.shuffle(order)
    first, later = order[: len(order) // 2], order[len(order) // 2 :]
    away = first[: len(first) // 2]
    builder = DeckBuilder()
    for version_id, rate in first:
        rate.put(builder, version_id)
    deck = builder.build(1)
    builder = DeckBuilder(deck)
    for version_id, rate in away:
        builder.remove(version_id, rate.prefix)
    for version_id, rate in later:
        rate.put(builder, version_id)
    without = builder.build(2)
    without._check()
    assert list(without) == in_order([item for item in order if item not in away])
    builder = DeckBuilder(without)
    for version_id, rate in away:
        rate.put(builder, version_id)
    again = builder.build(3)
    again._check()
    assert list(again) == in_order(order)
    assert list(deck) == in_order(first)  # the base is unchanged
    # Unused terms are kept up to a third of those in use.
    assert again.nbytes <= deck_of(rates).nbytes * 1.5 + 200


TestChanges = Changes.TestCase
TestChanges.settings = settings(examples(25), stateful_step_count=20)


@examples(30)
@given(rate_lists)
def test_many_at_once_are_the_same_as_one_by_one(rates: list[PlainRate]) -> None:
    builder = DeckBuilder()
    builder.put_many(rate.arguments(version_id) for version_id, rate in enumerate(rates))
    deck = builder.build(1)
    deck._check()
    assert list(deck) == list(deck_of(rates))


def test_many_may_omit_fields_with_a_default() -> None:
    long = (1, 2, "44", "UK", 200, 60, 5, 30, ((60, 1, 1),), 7, 9, True)
    for size in range(6, len(long) + 1):
        one, many = DeckBuilder(), DeckBuilder()
        one.put(*long[:size])
        many.put_many([list(long[:size])])
        assert list(many.build(1)) == list(one.build(1))


@pytest.mark.parametrize("wrong", [(3, 3, "46", "", 1), (3, 3, "46", "", 1, 1, *[0] * 7), None])
def test_rates_before_a_refused_one_are_kept(wrong: Any) -> None:
    rates = [(1, 1, "44", "", 1, 1), (2, 2, "45", "", 1, 1)]
    builder = DeckBuilder()
    with pytest.raises(TypeError):
        builder.put_many([*rates, wrong])
    with pytest.raises(ValueError, match="prefix must be at most 32 digits, not 'x'"):
        builder.put_many([(3, 3, "x", "", 1, 1), (4, 4, "47", "", 1, 1)])
    assert [rate.prefix for rate in builder.build(1)] == ["44", "45"]


def test_rates_are_put_while_they_are_made() -> None:
    """The iterator of the rates may use the builder."""
    builder = DeckBuilder()

    def rates() -> Iterator[tuple[Any, ...]]:
        for version_id in range(100):
            builder.put(version_id + 100, 1, f"2{version_id}", "", 1, 1)
            yield (version_id, 1, f"1{version_id}", "", 1, 1)
            builder.build(1)

    builder.put_many(rates())
    assert len(builder.build(1)) == 200


def test_a_builder_can_build_again() -> None:
    builder = DeckBuilder(deck_of([PlainRate("4")]))
    PlainRate("5").put(builder, 7)
    assert len(builder.build(2)) == 2
    PlainRate("6").put(builder, 8)
    deck = builder.build(3, 4, "44", "0", "00")
    deck._check()
    assert [rate.prefix for rate in deck] == ["4", "5", "6"]
    assert (deck.revision, deck.rounding) == (3, 4)
    assert (deck.country_code, deck.national_prefix, deck.international_prefix) == ("44", "0", "00")
    assert repr(deck) == "<Deck of 3 rates, revision 3>"


def test_rules_are_those_of_the_build() -> None:
    base = deck_of([PlainRate("49")], 3, ("49", "0", "00"))
    deck = DeckBuilder(base).build(2)
    assert (deck.rounding, deck.country_code) == (1, "")
    assert outcome(base, PlainCall("030"))[0] == "RATED"
    assert outcome(deck, PlainCall("030"))[0] == "UNRATED"


def test_two_rates_with_one_start_are_refused() -> None:
    for begin in (None, 5):
        builder = DeckBuilder(deck_of([PlainRate("44", from_ns=begin)]))
        PlainRate("44", from_ns=begin).put(builder, 1)
        with pytest.raises(ValueError, match="'44' has two rates with one effective_from"):
            builder.build(2)
        builder.remove(0, "44")  # which removes the conflict
        assert len(builder.build(2)) == 1


def test_one_version_twice_is_refused() -> None:
    builder = DeckBuilder(deck_of([PlainRate("44")]))
    PlainRate("44", from_ns=5).put(builder, 0)
    with pytest.raises(ValueError, match="'44' has one version twice"):
        builder.build(2)


def test_removing_an_absent_rate() -> None:
    base = deck_of([PlainRate("44"), PlainRate("441", from_ns=3), PlainRate("441")])
    builder = DeckBuilder(base)
    for version_id, prefix in ((0, "4"), (0, "441"), (1, "44"), (7, "44"), (0, ""), (0, "9")):
        with pytest.raises(KeyError):
            builder.remove(version_id, prefix)
    builder.remove(1, "441")
    with pytest.raises(KeyError):
        builder.remove(1, "441")
    PlainRate("5").put(builder, 9)
    builder.remove(9, "5")
    with pytest.raises(KeyError):
        builder.remove(9, "5")
    assert [rate.version_id for rate in builder.build(2)] == [0, 2]


def test_removing_everything_leaves_nothing() -> None:
    rates = [PlainRate(str(number) * length) for number in range(5) for length in range(1, 9)]
    base = deck_of([PlainRate(""), *rates])
    builder = DeckBuilder(base)
    for rate in base:
        builder.remove(rate.version_id, rate.prefix)
    deck = builder.build(2)
    deck._check()
    assert len(deck) == 0
    assert deck.nbytes == deck_of([]).nbytes


def test_terms_are_shared_and_removed_with_their_rates() -> None:
    def deck_with(destinations: list[str]) -> Deck:
        return deck_of(
            [
                PlainRate(str(10_000 + number), destination=destination)
                for number, destination in enumerate(destinations)
            ]
        )

    one, many = deck_with(["x" * 1000] * 200), deck_with([f"{n:01000}" for n in range(200)])
    assert many.nbytes > one.nbytes + 199 * 1000
    builder = DeckBuilder(many)
    for rate in many:
        builder.remove(rate.version_id, rate.prefix)
        PlainRate(rate.prefix, destination="x" * 1000).put(builder, rate.version_id)
    assert builder.build(2).nbytes == one.nbytes


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("prefix", "4" * 33),
        ("prefix", "+4"),
        ("prefix", "٤"),
        ("prefix", "\ud800"),
        ("prefix", "4 "),
        ("destination", "\ud800"),
        ("destination", "x" * 65_536),
        ("cost_per_minute_e8", -1),
        ("cost_per_minute_e8", 10**16),
        ("billing_increment", 0),
        ("billing_increment", 86_401),
        ("connect_fee_e8", -1),
        ("connect_fee_e8", 10**16),
        ("minimum_seconds", -1),
        ("minimum_seconds", 2**31),
        ("intervals", [(0, 1, 1)]),
        ("intervals", [(1, 1)]),
        ("effective_from_ns", 10),  # the window ends at 10
        ("effective_from_ns", 10**40),
        ("effective_from_ns", -(10**40)),
    ],
)
def test_limits_of_a_rate(field: str, wrong: object) -> None:
    rate: dict[str, Any] = {
        "version_id": 1,
        "rate_id": 1,
        "prefix": "4",
        "destination": "x",
        "cost_per_minute_e8": 1,
        "billing_increment": 1,
        "effective_to_ns": 10,
    }
    builder = DeckBuilder()
    with pytest.raises(ValueError):
        builder.put(**{**rate, field: wrong})
    assert len(builder.build(1)) == 0
    builder.put(**rate)
    assert len(builder.build(1)) == 1


def test_wrong_types() -> None:
    builder = DeckBuilder()
    good: list[Any] = [1, 1, "4", "x", 1, 1, 0, 0, (), 1, 2]
    wrong: dict[int, Any] = dict.fromkeys([0, 1, 4, 5, 6, 7, 9, 10], 1.0)
    for position, value in {**wrong, 2: 4, 3: None, 8: 5}.items():
        with pytest.raises(TypeError):
            builder.put(*[*good[:position], value, *good[position + 1 :]])
    for position in (0, 1, 4, 5, 6, 7):
        with pytest.raises(OverflowError):
            builder.put(*[*good[:position], 2**63, *good[position + 1 :]])
    with pytest.raises(TypeError):
        DeckBuilder("deck")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rounding"):
        builder.build(1, 0)
    with pytest.raises(ValueError, match="national_prefix"):
        builder.build(1, 1, "44", "x")


def test_ids_of_all_sizes() -> None:
    builder = DeckBuilder()
    builder.put(2**63 - 1, -(2**63), "4", "x", 1, 1)
    (info,) = builder.build(-(2**63))
    assert (info.version_id, info.rate_id) == (2**63 - 1, -(2**63))


def test_long_ids_beside_short_ones() -> None:
    """The upper halves of ids are stored from the first build on in which an id has one."""

    def put(builder: DeckBuilder, number: int, long: int) -> tuple[int, int, str]:
        rate = (number + (long << 32), number + 1 + (long << 33), f"{number}")
        builder.put(*rate, "x", 1, 1)
        return rate

    builder = DeckBuilder()
    short = [put(builder, number, 0) for number in range(100, 200)]
    deck = builder.build(1)
    builder = DeckBuilder(deck)
    long = [put(builder, number, number) for number in range(150_000, 160_000, 1_000)]
    mixed = builder.build(2)
    mixed._check()
    assert [info[:3] for info in mixed] == sorted(short + long, key=lambda rate: rate[2])
    assert mixed.nbytes - deck.nbytes > 8 * len(mixed)
    builder = DeckBuilder(mixed)
    for version_id, _, prefix in short:
        builder.remove(version_id, prefix)
    more = [put(builder, number, 0) for number in range(300, 310)]
    later = builder.build(3)
    assert [info[:3] for info in later] == sorted(more + long, key=lambda rate: rate[2])
    rating = later.rate("150000", 0, 1, True)
    assert (rating.version_id, rating.rate_id) == long[0][:2]
