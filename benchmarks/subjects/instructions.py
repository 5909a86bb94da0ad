"""Instructions and cache lines of one look-up, one charge and one streamed call, counted by
callgrind.

The counts are exactly repeatable; times are not. Each count is the difference between a batch and
one of twice the size, so that the constant cost of a batch cancels out. Callgrind counts between
marks that the program sets. The simulated caches are as large as a core's own on the machine of the
report (48 KiB, 2 MiB); a prefetched line counts as a miss, because it comes from further away.

The limit follows from the lines: the cost to read and write the columns and to load the same number
of lines in random order, independently of each other.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import counted
from benchmarks.harness import Row, Spread, agreed, compared, digest, in_turns, over_baseline, timed
from benchmarks.machine import REPOSITORY
from benchmarks.native import LINE_BYTES, VALGRIND_HEADER, Lines, library, pass_through_ns
from benchmarks.serving import environment
from benchmarks.subjects.lookup import match
from benchmarks.workbench import TENANT_ID, Workbench
from benchmarks.workload import RealCalls, price_e8, real_calls, stream_messages, wire_calls

CACHES = ("--cache-sim=yes", "--D1=49152,12,64", "--LL=2097152,16,64")
# The counted work, and its number of calls: a streamed message has as many as most have.
WORKS = {"look-up": 100_000, "look-up and charge": 100_000, "streamed call": 10_000}
QUICK_CALLS = 2_000
# Batches, and others of twice the size.
TIMES = ("once", "twice")


def run(bench: Workbench) -> Iterator[Row]:
    if shutil.which("valgrind") is None or not VALGRIND_HEADER.exists():
        yield Row("instructions", "", skipped="valgrind is not on this machine")
        return
    counts = {work: bench.size(count, QUICK_CALLS) for work, count in WORKS.items()}
    batches = [real_calls(bench.prefixes, times * counts["look-up"]) for times in (1, 2)]
    messages = [
        _message(calls, counts["streamed call"] * (n + 1)) for n, calls in enumerate(batches)
    ]
    totals, found = _counted(bench, batches, messages)
    digits = [sum(match(bench.deck, calls)) for calls in batches for _ in range(2)]
    answers = [counted.streamed(bench.deck, message) for message in messages]
    same = agreed("under callgrind", digest(found), digest(digits + answers))
    each: dict[str, dict[str, float]] = {}
    for work, count in counts.items():
        first, second = totals[f"{work}, once"], totals[f"{work}, twice"]
        each[work] = {name: (second[name] - first[name]) / count for name in first}
        yield _row(work, each[work], same)
    yield _limit(bench, each["look-up"])


def _row(work: str, each: dict[str, float], same: str) -> Row:
    own = "message's bytes in and out" if work == "streamed call" else "calls' own columns"
    return Row(
        f"instructions of a {work}",
        "",
        Spread.of([each["Ir"]]),
        digest=same,
        note=f"{each['D1mr'] + each['D1mw']:.2f} cache lines from beyond L1 and"
        f" {each['DLmr'] + each['DLmw']:.2f} from beyond L2, those of the {own} included",
    )


def _message(calls: RealCalls, count: int) -> bytes:
    """A StreamRateCallsRequest with the first of these calls."""
    first = next(calls.parts(count))
    ids = [f"{number:016x}" for number in range(count)]
    (message,) = stream_messages(wire_calls(first, TENANT_ID, ids), count)
    return message


def _limit(bench: Workbench, look_up: dict[str, float]) -> Row:
    """The look-up beside the limit that memory sets."""
    deck, calls = bench.deck, bench.calls
    # Of the columns themselves: numbers, offsets and starts in, rows and lengths out.
    columns = (len(calls.text) / len(calls) + 8 + 8 + 4 + 1) / LINE_BYTES
    far = max(0.0, look_up["DLmr"] + look_up["DLmw"] - columns)
    near = max(0.0, look_up["D1mr"] + look_up["D1mw"] - columns - far)
    near_lines, far_lines = Lines(1 << 14), Lines(1 << 18)
    loads = bench.size(4_000_000, 100_000)

    def limit_ns() -> float:
        return (
            pass_through_ns(calls)
            + near * near_lines.independent_ns(loads)
            + far * far_lines.independent_ns(loads)
        )

    contestants = {"core": timed(lambda: match(deck, calls), len(calls)), "limit": limit_ns}
    taken = in_turns(contestants, bench.size(9, 3))
    return compared(
        "look-up, against the limit of this memory",
        "ns",
        taken["core"],
        "the limit",
        taken["limit"],
        over_baseline,
        "times the limit",
        note=f"the limit: a call's columns read and written, {near:.2f} lines loaded from 1 MiB and"
        f" {far:.2f} from 16 MiB, none waiting for another",
    )


def _counted(
    bench: Workbench, batches: Sequence[RealCalls], messages: Sequence[bytes]
) -> tuple[dict[str, dict[str, float]], list[int]]:
    """The totals of the events of each piece of work, and the digits that each has matched."""
    library()  # compiled now, and not under valgrind
    program = bench.folder / "counted.pickle"
    counted.save(
        program,
        [
            (number, number, row.prefix, row.destination, price_e8(row), row.billing_increment)
            for number, row in enumerate(bench.rows, 1)
        ],
        {
            name: (
                calls.text,
                calls.offsets,
                calls.durations,
                calls.started_at_ns,
                calls.billable,
            )
            for name, calls in zip(TIMES, batches, strict=True)
        },
        dict(zip(TIMES, messages, strict=True)),
    )
    output = bench.folder / "callgrind.out"
    command = ["valgrind", "--tool=callgrind", "--quiet", "--instr-atstart=no", *CACHES]
    command += [f"--callgrind-out-file={output}"]
    command += [sys.executable, "-m", counted.__name__, str(program)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), check=True, capture_output=True, text=True
    )
    parts = map(_part, bench.folder.glob("callgrind.out.*"))
    return dict(parts), [int(line) for line in done.stdout.split()]


def _part(path: Path) -> tuple[str, dict[str, float]]:
    """The items of a file, and the number of each event.

    The file's own summary is wrong if counting was switched on and off, so the lines are added up.
    A line is a position and the counts, without trailing zeros; a line that follows "calls="
    repeats the counts of the lines of the called function.
    """
    name, events, totals = "", [""], [0.0]
    repeats = False
    for line in path.read_text().splitlines():
        if line.startswith("desc: Trigger: Client Request: "):
            name = line.rpartition("Request: ")[2]
        elif line.startswith("events: "):
            events = line.split()[1:]
            totals = [0.0] * len(events)
        elif line[:1] in "+-*0123456789" and line and not repeats:
            for index, count in enumerate(line.split()[1:]):
                totals[index] += float(count)
        repeats = line.startswith("calls=")
    return name, dict(zip(events, totals, strict=True))
