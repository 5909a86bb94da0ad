"""The memory of decks: as the core counts it, and as the process grows."""

from __future__ import annotations

import ctypes
import gc
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil

from benchmarks.harness import Row, Spread, agreed, at_most, digest
from benchmarks.machine import REPOSITORY
from benchmarks.real_deck import SEED, DeckRow, real_deck
from benchmarks.serving import environment
from benchmarks.workbench import Workbench
from benchmarks.workload import core_deck
from ratingcore import Deck

TENANTS = 10_000
RATES_A_TENANT = 100


def run(bench: Workbench) -> Iterator[Row]:
    tenants = bench.size(TENANTS, 50)
    cases = {
        "the real deck": (["one", bench.every], at_most(32)),
        f"{tenants:,} tenants with {RATES_A_TENANT} rates": (["many", bench.every, tenants], None),
    }
    for name, (arguments, budget) in cases.items():
        measured = _in_a_process(*arguments)
        prefixes = measured["prefixes"]
        yield Row(
            f"memory of {name}",
            "bytes a prefix",
            Spread.of([measured["nbytes"] / prefixes]),
            budget=budget,
            digest=agreed(name, measured["digest"], measured["expected"]),
            note=f"{prefixes:,} prefixes; the process grew by"
            f" {measured['growth'] / prefixes:.1f} bytes a prefix, its Python objects included",
        )


def small_deck(rows: list[DeckRow], tenant: int) -> list[DeckRow]:
    """A hundred rates of the real deck: the deck of a small customer."""
    draw = random.Random(f"{SEED}-{tenant}")
    return draw.sample(rows, min(RATES_A_TENANT, len(rows)))


def _in_a_process(*arguments: object) -> dict[str, Any]:
    """In a new process, whose memory has not grown for other work."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, *map(str, arguments)],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env=environment(),
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL("").malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def main(case: str, every: int, tenants: int = 1) -> None:
    rows = real_deck(every)
    wanted = [rows if case == "one" else small_deck(rows, tenant) for tenant in range(tenants)]
    # Once before, so that the memory that Python itself needs is allocated already.
    core_deck(wanted[0][:100])
    before = _resident_bytes()
    decks: list[Deck] = [core_deck(deck) for deck in wanted]
    growth = _resident_bytes() - before
    expected = digest(sorted(row.prefix for deck in wanted for row in deck))
    print(
        json.dumps(
            {
                "prefixes": sum(map(len, decks)),
                "nbytes": sum(deck.nbytes for deck in decks),
                "growth": growth,
                "digest": digest(sorted(rate.prefix for deck in decks for rate in deck)),
                "expected": expected,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
