"""A run's results: a table for people, and a JSON file under benchmarks/results/ with all of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Budget, Row, Spread

RESULTS = Path(__file__).with_name("results")


def write(
    rows: Mapping[str, Sequence[Row]], series: Mapping[str, Any], about: Mapping[str, Any]
) -> Path:
    """``rows`` and ``series`` by the name of their benchmark."""
    RESULTS.mkdir(exist_ok=True)
    kind = "quick" if about["quick"] else "full"
    target = RESULTS / f"{kind}-{time.strftime('%Y%m%dT%H%M%S')}.json"
    report = {
        "about": about,
        "rows": {name: [as_json(row) for row in found] for name, found in rows.items()},
        "series": series,
    }
    target.write_text(json.dumps(report, indent=1) + "\n")
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
        return [row.name, f"skipped: {row.skipped}", "", "", "", "", ""]
    baseline = f"{quantity(row.baseline, '')} {row.baseline_name}" if row.baseline else ""
    ratio = f"{quantity(row.ratio, '')} {row.ratio_of}" if row.ratio else ""
    met = {None: "", True: "met", False: "MISSED"}[row.met]
    budget = str(row.budget) if row.budget else ""
    return [row.name, quantity(row.value, row.unit), baseline, ratio, budget, met, row.digest]


def quantity(spread: Spread | None, unit: str) -> str:
    """The median, with the least and the most where they differ: "23.4 ns (23.1 to 25.0)"."""
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
    """Each note once, after the names of the rows that it is about, unless that is all of them."""
    named: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            named.setdefault(row.note, []).append(row.name)
    if len(named) == 1:
        return list(named)
    return [f"{'; '.join(names)}: {note}" for note, names in named.items()]
