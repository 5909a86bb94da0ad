"""Imports: which rates are kept, in which order, and what they change in a deck."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

import pytest

from ratingcore import Deck, DeckBuilder, IncomingDeck
from tests.core.allocations import each_allocation_fails
from tollwire.v1.rating_service_pb2 import ImportRatesRequest
from tollwire.v1.types_pb2 import Rate

Key = tuple[str, int | None]
Terms = tuple[Any, ...]
_NS = 10**9


def terms_of(pick: random.Random, start_s: int | None) -> Terms:
    """The arguments of DeckBuilder.put after the prefix."""
    intervals = pick.choice(((), (), ((60, 5, 1), (120, 7, 60))))
    end_ns = pick.choice((None, ((start_s or 0) + 10) * _NS + 3))
    return (
        pick.choice(("", "UK", "Öster☎", "x" * 200)),
        pick.choice((0, 5, 10**12 - 1)),
        pick.choice((1, 60, 86_400)),
        pick.choice((0, 7)),
        pick.choice((0, 30, 2**31 - 1)),
        intervals,
        None if start_s is None else start_s * _NS,
        end_ns,
        pick.random() < 0.3,
    )


def some_deck(pick: random.Random, count: int) -> dict[Key, Terms]:
    """Few prefixes, so that decks have some in common, with several windows each."""
    found = {}
    for _ in range(count):
        prefix = str(pick.randint(0, 99) * pick.choice((1, 1, 10**12)))
        prefix = pick.choice((prefix, prefix, "", "9" * 32))
        start_s = pick.choice((None, None, -(10**10), 5))
        found[prefix, start_s] = terms_of(pick, start_s)
    return found


def put_all(incoming: IncomingDeck, deck: dict[Key, Terms]) -> None:
    for index, ((prefix, _), (*terms, from_ns, to_ns, blocked)) in enumerate(deck.items()):
        start = None if from_ns is None else divmod(from_ns, _NS)
        end = None if to_ns is None else divmod(to_ns, _NS)
        incoming.put(index, prefix, *terms, start, end, blocked)


@pytest.mark.parametrize("replace", [False, True])
def test_a_deck_against_another(replace: bool) -> None:
    """The changes that the comparison of two decks finds turn the first into the second."""
    pick = random.Random(7)
    for _ in range(60):
        present = some_deck(pick, pick.choice((0, 1, 30)))
        same = {key: terms for key, terms in present.items() if pick.random() < 0.5}
        deck = some_deck(pick, pick.choice((0, 1, 30))) | same
        builder = DeckBuilder()
        ids = {}
        for number, ((prefix, start), terms) in enumerate(present.items(), 1):
            builder.put(number, 1000 + number, prefix, *terms)
            ids[prefix, start] = number
        base = builder.build(1)

        incoming = IncomingDeck(1)
        put_all(incoming, deck)
        incoming.sort()
        assert list(incoming.repeated()) == []
        updated, gone = incoming.compare(base, replace=replace)

        changed = {key for key in deck if key in present and present[key] != deck[key]}
        new = {key for key in deck if key not in present}
        absent = {key for key in present if key not in deck} if replace else set()
        assert updated == len(changed)
        assert len(incoming) == len(changed) + len(new)
        assert sorted(gone) == sorted((ids[key], key[0]) for key in changed | absent)

        incoming.number(500)
        rows = incoming.rows(0, len(incoming))
        assert [row[0] for row in rows] == list(range(500, 500 + len(rows)))
        assert rows == incoming.rows(0, 1) + incoming.rows(1, 10**6)
        kept = {(row[2], None if row[9] is None else row[9] // _NS): row for row in rows}
        assert {key: row[3:] for key, row in kept.items()} == {
            key: deck[key] for key in changed | new
        }
        assert {key: row[1] for key, row in kept.items() if key in changed} == {
            key: 1000 + ids[key] for key in changed
        }
        assert all(row[1] == row[0] for key, row in kept.items() if key in new)

        next_builder = DeckBuilder(base)
        for version_id, prefix in gone:
            next_builder.remove(version_id, prefix)
        next_builder.put_many(rows)
        expected = {key: terms for key, terms in present.items() if key not in absent} | deck
        assert {
            (rate.prefix, None if rate.effective_from_ns is None else rate.effective_from_ns // _NS)
            for rate in next_builder.build(2)
        } == expected.keys()


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("closing", [None, (7, 0)])
def test_what_a_deck_needs_is_known_before_it_is_built(
    replace: bool, closing: tuple[int, int] | None
) -> None:
    pick = random.Random(8)
    for round_ in range(30):
        present, deck = (
            some_deck(pick, pick.choice((0, 5, 400))),
            some_deck(pick, pick.choice((1, 400))),
        )
        builder = DeckBuilder()
        # Ids above 32 bits take more memory in every slot of the deck.
        first_id = 2**32 if round_ % 2 else 1000
        for version_id, ((prefix, _), terms) in enumerate(present.items(), 1):
            builder.put(version_id, version_id, prefix, *terms)
        base = builder.build(1)
        incoming = IncomingDeck(1)
        put_all(incoming, deck)
        incoming.sort()
        _, gone = incoming.compare(base, replace=replace, closing=closing)
        incoming.number(first_id)
        builder = DeckBuilder(base)
        for version_id, prefix in gone:
            builder.remove(version_id, prefix)
        closed = list(incoming.closed)
        for rate in closed:
            builder.remove(rate.version_id, rate.prefix)
        incoming.put_into(builder)
        for version_id, rate in enumerate(closed, first_id + 10_000):
            builder.put_many([rate._replace(version_id=version_id, effective_to_ns=7 * _NS)])
        made = builder.build(2)
        counts = Counter(rate.prefix for rate in made)
        assert incoming.most_rates_of_prefix == max(counts[prefix] for prefix, _ in deck)
        assert made.nbytes - base.nbytes <= incoming.most_growth_bytes
        assert incoming.most_growth_bytes < 20 * len(base) + 600 * len(deck) + 10_000


def test_the_growth_by_long_prefixes_is_not_exaggerated() -> None:
    """Random ones of 32 digits take the most memory: a node for nearly each digit."""
    pick = random.Random(9)
    incoming = IncomingDeck(1)
    for index in range(5_000):
        prefix = "".join(pick.choices("0123456789", k=32))
        incoming.put(index, prefix, "", 1, 1, 0, 0, ())
    incoming.sort()
    incoming.compare(Deck(), replace=True)
    builder = DeckBuilder()
    incoming.number(1)
    incoming.put_into(builder)
    made = builder.build(1).nbytes
    assert 330 < made / 5_000 < 400
    assert made <= incoming.most_growth_bytes < 1.1 * made + 50_000


def test_rates_are_in_the_order_of_a_deck() -> None:
    pick = random.Random(3)
    deck = some_deck(pick, 300)
    incoming = IncomingDeck(1)
    put_all(incoming, deck)
    incoming.sort()
    builder = DeckBuilder()
    builder.put_many(
        (number, number, prefix, *terms) for number, ((prefix, _), terms) in enumerate(deck.items())
    )
    assert [(row[2], row[9]) for row in incoming.rows(0, 300)] == [
        (rate.prefix, rate.effective_from_ns) for rate in builder.build(1)
    ]


def test_rates_that_occur_twice() -> None:
    incoming = IncomingDeck(1)
    keys = [("1", None), ("2", None), ("1", 5), ("1", None), ("2", None), ("1", None)]
    for index, (prefix, start) in enumerate(keys):
        incoming.put(index, prefix, "", 1, 1, 0, 0, (), None if start is None else (start, 0))
    incoming.sort()
    assert sorted(incoming.repeated()) == [(3, 0), (4, 1), (5, 0)]


def request(count: int, **fields: Any) -> bytes:
    values = {"cost_per_minute": "0.5", "billing_increment": 60} | fields
    rates = [Rate(prefix=str(number), **values) for number in range(count)]
    return ImportRatesRequest(rates=rates).SerializeToString()


def test_reading_continues_after_the_last_rate() -> None:
    incoming = IncomingDeck(1)
    data = request(10_000, billing_increment=0)
    left, at = incoming.read(data)
    assert 0 < len(left) < 10_000
    while at < len(data):
        more, at = incoming.read(data, at)
        left += more
    assert [index for index, _ in left] == list(range(10_000))
    assert Rate.FromString(left[-1][1]).prefix == "9999"
    assert (incoming.seen, len(incoming)) == (10_000, 0)


@pytest.mark.parametrize("start", [-1, 10**6, 2**70])
def test_reading_from_a_wrong_position(start: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        IncomingDeck(1).read(request(1), start)


def test_malformed_bytes_are_refused_here_too() -> None:
    data = request(3)
    for size in range(1, len(data)):
        incoming = IncomingDeck(1)
        try:
            incoming.read(data[:size])
        except ValueError:
            continue
        assert incoming.seen in (1, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefix": "+44"},
        {"prefix": "4" * 33},
        {"cost_per_minute_e8": -1},
        {"cost_per_minute_e8": 10**16},
        {"billing_increment": 0},
        {"connect_fee_e8": 10**16},
        {"minimum_seconds": -1},
        {"intervals": [(0, 1, 1)]},
    ],
)
def test_rates_that_are_refused(wrong: dict[str, Any]) -> None:
    incoming = IncomingDeck(1)
    good: dict[str, Any] = {
        "prefix": "44",
        "destination": "",
        "cost_per_minute_e8": 1,
        "billing_increment": 1,
    }
    with pytest.raises(ValueError):
        incoming.put(0, **(good | wrong))
    incoming.put(0, **good)
    assert len(incoming) == 1


def test_memory_may_be_short_at_every_point() -> None:
    data = request(50, destination="UK")
    base = DeckBuilder()
    base.put(1, 1, "3", "", 1, 1)
    present = base.build(1)

    def attempt() -> int:
        incoming = IncomingDeck(1)
        for work in (
            lambda: incoming.read(data),
            lambda: incoming.put(50, "77", "DE", 1, 1, 0, 0, [(1, 1, 1)]),
            lambda: incoming.compare(present, replace=True),
        ):
            try:
                work()
            except MemoryError:
                incoming.sort()  # it is no longer locked
                raise
        return len(incoming)

    kept, count = each_allocation_fails(attempt)
    assert count > 5
    assert kept == 51


def test_two_threads_cannot_use_one() -> None:
    incoming = IncomingDeck(1)
    data = request(5_000)
    taken: list[bool] = []
    barrier = threading.Barrier(4)

    def use() -> None:
        barrier.wait(20)
        for _ in range(50):
            try:
                incoming.read(data)
                taken.append(True)
            except RuntimeError:
                taken.append(False)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(taken) == 200
    assert incoming.seen == len(incoming) == 5_000 * sum(taken)


def test_the_empty_deck() -> None:
    incoming = IncomingDeck(1)
    assert incoming.read(b"") == ([], 0)
    incoming.sort()
    assert incoming.compare(Deck(), replace=True) == (0, [])
    assert incoming.rows(0, 10) == []
    assert incoming.nbytes > 0
