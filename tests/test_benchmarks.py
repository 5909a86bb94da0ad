"""The demo and the benchmarks, run small: they work, and their results are those of before."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import docs, layouts, machine, report
from benchmarks.databases import KINDS
from benchmarks.harness import (
    Budget,
    Disagreement,
    Row,
    Spread,
    agreed,
    at_least,
    at_most,
    compared,
    in_turns,
    times_faster,
)
from benchmarks.real_deck import DeckRow, real_deck
from benchmarks.report import Run
from benchmarks.subjects import layout, lookup
from benchmarks.workbench import Workbench, workbench

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.timeout(180)
def test_the_demo_ends_with_its_report() -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "proto")])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo"],
        env=os.environ | {"DEMO_CALLS": "2000", "DEMO_RATES": "3000", "PYTHONPATH": paths},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "2,000 CDRs recorded, " in done.stdout
    assert "0 duplicates, 0 conflicts, 0 rejected" in done.stdout
    assert re.search(r"upload, rate and store 2,000 calls +\d+\.\d +[\d,]+ calls", done.stdout)
    assert re.search(r"The server held at most \d+ MiB of memory", done.stdout)
    days = re.findall(r"^2026-03-\d\d +([\d,]+) ", done.stdout, re.MULTILINE)
    assert 25 <= len(days) <= 29
    assert sum(int(calls.replace(",", "")) for calls in days) == 2000
    dearest = done.stdout.partition("The ten most expensive")[2].partition("What each step")[0]
    costs = [float(cost) for cost in re.findall(r"(\d+\.\d{4}) EUR", dearest)]
    assert len(costs) == 10
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] > 0


def test_the_real_deck_is_that_of_the_budgets() -> None:
    rows = real_deck()
    prefixes = {row.prefix for row in rows}
    assert len(prefixes) == len(rows)
    assert 300_000 < len(rows) < 340_000
    assert {len(prefix) for prefix in prefixes} <= set(range(3, 10))
    assert all(re.fullmatch(r"\d+\.\d{4}", row.cost_per_minute) for row in rows)
    assert next(row for row in rows if row.prefix == "4930") == DeckRow(
        "4930", "Germany, Berlin", *BERLIN
    )


BERLIN = ("0.0104", 1)


def test_the_look_up_finds_the_same_as_the_baselines() -> None:
    with workbench(quick=True) as bench:
        rows = {row.name: row for row in lookup.run(bench)}  # Disagreement if one does not
    by_length = rows["look-up, against dict by length"]
    assert by_length.digest == PREFIXES
    assert by_length.ratio is not None
    assert by_length.ratio.median > 0
    assert rows["look-up and charge, 10,000 calls a batch"].digest == CHARGES


PREFIXES = "4a570a101642"
CHARGES = "c761b7ab1e93"


@pytest.mark.timeout(180)
def test_every_layout_of_the_table_is_measured() -> None:
    with workbench(quick=True) as bench:
        measured = {row.name: row for row in layout.run(bench)}
    for kind in KINDS:
        for found in (layout.AS_IT_IS, *layouts.layouts(kind)):
            for rows in layout.FILLED_QUICK:
                for order in layout.TENANTS:
                    row = measured.pop(f"{kind}, {rows:,} rows, {order} ids: {found.name}")
                    assert (row.ratio is None) is (found is layout.AS_IT_IS)
    assert not measured


def test_contestants_alternate_and_change_their_order() -> None:
    order: list[str] = []

    def contestant(name: str) -> Callable[[], float]:
        return lambda: order.append(name) or len(order)  # type: ignore[func-returns-value]

    taken = in_turns({name: contestant(name) for name in "abc"}, 2)
    assert "".join(order) == "abccba"
    assert taken == {"a": [1, 6], "b": [2, 5], "c": [3, 4]}


def test_results_that_differ_are_refused() -> None:
    assert agreed("sums", "1", "1") == "1"
    with pytest.raises(Disagreement, match="sums"):
        agreed("sums", "1", "2")


@pytest.mark.parametrize(
    ("budget", "ratio", "met"),
    [(at_least(25), 25, True), (at_least(25), 24.9, False), (at_most(2), 2.1, False)],
)
def test_a_row_is_read_back_as_it_was_written(budget: Budget, ratio: float, met: bool) -> None:
    row = compared("a", "ns", [1.0], "b", [ratio], times_faster, "times faster", budget=budget)
    written = report.as_json(row)
    assert written["met"] is met
    assert report.from_json(json.loads(json.dumps(written))) == row
    assert report.cells(row)[5] == ("met" if met else "MISSED")


def measured(
    monkeypatch: pytest.MonkeyPatch, folder: Path, subject: Callable[[Workbench], Iterator[Row]]
) -> Run:
    """A run with one subject, "lookup"."""
    monkeypatch.setattr(command, "_subject", lambda name: SimpleNamespace(run=subject))
    run = Run(machine.describe() | {"quick": False})
    bench = Workbench(folder, quick=False)
    with (folder / "console").open("w") as console:
        command.measure("lookup", bench, run, Console(file=console))
    return run


ROW = Row("a row", "ns", Spread(2, 1, 3), budget=at_most(1), digest="0123")


def test_a_subject_that_fails_keeps_its_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(bench: Workbench) -> Iterator[Row]:
        yield ROW
        raise Disagreement("the sums differ\nin many ways")

    run = measured(monkeypatch, tmp_path, failing)
    assert run.rows["lookup"][0] == ROW
    failure = report.cells(run.rows["lookup"][1])
    assert failure[:2] == ["lookup", "FAILED: Disagreement: the sums differ"]
    assert run.failed == ["lookup"]
    assert "the sums differ" in (tmp_path / "console").read_text()


def test_a_subject_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hanging(bench: Workbench) -> Iterator[Row]:
        yield ROW
        time.sleep(60)

    monkeypatch.setattr(command, "LONGEST_SECONDS", 0.2)
    started = time.monotonic()
    run = measured(monkeypatch, tmp_path, hanging)
    assert time.monotonic() - started < 30
    assert run.rows["lookup"][0] == ROW
    assert "TimeoutError" in run.rows["lookup"][1].skipped


def test_the_page_shows_misses_and_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{docs.BEGIN}\nold\n{docs.END}\nafter\n")
    monkeypatch.setattr(docs, "PAGE", page)
    monkeypatch.setattr(docs, "KEPT", tmp_path / "results.json")
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    run = Run(machine.describe() | {"quick": False, "load_before": 1.6}, started="1")
    run.rows["lookup"] = [ROW]
    report.write(run)
    run.started, run.failed, run.rows["lookup"] = "2", ["lookup"], []  # a later one that failed
    report.write(run)
    docs.write()
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("| a row | 2.00 ns (1.00 to 3.00) |  |  | ≤ 1 | MISSED | 0123 |") == 2
    assert "The machine was not quiet (load average 1.6 before the run" in text
    assert run.about["commit"] in text
    for path in (tmp_path / "results").iterdir():  # the page keeps what it has
        path.unlink()
    docs.write()
    assert page.read_text() == text


def test_a_quiet_machine_is_not_mentioned() -> None:
    assert machine.busy({"load_before": 1.5}) == ""
