"""The cost of a look-up by the size of the deck, from a hundred prefixes to five million."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from benchmarks import tries, workload
from benchmarks.harness import Row, Spread, agreed, digest, in_turns, timed
from benchmarks.real_deck import SEED, DeckRow, real_numbers
from benchmarks.subjects.lookup import match
from benchmarks.workbench import Workbench

SIZES = (100, 1_000, 10_000, 100_000, 316_652, 1_000_000, 5_000_000)
QUICK_SIZES = (100, 10_000)
# Above this size the baseline takes minutes to build and shows nothing new.
BASELINE_PREFIXES = 1_000_000
LONGEST_PREFIX = 12


def run(bench: Workbench) -> Iterator[Row]:
    bench.series["sizes"] = curve = []
    for size in bench.size(SIZES, QUICK_SIZES):
        rows = deck_of_size(bench, size)
        prefixes = [row.prefix for row in rows]
        calls = workload.real_calls(prefixes, bench.size(500_000, 2_000), SEED + size)
        deck = workload.core_deck(rows)
        baseline = tries.dict_by_length(prefixes)
        sample = calls.numbers[:20_000]
        same = agreed(
            f"{size:,} prefixes",
            digest(match(deck, calls)[: len(sample)]),
            digest(baseline(sample)),
        )
        contestants = {
            "look-up": timed(lambda: match(deck, calls), len(calls)),  # noqa: B023 called here
            "charge": timed(lambda: calls.rated(deck), len(calls)),  # noqa: B023
        }
        taken = in_turns(contestants, bench.size(7, 2))
        look_up, charge = Spread.of(taken["look-up"]), Spread.of(taken["charge"])
        marisa = _marisa_ns(prefixes, sample) if size <= BASELINE_PREFIXES else None
        curve.append([size, look_up.median, charge.median, marisa, deck.nbytes / len(deck)])
        among = f"in {size:,} prefixes of {deck.nbytes / len(deck):.1f} bytes"
        yield Row(f"look-up {among}", "ns", look_up, digest=same)
        yield Row(f"look-up and charge {among}", "ns", charge, digest=same)


def _marisa_ns(prefixes: list[str], numbers: list[str]) -> float | None:
    try:
        find = tries.marisa_trie(prefixes)
    except tries.NotInstalled:
        return None
    ask = timed(lambda: find(numbers), len(numbers))
    return Spread.of(ask() for _ in range(3)).median


def deck_of_size(bench: Workbench, size: int) -> list[DeckRow]:
    """This number of prefixes: a part of the real deck, or all of it and longer ones."""
    rows = bench.rows
    if size <= len(rows):
        return [rows[n * len(rows) // size] for n in range(size)]
    draw = random.Random(SEED + size)
    numbers = real_numbers(bench.prefixes, SEED + size)
    more_digits = math.ceil(math.log10(size / len(rows))) + 1
    deck = {row.prefix: row for row in rows}
    while len(deck) < size:
        parent = rows[int(draw.random() * len(rows))]
        prefix = (parent.prefix + next(numbers)[-more_digits:])[:LONGEST_PREFIX]
        deck.setdefault(
            prefix,
            DeckRow(prefix, parent.destination, parent.cost_per_minute, parent.billing_increment),
        )
    return list(deck.values())
