"""``python -m benchmarks [NAME...]``: measure, show, and keep as JSON.

Without names, everything. ``--quick`` takes a hundredth of everything: it shows that the
measurements work and that all results agree, and nothing about time. ``--write-docs`` measures
nothing: it writes docs/performance.md anew from the last full results of each benchmark.

The exit code is 1 where results disagree or a benchmark fails, and has nothing to do with budgets.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from dataclasses import replace
from types import ModuleType
from typing import Any

import click
from rich.console import Console

from benchmarks import docs, machine, report
from benchmarks.harness import Row
from benchmarks.workbench import workbench

# In the order of the report.
SUBJECTS = (
    "lookup",
    "memory",
    "sizes",
    "instructions",
    "stream",
    "unary",
    "contention",
    "imports",
    "change",
    "uploads",
    "start",
)

TABLE_WIDTH = 170


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(SUBJECTS))
@click.option("--quick", is_flag=True, help="Seconds instead of minutes; results only.")
@click.option("--write-docs", is_flag=True, help="Write docs/performance.md from the results.")
def main(names: tuple[str, ...], quick: bool, write_docs: bool) -> None:
    if write_docs:
        try:
            docs.write()
        except docs.NoResults as error:
            raise click.ClickException(str(error)) from None
        return
    # So that a run that is ended takes its servers and databases with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, TABLE_WIDTH)
    about: dict[str, Any] = machine.describe() | {"quick": quick}
    rows: dict[str, list[Row]] = {}
    failed = []
    with workbench(quick=quick) as bench:
        for name in names or SUBJECTS:
            started = time.perf_counter()
            rows[name] = []
            try:
                for row in _subject(name).run(bench):
                    rows[name].append(replace(row, budget=None) if quick else row)
            except Exception:
                console.print_exception()
                failed.append(name)
            report.show(console, f"{name}, {time.perf_counter() - started:.0f} s", rows[name])
        about["load_after"] = round(os.getloadavg()[0], 2)
        target = report.write(
            {name: found for name, found in rows.items() if name not in failed},
            bench.series,
            about,
        )
    every = [row for found in rows.values() for row in found]
    console.print(
        f"\n{len(every)} rows; {sum(row.met is True for row in every)} budgets met,"
        f" {sum(row.met is False for row in every)} missed; commit {about['commit']}"
        f"{' and changes' if about['dirty'] else ''}, load {about['load_before']} before and"
        f" {about['load_after']} after; written to {os.path.relpath(target)}"
    )
    if failed:
        console.print(f"failed: {', '.join(failed)}")
        sys.exit(1)


def _subject(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.subjects.{name}")


if __name__ == "__main__":
    main()
