"""A start: the time from the command until the server serves with all decks in memory, and the peak
memory by then; and what further workers add."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
from sqlalchemy import Table

from benchmarks import databases, serving
from benchmarks.databases import table_of
from benchmarks.harness import (
    Row,
    Spread,
    agreed,
    at_most,
    compared,
    digest,
    in_turns,
    over_baseline,
)
from benchmarks.real_deck import DeckRow
from benchmarks.subjects.imports import rate_rows
from benchmarks.subjects.memory import RATES_A_TENANT, TENANTS, small_deck
from benchmarks.workbench import Workbench
from tollwire.service.domain.model import Rounding
from tollwire.service.storage.schema.tenant_tables import (
    DeckClockRow,
    RateVersionRow,
    TenantRow,
    TenantVersionRow,
)
from tollwire.service.storage.schema.tenant_tables import DeckRow as DeckStateRow

MIB = 2**20
WORKERS = 4
PATIENCE_SECONDS = 60


def run(bench: Workbench) -> Iterator[Row]:
    tenants = bench.size(TENANTS, 50)
    decks = {
        "nothing in it": [],
        "the real deck twice": [bench.rows, bench.rows],
        f"{tenants:,} tenants with {RATES_A_TENANT} rates": [
            small_deck(bench.rows, tenant) for tenant in range(tenants)
        ],
    }
    for kind in bench.size(databases.KINDS, ("sqlite",)):
        templates = {name: _filled(bench, kind, made) for name, made in decks.items()}
        peaks: dict[str, list[float]] = {name: [] for name in decks}
        counts: dict[str, str] = {}

        def start_s(name: str) -> float:
            with bench.databases.fresh(kind, templates[name]) as url:  # noqa: B023 called here
                started = time.perf_counter()
                with serving.tollwire(url) as server:
                    seconds = time.perf_counter() - started
                    peaks[name].append(server.peak_memory_bytes() / MIB)  # noqa: B023
                    counts[name] = server.line  # noqa: B023
            return seconds

        taken = in_turns(
            {name: (lambda name=name: start_s(name)) for name in decks},  # type: ignore[misc]
            bench.size(3, 1),
        )
        for name, made in decks.items():
            if name == "nothing in it":
                continue
            yield _row(kind, name, taken, peaks, _counted(counts[name], made))
        yield from _workers(bench, kind, templates)


def _workers(bench: Workbench, kind: str, templates: dict[str, str]) -> Iterator[Row]:
    """What further workers take: the time until one serves, and memory."""
    empty, full = "nothing in it", "the real deck twice"
    serving_s: dict[str, list[float]] = {empty: [], full: []}
    memory: dict[int, list[float]] = {1: [], WORKERS: []}

    def started(name: str, workers: int) -> float:
        with (
            bench.databases.fresh(kind, templates[name]) as url,
            serving.tollwire(url, workers=workers) as server,
        ):
            if name == full:
                memory[workers].append(server.memory_bytes() / MIB)
            if workers > 1:
                serving_s[name].append(_restart_s(server))
        return 0.0

    in_turns(
        {
            "empty": lambda: started(empty, WORKERS),
            "alone": lambda: started(full, 1),
            "several": lambda: started(full, WORKERS),
        },
        bench.size(3, 1),
    )
    yield compared(
        f"a worker that is replaced, with {full}, {kind}",
        "s",
        serving_s[full],
        "with an empty database",
        serving_s[empty],
        over_baseline,
        "times that",
        budget=at_most(1.2),
        note=f"one of {WORKERS} workers, from the start of its process until it listens",
    )
    yield compared(
        f"memory of {WORKERS} workers with {full}, {kind}",
        "MiB",
        memory[WORKERS],
        "one worker",
        memory[1],
        over_baseline,
        "times that",
        budget=at_most(1.3),
        note="the sum of the proportional set sizes of all processes of the server",
    )


def _restart_s(server: serving.Server) -> float:
    """Kill a worker. How long the one that replaces it takes until it serves."""
    before = serving.worker_processes(server.pid)
    before[0].kill()
    deadline = time.monotonic() + PATIENCE_SECONDS
    new = None
    began = 0.0
    while time.monotonic() < deadline:
        if new is None:
            found = set(serving.worker_processes(server.pid)) - set(before)
            began = time.perf_counter()
            new = next(iter(found), None)
        elif any(one.status == psutil.CONN_LISTEN for one in new.net_connections("tcp")):
            return time.perf_counter() - began
        time.sleep(0.001)
    raise AssertionError("a worker that was killed is not replaced")


def _row(
    kind: str,
    name: str,
    taken: dict[str, list[float]],
    peaks: dict[str, list[float]],
    same: str,
) -> Row:
    empty = taken["nothing in it"]
    return Row(
        f"start with {name}, {kind}",
        "s",
        Spread.of(taken[name]),
        "an empty database",
        Spread.of(empty),
        Spread.of(map(over_baseline, taken[name], empty)),
        "times that",
        digest=same,
        note=f"at most {Spread.of(peaks[name]).median:,.0f} MiB held until it served;"
        f" {Spread.of(peaks['nothing in it']).median:,.0f} MiB with an empty database",
    )


def _counted(line: str, decks: Sequence[Sequence[DeckRow]]) -> str:
    """A digest of the counts that the server says it has loaded, which must equal those of the
    database."""
    rates = sum(map(len, decks))
    tenants = f"{len(decks):,} tenant{'' if len(decks) == 1 else 's'}"
    expected = f", {tenants} and {rates:,} rates loaded in "
    agreed("what was loaded", "all", "all" if expected in line else line)
    return digest(expected)


def _filled(bench: Workbench, kind: str, decks: Sequence[Sequence[DeckRow]]) -> str:
    """A database with a tenant for each deck, written directly: through the service, this number of
    tenants would take longer than all the rest."""
    url, template = bench.databases.keep(kind)
    databases.prepare(url)
    if not decks:
        return template
    now_ns = time.time_ns()
    tenants = [
        {
            "id": number,
            "tenant_id": number,
            "revision": 2,
            "change_seq": number,
            "name": f"Tenant {number}",
            "currency": "USD",
            "rounding": int(Rounding.HALF_UP),
            "country_code": "",
            "national_prefix": "",
            "international_prefix": "",
            "created_at_ns": now_ns,
            "cost_decimals": 4,
        }
        for number in range(1, len(decks) + 1)
    ]
    _write(url, table_of(RateVersionRow), rate_rows(decks))
    for table in map(table_of, (TenantRow, TenantVersionRow, DeckStateRow)):
        columns = table.c.keys()
        _write(url, table, [tuple(one[name] for name in columns) for one in tenants])
    clock = table_of(DeckClockRow)
    with databases.writing(url, clock, ["id", "change_seq"], ["DELETE FROM deck_clock"]) as written:
        written.write([(1, len(decks))])
    return template


def _write(url: str, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    with databases.writing(url, table, list(table.c.keys())) as written:
        written.write(rows)
