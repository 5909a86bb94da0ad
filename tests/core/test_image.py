"""Decks in files that processes map: what is written is what is opened, and nothing else is."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore import Deck, DeckBuilder
from ratingcore.deck.image import InvalidImage, open_image, write_image
from tests.core.allocations import each_allocation_fails
from tests.core.changes import in_order
from tests.core.decks import (
    PlainCall,
    PlainRate,
    calls,
    deck_of,
    expected,
    oracle_of,
    outcome,
    rate_lists,
)
from tests.examples import examples

RATES = [
    PlainRate("1", price_e8=7),
    PlainRate("44", intervals=((60, 5, 6), (120, 4, 1)), destination="é"),
    PlainRate("447", from_ns=5, to_ns=10**18),
    PlainRate("447", from_ns=2 * 10**18, blocked=True),
]


@contextmanager
def file_of(data: bytes = b"") -> Iterator[int]:
    descriptor = os.memfd_create("decks")
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)


def image_of(*decks: tuple[int, Deck]) -> bytes:
    with file_of() as descriptor:
        write_image(decks, descriptor)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def opened(data: bytes) -> list[tuple[int, Deck]]:
    with file_of(data) as descriptor:
        return open_image(descriptor, len(data))


def mapped(deck: Deck) -> Deck:
    """The same deck, in a mapping."""
    ((_, found),) = opened(image_of((1, deck)))
    found._check()
    return found


@examples(200)
@given(rate_lists, st.lists(calls, max_size=10), st.integers(1, 4))
def test_a_mapped_deck_rates_as_the_oracle_does(
    rates: list[PlainRate], some_calls: list[PlainCall], rounding: int
) -> None:
    deck = mapped(deck_of(rates, rounding))
    oracle = oracle_of(rates, rounding)
    assert list(deck) == in_order(list(enumerate(rates)))
    for call in some_calls:
        assert outcome(deck, call) == expected(oracle, call)


def test_the_rules_of_the_tenant() -> None:
    deck = deck_of(RATES, 3, ("44", "0", "00"), 6)
    found = mapped(deck)
    assert (found.revision, found.rounding, found.cost_decimals) == (1, 3, 6)
    assert (found.country_code, found.national_prefix, found.international_prefix) == (
        *("44", "0", "00"),
    )
    assert found.nbytes >= deck.nbytes


def test_ids_of_more_than_32_bits() -> None:
    builder = DeckBuilder()
    for version_id, rate in enumerate(RATES, 2**40):
        rate.put(builder, version_id)
    deck = builder.build(2**40)
    found = mapped(deck)
    assert list(found) == list(deck)
    assert found.revision == 2**40


def test_many_decks_keep_the_mapping_as_long_as_one_is_used() -> None:
    decks = [(tenant, deck_of(RATES[: tenant % 5])) for tenant in range(1, 50)]
    found = opened(image_of(*decks))
    assert [tenant for tenant, _ in found] == [tenant for tenant, _ in decks]
    for (_, deck), (_, same) in zip(decks, found, strict=True):
        same._check()
        assert list(same) == list(deck)
    last = found[-1][1]
    del found, same
    assert list(last) == list(decks[-1][1])


def test_no_decks() -> None:
    assert opened(image_of()) == []


@examples(100)
@given(rate_lists, rate_lists)
def test_the_next_deck_from_a_mapped_one(rates: list[PlainRate], more: list[PlainRate]) -> None:
    base = mapped(deck_of(rates))
    builder = DeckBuilder(base)
    for version_id, rate in list(enumerate(rates))[::2]:
        builder.remove(version_id, rate.prefix)
    kept = list(enumerate(rates))[1::2]
    taken = {(rate.prefix, rate.from_ns) for _, rate in kept}
    new = [
        (version_id, rate)
        for version_id, rate in enumerate(more, 1000)
        if (rate.prefix, rate.from_ns) not in taken
    ]
    for version_id, rate in new:
        rate.put(builder, version_id)
    deck = builder.build(2)
    deck._check()
    assert list(deck) == in_order(kept + new)
    assert list(base) == in_order(list(enumerate(rates)))
    again = mapped(deck)
    del base, builder
    assert list(again) == list(deck)


def test_every_changed_byte_is_found() -> None:
    data = image_of((1, deck_of(RATES)), (2, deck_of(RATES[:1])))
    draw = random.Random(1)
    decks = [list(deck) for _, deck in opened(data)]
    refused = 0
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << draw.randrange(8)
        try:
            found = opened(bytes(damaged))
        except InvalidImage:
            refused += 1
        else:
            # A byte between two parts.
            assert [list(deck) for _, deck in found] == decks
    assert refused > len(data) * 0.5


def test_every_cut_is_found() -> None:
    data = image_of((1, deck_of(RATES)))
    for size in range(len(data)):
        with pytest.raises(InvalidImage):
            opened(data[:size])
    with pytest.raises(InvalidImage, match="cut off"):
        opened(data + bytes(64))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"x", "has no decks"),
        (8, struct.pack("<I", 1), "another release"),
        (12, struct.pack("<I", 5), "another release"),
        (16, struct.pack("<Q", 64), "cut off"),
        (24, struct.pack("<Q", 2**40), "cut off"),
        (24, struct.pack("<Q", 2), "entries of the decks are damaged"),
        (64, struct.pack("<q", 2), "entries of the decks are damaged"),
        (200, b"\xff\xff", "the deck of tenant 1 is damaged"),
    ],
)
def test_the_reason_of_a_refusal(offset: int, value: bytes, message: str) -> None:
    data = bytearray(image_of((1, deck_of(RATES))))
    data[offset : offset + len(value)] = value
    with pytest.raises(InvalidImage, match=message):
        opened(bytes(data))


def test_a_file_that_cannot_be_written_or_mapped() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError):
            write_image([(1, deck_of(RATES))], writing)
        with pytest.raises(OSError):
            open_image(reading, 4096)
    finally:
        os.close(reading)
        os.close(writing)


def test_each_allocation_may_fail() -> None:
    deck = deck_of(RATES)
    data, failures = each_allocation_fails(lambda: image_of((1, deck)))
    assert failures == 1
    found, failures = each_allocation_fails(lambda: opened(data))
    assert list(found[0][1]) == list(deck)
    assert failures == 2
