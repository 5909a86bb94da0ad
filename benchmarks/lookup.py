"""``make bench``: the longest prefix in the real deck, by the core and by a dict for each length.

Both find the same numbers' prefixes in one process, in turns; they must agree on every one.
BENCH_CALLS says how many numbers, BENCH_RUNS how often. Prints the median and the spread of each,
and how many times faster the core is; the same goes into a JSON file under benchmarks/results/.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import time
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from benchmarks.real_deck import SEED, DeckRow, real_deck, real_numbers
from ratingcore import Deck, DeckBuilder

DEFAULT_CALLS = 200_000
DEFAULT_RUNS = 7
RESULTS = Path(__file__).with_name("results")


def build(rows: Sequence[DeckRow]) -> Deck:
    builder = DeckBuilder()
    for number, row in enumerate(rows, 1):
        cost_e4 = int(row.cost_per_minute.replace(".", ""))
        builder.put(number, number, row.prefix, row.destination, cost_e4, row.billing_increment)
    return builder.build(1)


def by_length(prefixes: Sequence[str]) -> Callable[[Sequence[str]], list[int]]:
    """The baseline: a dict for each length of prefix, tried from the longest. Finds lengths."""
    lengths: dict[int, dict[str, int]] = {}
    for prefix in prefixes:
        lengths.setdefault(len(prefix), {})[prefix] = len(prefix)
    longest_first = sorted(lengths.items(), reverse=True)

    def match(numbers: Sequence[str]) -> list[int]:
        found = []
        for number in numbers:
            for length, known in longest_first:
                if number[:length] in known:
                    found.append(length)
                    break
            else:
                found.append(0)
        return found

    return match


def measure(
    contestants: dict[str, Callable[[], bytes]], runs: int, calls: int
) -> dict[str, list[float]]:
    """Nanoseconds a call of each run. The contestants take turns, so that a slower moment of the
    machine meets all of them."""
    took: dict[str, list[float]] = {name: [] for name in contestants}
    answers: set[bytes] = set()
    for _ in range(runs):
        for name, contestant in contestants.items():
            started = time.perf_counter_ns()
            answer = contestant()
            took[name].append((time.perf_counter_ns() - started) / calls)
            answers.add(answer)
    if len(answers) != 1:
        raise SystemExit("the contestants disagree")
    return took


def summary(took: list[float]) -> dict[str, float]:
    return {
        "median_ns": round(statistics.median(took), 1),
        "least_ns": round(min(took), 1),
        "most_ns": round(max(took), 1),
    }


def run(calls: int, runs: int) -> dict[str, Any]:
    rows = real_deck()
    prefixes = [row.prefix for row in rows]
    deck = build(rows)
    numbers = list(islice(real_numbers(prefixes, SEED), calls))
    text = "".join(numbers).encode()
    offsets = array("q", accumulate(map(len, numbers), initial=0))
    starts = array("q", [1_772_445_600 * 10**9]) * calls
    baseline = by_length(prefixes)
    took = measure(
        {
            "core": lambda: bytes(deck.match_columns(text, offsets, starts).prefix_length),
            "dict by length": lambda: bytes(baseline(numbers)),
        },
        runs,
        calls,
    )
    found = bytes(deck.match_columns(text, offsets, starts).prefix_length)
    results = {name: summary(times) for name, times in took.items()}
    return {
        "benchmark": "longest prefix in the real deck",
        "prefixes": len(deck),
        "bytes_a_prefix": round(deck.nbytes / len(deck), 1),
        "calls": calls,
        "runs": runs,
        "results": results,
        "times_faster": round(
            results["dict by length"]["median_ns"] / results["core"]["median_ns"], 1
        ),
        "answer_sha256": hashlib.sha256(found).hexdigest(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main() -> None:
    calls = int(os.environ.get("BENCH_CALLS", DEFAULT_CALLS))
    report = run(calls, int(os.environ.get("BENCH_RUNS", DEFAULT_RUNS)))
    for name, result in report["results"].items():
        print(
            f"{name:15} {result['median_ns']:8.1f} ns a call"
            f"   (least {result['least_ns']:.1f}, most {result['most_ns']:.1f})"
        )
    print(
        f"the core is {report['times_faster']} times faster over {report['prefixes']:,} prefixes,"
        f" in {report['bytes_a_prefix']} bytes a prefix;"
        f" answers {report['answer_sha256'][:12]}"
    )
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"lookup-{time.strftime('%Y%m%dT%H%M%S')}.json"
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {os.path.relpath(target)}")


if __name__ == "__main__":
    main()
