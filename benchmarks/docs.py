"""Writes the measured part of docs/performance.md, and its pictures, from the results.

No figure is typed by hand: the text between the two marks comes from the newest full results of
each benchmark. They are kept beside the pictures: a benchmark without new results keeps its old
ones, with their date. The text outside the marks is not changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import machine, report
from benchmarks.harness import Row
from benchmarks.machine import REPOSITORY

PAGE = REPOSITORY / "docs" / "performance.md"
PICTURES = REPOSITORY / "docs" / "performance"
KEPT = PICTURES / "results.json"
BEGIN = "<!-- measured: begin (python -m benchmarks --write-docs) -->"
END = "<!-- measured: end -->"

TITLES = {
    "lookup": "The longest prefix, and the charge",
    "memory": "Memory",
    "sizes": "The size of the deck",
    "instructions": "Instructions",
    "stream": "StreamRateCalls",
    "unary": "RateCall",
    "single_calls": "CreateCdr",
    "transports": "The native transport",
    "coalescing": "Calls that share RPCs",
    "access": "Knowing the caller",
    "contention": "RateCall under uploads",
    "imports": "ImportRates",
    "change": "One rate changed",
    "uploads": "UploadCdrs",
    "filled": "UploadCdrs at 20 million rows",
    "verify": "VerifyCdrs",
    "start": "Starting",
}
# The benchmark and the title of each picture, by the name of its series, which is also that of the
# file.
_PICTURES = {
    "sizes": ("sizes", "What a look-up costs against the size of the deck"),
    "memory": ("lookup", "What this machine's memory takes for a cache line in random order"),
    "stream": ("stream", "Throughput of one stream against calls a message"),
    "contention": ("contention", "RateCall alone, and while four uploads run flat out"),
}


class NoResults(Exception):
    """There are no results to write."""


def write() -> None:
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    runs = kept | _newest(set(TITLES))
    if not runs:
        raise NoResults("no full run yet: make bench")
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoResults(f"{PAGE.name} lacks the marks around its measured part")
    runs = {name: runs[name] for name in TITLES if name in runs}
    parts = [before, BEGIN, "\n\n", *_measured(runs), END, after]
    PAGE.write_text("".join(parts))
    KEPT.write_text(json.dumps(runs, indent=1) + "\n")


def _newest(names: set[str]) -> dict[str, dict[str, Any]]:
    """Of the newest full run in which each benchmark was completed: what it ran on, the rows of the
    benchmark, and the series of its pictures."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(report.RESULTS.glob("full-*.json"), reverse=True):
        run = json.loads(path.read_text())
        for name in names & set(run["rows"]) - set(run.get("failed", ())) - set(found):
            series = {
                picture: run["series"][picture]
                for picture, (benchmark, _) in _PICTURES.items()
                if benchmark == name and picture in run["series"]
            }
            found[name] = {"about": run["about"], "rows": run["rows"][name], "series": series}
    return found


def _measured(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield from _machines(runs)
    rows = {name: [report.from_json(row) for row in run["rows"]] for name, run in runs.items()}
    yield "## The budgets\n\n"
    yield from _table([row for found in rows.values() for row in found if row.budget])
    yield "## Everything measured\n\n"
    for name, found in rows.items():
        yield f"### {TITLES[name]}\n\n"
        yield from _table(found)
        for note in report.notes(found):
            yield f"- {note}\n"
        yield "\n" if any(row.note for row in found) else ""
        yield from _pictures(name, runs[name]["series"])


def _machines(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The run that each figure is from; usually one for all."""
    by_date: dict[str, list[str]] = {}
    for name, run in runs.items():
        by_date.setdefault(run["about"]["date"], []).append(name)
    for names in by_date.values():
        about = runs[names[0]]["about"]
        which = "" if len(by_date) == 1 else f" ({', '.join(names)})"
        changes = " with uncommitted changes" if about["dirty"] else ""
        packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
        yield (
            f"Measured {about['date']}{which} at commit {about['commit']}{changes}: {about['cpu']},"
            f" {about['cores']} cores, caches {about['caches']}, {about['memory_gib']} GiB,"
            f" {about['kernel']}, Python {about['python']}, {packages}. Load average"
            f" {about['load_before']} before the run.\n\n"
        )
        if busy := machine.busy(about):
            yield f"**{busy}**\n\n"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| what | measured | baseline | ratio | budget | | results |\n"
    yield "|---|---|---|---|---|---|---|\n"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in report.cells(row)) + " |\n"
    yield "\n"


def _pictures(name: str, series: dict[str, Any]) -> Iterator[str]:
    """The pictures of a benchmark: new ones from their series, else those that exist."""
    for picture, (benchmark, title) in _PICTURES.items():
        if benchmark != name:
            continue
        target = PICTURES / f"{picture}.svg"
        if picture in series:
            # Imported here, so that only drawing needs matplotlib.
            from benchmarks import pictures

            pictures.draw(target, title, series[picture])
        if target.exists():
            yield f"![{title}]({target.relative_to(PICTURES.parent)})\n\n"
