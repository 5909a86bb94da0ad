"""Decks of all sizes, many decks at a time, and prefixes of all lengths.

TOLLWIRE_TEST_PREFIXES sets the size of the largest deck: ``make test-large`` runs five million.
"""

from __future__ import annotations

import os
import random

import pytest

from ratingcore import NO_RATE, Deck, DeckBuilder
from tests.core.decks import PlainCall, PlainRate, columns_of, deck_of

LARGE = int(os.environ.get("TOLLWIRE_TEST_PREFIXES", "200000"))
TENANTS = 10_000
RATES_A_TENANT = 100


def deck_of_prefixes(prefixes: list[str]) -> Deck:
    """The version of a rate is the index of its prefix, and its price that index modulo 1000."""
    builder = DeckBuilder()
    builder.put_many(
        (place, place, prefix, "x", place % 1_000, 60) for place, prefix in enumerate(prefixes)
    )
    return builder.build(1, cost_decimals=8)


def random_digits(random_: random.Random, least: int, most: int) -> str:
    return f"{random_.random():.17f}"[2 : 2 + random_.randint(least, most)]


def test_a_large_deck() -> None:
    random_ = random.Random(LARGE)
    versions: dict[str, int] = {}
    while len(versions) < LARGE:
        versions.setdefault(random_digits(random_, 1, 9), len(versions))
    deck = deck_of_prefixes(list(versions))
    assert len(deck) == LARGE
    numbers = [random_digits(random_, 8, 14) for _ in range(20_000)]
    columns = deck.rate_columns(*columns_of([PlainCall(number) for number in numbers]))
    for number, length, index, cost_scaled in zip(
        numbers, columns.prefix_length, columns.rate_index, columns.cost_scaled, strict=True
    ):
        longest = next(n for n in range(len(number), -1, -1) if n == 0 or number[:n] in versions)
        assert length == longest
        if longest:
            assert cost_scaled == versions[number[:longest]] % 1_000
            assert deck.rate_at(index).version_id == versions[number[:longest]]
        else:
            assert index == -1
    changed = DeckBuilder(deck)
    changed.put(LARGE, 1, "0" * 32, "y", 5, 1)
    assert changed.build(2).rate("0" * 32, 0, 60, True).version_id == LARGE


def test_many_tenants() -> None:
    """Each has its own hundred rates and no other ones, in little memory."""
    decks = []
    for tenant in range(TENANTS):
        own = [f"{tenant:05}{number:02}" for number in range(RATES_A_TENANT)]
        decks.append(deck_of_prefixes(own))
    assert sum(map(len, decks)) == TENANTS * RATES_A_TENANT
    random_ = random.Random(1)
    for _ in range(5_000):
        tenant, number = random_.randrange(TENANTS), random_.randrange(RATES_A_TENANT)
        rating = decks[tenant].rate(f"{tenant:05}{number:02}9999", 0, 60, True)
        assert (rating.version_id, rating.cost_scaled) == (number, number)
        other = decks[(tenant + 1) % TENANTS].rate(f"{tenant:05}{number:02}9999", 0, 60, True)
        assert other.unrated_reason == NO_RATE
    # A direct table of 10^5 entries, as a large deck has, would take 800,000 bytes.
    assert max(deck.nbytes for deck in decks) < 8_000


def test_an_empty_deck() -> None:
    for deck in (Deck(), DeckBuilder().build(1), DeckBuilder(Deck()).build(2)):
        deck._check()
        assert (len(deck), list(deck)) == (0, [])
        assert deck.rate("44", 0, 60, True).unrated_reason == NO_RATE
        columns = deck.rate_columns(*columns_of([PlainCall("44"), PlainCall("4" * 32)] * 40))
        assert set(columns.rate_index) == {-1}


@pytest.mark.parametrize("prefix", ["", "0", "9", "44", "1234567", "12345678", "5" * 31, "5" * 32])
def test_a_deck_of_one_rate(prefix: str) -> None:
    deck = deck_of([PlainRate(prefix, 60)])
    reached = [prefix or "1", (prefix + "0" * 32)[:32], (prefix + "9")[:32]]
    missed = [prefix[:-1]] if len(prefix) > 1 else []
    if prefix:
        missed += [("1" if prefix[0] == "0" else "0") + prefix[1:]]
    for number in reached:
        assert deck.rate(number, 0, 60, True).matched_prefix == prefix
    for number in missed:
        assert deck.rate(number, 0, 60, True).unrated_reason == NO_RATE
    columns = deck.rate_columns(*columns_of([PlainCall(n) for n in (reached + missed) * 20]))
    assert list(columns.rate_index) == ([0] * len(reached) + [-1] * len(missed)) * 20


def test_all_lengths_on_one_path() -> None:
    """Prefixes of 1 to 32 digits, each the beginning of the next, and numbers of every length."""
    digits = "12345678901234567890123456789012"
    deck = deck_of_prefixes([digits[:length] for length in range(1, 33)])
    deck._check()
    for length in range(1, 33):
        rating = deck.rate(digits[:length], 0, 60, True)
        assert (rating.matched_prefix, rating.version_id) == (digits[:length], length - 1)
    columns = deck.rate_columns(*columns_of([PlainCall(digits[:n]) for n in range(1, 33)]))
    assert list(columns.prefix_length) == list(range(1, 33))
