"""Many threads read decks while others are built; a builder belongs to one thread."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import settings
from hypothesis.stateful import rule

from ratingcore import Deck, DeckBuilder, normalize_number
from tests.core.changes import Changes
from tests.core.decks import PlainCall, PlainRate, batch_outcomes, columns_of, deck_of

PREFIXES = [f"{number:04}" for number in range(0, 10_000, 3)]


def next_deck(base: Deck, price_e8: int) -> Deck:
    """Every tenth rate gets the new price; its terms follow the present ones."""
    builder = DeckBuilder(base)
    for rate in base:
        if int(rate.prefix) % 10 == 0:
            builder.remove(rate.version_id, rate.prefix)
            PlainRate(rate.prefix, price_e8, 60).put(builder, rate.version_id)
    return builder.build(base.revision + 1, cost_decimals=8)


def test_readers_see_one_deck_at_a_time() -> None:
    first = deck_of([PlainRate(prefix, 1, 60) for prefix in PREFIXES])
    current = [first]
    done = threading.Event()
    failures: list[str] = []
    batches = [0, 0]
    arguments = columns_of([PlainCall(prefix + "55555", 0, 60) for prefix in PREFIXES])

    def read(reader: int) -> None:
        while not done.is_set():
            deck = current[0]
            columns = deck.rate_columns(*arguments)
            prices = set(columns.cost_scaled)
            if prices != {1, deck.revision}:
                failures.append(f"revision {deck.revision} has prices {prices}")
            rating = deck.rate("0000", 0, 60, True)
            if (rating.cost_scaled, rating.matched_prefix) != (deck.revision, "0000"):
                failures.append(repr(rating))
            batches[reader] += 1

    readers = [threading.Thread(target=read, args=(reader,)) for reader in range(2)]
    for reader in readers:
        reader.start()
    for price_e8 in range(2, 40):
        current[0] = next_deck(current[0], price_e8)
    done.set()
    for reader in readers:
        reader.join()
    current[0]._check()
    assert failures == []
    assert min(batches) > 0
    assert first.rate("0000", 0, 60, True).cost_scaled == 1


READ_CALLS = [
    PlainCall(number, at_ns, 61)
    for number in ("0", "00", "01", "012", "0123", "10", "1131", "2", "21301", "3", "5" * 32, "x")
    for at_ns in (-1, 4, 12)
]


class ChangesWithReaders(Changes):
    """While rates change, other threads rate with the latest deck. Each batch equals the oracle's
    outcomes for the deck that it used."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: tuple[Deck, list[tuple[object, ...]]] | None = None
        self.done = threading.Event()
        self.wrong: list[object] = []
        self.readers = [threading.Thread(target=self._read) for _ in range(2)]
        for reader in self.readers:
            reader.start()

    @rule()
    def build(self) -> None:
        super().build()
        self.latest = (self.deck, self.oracle_outcomes(READ_CALLS))

    def _read(self) -> None:
        while not self.done.is_set():
            if self.latest is not None:
                deck, want = self.latest
                got = batch_outcomes(deck, READ_CALLS)
                if got != want:
                    self.wrong.append((deck.revision, got, want))

    def teardown(self) -> None:
        self.done.set()
        for reader in self.readers:
            reader.join()
        assert self.wrong == []


TestChangesWithReaders = ChangesWithReaders.TestCase
TestChangesWithReaders.settings = settings(max_examples=6, stateful_step_count=20, deadline=None)


def test_a_builder_at_work_refuses_others() -> None:
    order = [f"{number:06}" for number in range(200_000)]
    random.Random(3).shuffle(order)
    builder = DeckBuilder()
    for version_id, prefix in enumerate(order):
        builder.put(version_id, 1, prefix, "x", 1, 1)
    built: list[Deck] = []
    thread = threading.Thread(target=lambda: built.append(builder.build(1)))
    thread.start()
    refusals = 0
    while thread.is_alive():
        for attempt in (
            lambda: builder.build(2),
            lambda: PlainRate("5" * 10).put(builder, 10**6),
            lambda: builder.remove(0, order[0]),
        ):
            try:
                attempt()
            except RuntimeError as error:
                assert "another thread" in str(error)
                refusals += 1
            else:  # too early or too late
                break
    thread.join()
    assert refusals > 0
    assert len(built[0]) in (200_000, 200_001)


@pytest.mark.parametrize("turn", range(3))
def test_the_same_work_in_many_threads(turn: int) -> None:
    deck = deck_of([PlainRate(prefix, int(prefix), 60) for prefix in PREFIXES])
    results: list[list[int]] = []

    def work() -> None:
        calls = [PlainCall(prefix + "1", 0, 60) for prefix in PREFIXES]
        results.append(list(deck.rate_columns(*columns_of(calls)).cost_scaled))
        assert normalize_number(f"+{turn}") == str(turn)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[int(prefix) for prefix in PREFIXES]] * 4
