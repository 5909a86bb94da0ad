"""``python -m benchmarks [NAME...]``: measure, print, and write the results as JSON.

Without names, it runs all but "layout", which takes an hour. ``--quick`` runs a hundredth of
everything: it shows that the measurements work and that all results agree, and nothing about time.
``--write-docs`` measures nothing: it writes docs/performance.md from the last full results of each
benchmark.

The results of a benchmark are kept if it fails later, or if another one fails. The exit code is 1
if results disagree or a benchmark fails; budgets do not affect it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType

import click
from rich.console import Console

from benchmarks import docs, machine, report
from benchmarks.harness import Row
from benchmarks.report import Run
from benchmarks.workbench import Workbench, workbench

# In the order of the report.
SUBJECTS = (
    "lookup",
    "memory",
    "sizes",
    "instructions",
    "stream",
    "unary",
    "single_calls",
    "transports",
    "coalescing",
    "access",
    "contention",
    "imports",
    "change",
    "uploads",
    "filled",
    "verify",
    "start",
)
# Run only if they are named; docs/architecture/README.md has their results.
ON_DEMAND = ("layout",)

TABLE_WIDTH = 170
# The limit of one subject, unless it states another: a subject that hangs must not lose the results
# of the others.
LONGEST_SECONDS = 420


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice((*SUBJECTS, *ON_DEMAND)))
@click.option("--quick", is_flag=True, help="Seconds instead of minutes; results only.")
@click.option("--write-docs", is_flag=True, help="Write docs/performance.md from the results.")
def main(names: tuple[str, ...], quick: bool, write_docs: bool) -> None:
    if write_docs:
        try:
            docs.write()
        except docs.NoResults as error:
            raise click.ClickException(str(error)) from None
        return
    # A run that is ended stops its servers and databases.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, TABLE_WIDTH)
    run = Run(machine.describe() | {"quick": quick})
    if not quick and (busy := machine.busy(run.about)):
        console.print(f"[bold]{busy}[/bold]")
    with workbench(quick=quick) as bench:
        run.series = bench.series
        for name in names or SUBJECTS:
            started = time.perf_counter()
            measure(name, bench, run, console)
            run.seconds[name] = round(time.perf_counter() - started, 1)
            report.show(console, f"{name}, {run.seconds[name]:.0f} s", run.rows[name])
            run.about["load_after"] = machine.load()
            target = report.write(run)
    console.print(f"\n{run.summary()}; written to {os.path.relpath(target)}")
    if run.failed:
        sys.exit(1)


def measure(name: str, bench: Workbench, run: Run, console: Console) -> None:
    """Run one subject. The rows from before a failure are kept."""
    rows = run.rows[name] = []
    try:
        subject = _subject(name)
        with _at_most(getattr(subject, "LONGEST_SECONDS", LONGEST_SECONDS)):
            for row in subject.run(bench):
                rows.append(replace(row, budget=None) if bench.quick else row)
    except Exception as error:
        console.print_exception(max_frames=6)
        run.failed.append(name)
        rows.append(Row(name, "", skipped=f"FAILED: {type(error).__name__}: {_first_line(error)}"))


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block when its time is up."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError(f"took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _subject(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.subjects.{name}")


if __name__ == "__main__":
    main()
