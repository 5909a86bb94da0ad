"""The prefixes of the phonenumbers package, against the look-ups of that package."""

from __future__ import annotations

import random

import pytest
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, format_number, parse
from phonenumbers.carrier import name_for_valid_number
from phonenumbers.carrierdata import CARRIER_DATA, CARRIER_LONGEST_PREFIX
from phonenumbers.geodata import GEOCODE_DATA, GEOCODE_LONGEST_PREFIX
from phonenumbers.prefix import _prefix_description_for_number

from ratingcore import Deck, DeckBuilder
from tests.core.decks import PlainCall, batch_outcomes, outcome

PREFIXES = sorted(set(GEOCODE_DATA) | set(CARRIER_DATA))


@pytest.fixture(scope="module")
def deck() -> Deck:
    """The version of a rate is the index of its prefix, its destination the first two digits."""
    builder = DeckBuilder()
    for place, prefix in enumerate(PREFIXES):
        builder.put(place, place, prefix, prefix[:2], 100 + int(prefix[:2]), 60)
    return builder.build(1, cost_decimals=8)


@pytest.fixture(scope="module")
def numbers() -> list[PhoneNumber]:
    """Random prefixes of the deck, with random digits up to 12; without invalid numbers."""
    random_ = random.Random(9)
    found = []
    for prefix in random_.choices(PREFIXES, k=3_000):
        rest = "".join(random_.choices("0123456789", k=12 - len(prefix)))
        try:
            found.append(parse(f"+{prefix}{rest}"))
        except NumberParseException:
            continue
    assert len(found) > 2_500
    return found


def test_it_is_the_real_deck(deck: Deck) -> None:
    assert len(deck) == len(PREFIXES) > 300_000
    assert [rate.prefix for rate in deck] == PREFIXES
    deck._check()


def test_matches_as_their_look_up(deck: Deck, numbers: list[PhoneNumber]) -> None:
    itself = {prefix: {"en": prefix} for prefix in PREFIXES}
    longest = max(GEOCODE_LONGEST_PREFIX, CARRIER_LONGEST_PREFIX)
    theirs = [_prefix_description_for_number(itself, longest, number, "en") for number in numbers]
    calls = [PlainCall(format_number(number, PhoneNumberFormat.E164)) for number in numbers]
    ours = [deck.rate(call.number, 0, 1, True).matched_prefix for call in calls]
    assert ours == theirs
    assert batch_outcomes(deck, calls) == [outcome(deck, call) for call in calls]


def test_carriers_as_their_look_up(numbers: list[PhoneNumber]) -> None:
    builder = DeckBuilder()
    for place, (prefix, names) in enumerate(CARRIER_DATA.items()):
        if "en" in names:
            builder.put(place, place, prefix, names["en"], 1, 1)
    deck = builder.build(1, cost_decimals=8)
    theirs = [name_for_valid_number(number, "en") for number in numbers]
    assert len(set(theirs)) > 100
    for number, name in zip(numbers, theirs, strict=True):
        text = format_number(number, PhoneNumberFormat.INTERNATIONAL)
        assert deck.rate(text, 0, 1, True).destination == name


def test_one_changed_rate(deck: Deck) -> None:
    place = len(PREFIXES) // 2
    builder = DeckBuilder(deck)
    builder.remove(place, PREFIXES[place])
    builder.put(10**9, place, PREFIXES[place], "changed", 7, 60)
    changed = builder.build(2, cost_decimals=8)
    changed._check()
    assert len(changed) == len(deck)
    for neighbour in range(place - 50, place + 50):
        before = deck.rate(PREFIXES[neighbour], 0, 60, True)
        after = changed.rate(PREFIXES[neighbour], 0, 60, True)
        if neighbour == place:
            assert (after.cost_scaled, after.destination, after.version_id) == (7, "changed", 10**9)
        else:
            assert (after.cost_scaled, after.version_id) == (before.cost_scaled, before.version_id)


def test_bytes_a_prefix(deck: Deck) -> None:
    """With all parts: index, ids of rates and versions, terms, destinations."""
    assert deck.nbytes <= 32 * len(deck)
