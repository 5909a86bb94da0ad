"""The longest prefix alone, and with the charge: columns to columns, one thread, the real deck."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks import native, tries, workload
from benchmarks.harness import (
    Budget,
    Row,
    Spread,
    agreed,
    at_least,
    at_most,
    compared,
    digest,
    in_turns,
    over_baseline,
    timed,
    times_faster,
)
from benchmarks.real_deck import DeckRow
from benchmarks.tries import LongestPrefixes
from benchmarks.workbench import Workbench
from benchmarks.workload import RealCalls
from ratingcore import Columns, Deck

# A slow baseline looks up only some of the calls; its figure is for each of those.
BASELINE_CALLS = {"marisa-trie": 1_000_000, "datrie": 400_000}
OTHER_BASELINE_CALLS = 200_000
MESSAGE_CALLS = 10_000


def run(bench: Workbench) -> Iterator[Row]:
    yield from _against_tries(bench)
    yield from _limit(bench)
    yield from _with_charge(bench)


def match(deck: Deck, calls: RealCalls) -> bytes:
    found = deck.match_columns(calls.text, calls.offsets, calls.started_at_ns)
    return bytes(found.prefix_length)


def _against_tries(bench: Workbench) -> Iterator[Row]:
    deck, calls = bench.deck, bench.calls
    expected = match(deck, calls)
    for name, build in tries.BASELINES.items():
        title = f"look-up, against {name}"
        try:
            baseline = build(bench.prefixes)
        except tries.NotInstalled as missing:
            yield Row(title, "ns", skipped=str(missing))
            continue
        numbers = calls.numbers[: BASELINE_CALLS.get(name, OTHER_BASELINE_CALLS)]
        same = agreed(title, digest(expected[: len(numbers)]), digest(baseline(numbers)))
        taken = in_turns(
            {
                "core": timed(lambda: match(deck, calls), len(calls)),
                name: timed(_asking(baseline, numbers), len(numbers)),
            },
            bench.size(9, 3),
        )
        yield compared(
            title,
            "ns",
            taken["core"],
            name,
            taken[name],
            times_faster,
            "times faster",
            budget=at_least(25) if name == "marisa-trie" else None,
            digest=same,
            note=f"{len(calls):,} distinct calls, {len(deck):,} prefixes; the baseline looked up"
            f" {len(numbers):,}",
        )


def _asking(baseline: LongestPrefixes, numbers: Sequence[str]) -> Callable[[], object]:
    return lambda: baseline(numbers)


def _limit(bench: Workbench) -> Iterator[Row]:
    """The time of memory for lines in random order, at sizes like the index's."""
    loads = bench.size(4_000_000, 100_000)
    bench.series["memory"] = curve = []
    for kib in (256, 1024, 2048, 4096, 8192, 16384):
        lines = native.Lines(kib * 1024 // native.LINE_BYTES)
        dependent = Spread.of(lines.dependent_ns(loads) for _ in range(3))
        independent = Spread.of(lines.independent_ns(loads) for _ in range(3))
        curve.append([kib, dependent.median, independent.median])
        if kib == 4096:
            size = "in 4 MiB"
            yield Row(f"memory: a load {size} that waits for the one before", "ns", dependent)
            yield Row(f"memory: a load {size} that waits for nothing", "ns", independent)


def _with_charge(bench: Workbench) -> Iterator[Row]:
    """All calls at once, and in batches of the size of a message: then the columns of the results
    stay in the caches, while those of a million calls go to memory."""
    deck, calls = bench.deck, bench.calls
    columns = calls.rated(deck)
    check_charges(bench.rows, match(deck, calls), calls, columns)
    same = digest(columns.status, columns.bill_seconds, columns.cost_scaled)
    for size, budget in ((len(calls), at_most(2)), (MESSAGE_CALLS, None)):
        yield _charged(deck, list(calls.parts(size)), bench.size(15, 3), budget, same)


def _charged(
    deck: Deck, parts: list[RealCalls], repetitions: int, budget: Budget | None, same: str
) -> Row:
    count = sum(map(len, parts))
    taken = in_turns(
        {
            "charge": timed(lambda: [part.rated(deck) for part in parts], count),
            "look-up": timed(lambda: [match(deck, part) for part in parts], count),
        },
        repetitions,
    )
    return compared(
        f"look-up and charge, {len(parts[0]):,} calls a batch",
        "ns",
        taken["charge"],
        "look-up alone",
        taken["look-up"],
        over_baseline,
        "times the look-up",
        budget=budget,
        digest=same,
        note="every charge compared with whole-number arithmetic in Python",
    )


def check_charges(
    rows: Sequence[DeckRow], lengths: bytes, calls: RealCalls, columns: Columns
) -> None:
    """The charges again, from the rules: rates without fee, minimum and intervals, HALF_UP."""
    terms = {row.prefix: (workload.price_e8(row), row.billing_increment) for row in rows}
    costs, bills = [], []
    for number, length, duration in zip(calls.numbers, lengths, calls.durations, strict=True):
        price_e8, increment = terms[number[:length]]
        billed = -(-duration // increment) * increment
        bills.append(billed)
        costs.append((2 * billed * price_e8 + 600_000) // 1_200_000)
    agreed(
        "charges",
        digest(columns.bill_seconds.tolist(), columns.cost_scaled.tolist()),
        digest(bills, costs),
    )
