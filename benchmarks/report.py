"""A run's results: a table for people, and a complete JSON file under benchmarks/results/."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Budget, Row, Spread

RESULTS = Path(__file__).with_name("results")


@dataclass(slots=True)
class Run:
    """The results so far, by the names of the benchmarks."""

    about: dict[str, Any]
    rows: dict[str, list[Row]] = field(default_factory=dict)
    series: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    started: str = field(default_factory=lambda: time.strftime("%Y%m%dT%H%M%S"))

    def summary(self) -> str:
        met = [row.met for rows in self.rows.values() for row in rows]
        changes = " and changes" if self.about["dirty"] else ""
        text = (
            f"{len(met)} rows in {sum(self.seconds.values()):.0f} s; {met.count(True)} budgets met,"
            f" {met.count(False)} missed; commit {self.about['commit']}{changes}, load"
            f" {self.about['load_before']} before and {self.about['load_after']} after"
        )
        return f"{text}; FAILED: {', '.join(self.failed)}" if self.failed else text


def write(run: Run) -> Path:
    """Save the run so far: called after each benchmark, so that no result is lost."""
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{'quick' if run.about['quick'] else 'full'}-{run.started}.json"
    written = asdict(run)
    written["rows"] = {name: [as_json(row) for row in rows] for name, rows in run.rows.items()}
    target.write_text(json.dumps(written, indent=1) + "\n")
    return target


def as_json(row: Row) -> dict[str, Any]:
    return asdict(row) | {"met": row.met}


def from_json(found: Mapping[str, Any]) -> Row:
    values = {name: value for name, value in found.items() if name != "met"}
    for name in ("value", "baseline", "ratio"):
        values[name] = values[name] and Spread(**values[name])
    values["budget"] = values["budget"] and Budget(**values["budget"])
    return Row(**values)


def table(rows: Sequence[Row]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for heading in ("what", "measured", "baseline", "ratio", "budget", "", "results"):
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*cells(row))
    return shown


def cells(row: Row) -> list[str]:
    if row.skipped:
        failed = row.skipped.startswith("FAILED")
        return [row.name, row.skipped if failed else f"skipped: {row.skipped}", *[""] * 5]
    baseline = f"{quantity(row.baseline, '')} {row.baseline_name}" if row.baseline else ""
    ratio = f"{quantity(row.ratio, '')} {row.ratio_of}" if row.ratio else ""
    met = {None: "", True: "met", False: "MISSED"}[row.met]
    budget = str(row.budget) if row.budget else ""
    return [row.name, quantity(row.value, row.unit), baseline, ratio, budget, met, row.digest]


def quantity(spread: Spread | None, unit: str) -> str:
    """The median, with minimum and maximum if they differ: "23.4 ns (23.1 to 25.0)"."""
    if spread is None:
        return ""
    shown = f"{figure(spread.median)} {unit}".rstrip()
    if spread.low != spread.high:
        shown += f" ({figure(spread.low)} to {figure(spread.high)})"
    return shown


def figure(value: float) -> str:
    """Three significant digits, or all before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def show(console: Console, name: str, rows: Sequence[Row]) -> None:
    console.print(f"\n[bold]{name}[/bold]")
    console.print(table(rows))
    for note in notes(rows):
        console.print(f"  {note}", style="dim")


def notes(rows: Sequence[Row]) -> list[str]:
    """Each note once, after the names of its rows, unless it is about all rows."""
    named: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            named.setdefault(row.note, []).append(row.name)
    if len(named) == 1:
        return list(named)
    return [f"{'; '.join(names)}: {note}" for note, names in named.items()]
