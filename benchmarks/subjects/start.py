"""A start: the time from the command until the server serves with all decks in memory, and the peak
memory by then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Table

from benchmarks import databases, serving
from benchmarks.databases import table_of
from benchmarks.harness import Row, Spread, agreed, digest, in_turns, over_baseline
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
