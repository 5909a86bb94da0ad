"""The cost of layouts of the table of CDRs: rows written in chunks to an empty table and to a large
one, in the present layout and in others.

Not part of ``make bench``: it takes half an hour, and 20 GB of disk. docs/architecture/ has the
decisions from its figures. The driver alone writes the rows, sorted by key as in the service and
prepared beforehand, without checks and triggers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import databases, filling, layout_targets, layouts, workload
from benchmarks.databases import SQLITE_SETTINGS, index_statements
from benchmarks.filling import Sample, Tenant
from benchmarks.harness import Row, Spread, over_baseline
from benchmarks.layout_targets import Target
from benchmarks.layouts import Layout
from benchmarks.workbench import Workbench

CHUNK_ROWS = 10_000
FILLED = (0, 1_000_000, 20_000_000)
FILLED_QUICK = (0, 2_000)
LONGEST_SECONDS = 7_200
# Random call_ids are of the tenant that has all rows so far, ordered ones of another: so these go
# to one place of the index, as in a table in which all are ordered.
TENANTS = {"random": 1, "ordered": 2}
AS_IT_IS = Layout("as it is")
EXTENSIONS = 200


@dataclass(frozen=True, slots=True)
class _Measured:
    """Rows a second of some chunks; for each row, the bytes of log and the processor time of the
    database, which other work on the machine hardly changes."""

    rates: Spread
    log_bytes: float
    processor_us: float


def run(bench: Workbench) -> Iterator[Row]:
    real = workload.real_calls(bench.prefixes, bench.size(100_000, 1_000), seed=3)
    tenant = Tenant(1, 2, range(1, len(bench.rows) + 1))
    calls = filling.sample(real, bench.deck, tenant)
    for kind in databases.KINDS:
        for rows in bench.size(FILLED, FILLED_QUICK):
            yield from _at(bench, kind, rows, calls)


def _at(bench: Workbench, kind: str, rows: int, calls: Sample) -> Iterator[Row]:
    """All layouts of a table with this number of rows."""
    chunks = _Chunks(bench, calls, first_id=rows + 1)
    in_place = [layout for layout in layouts.layouts(kind) if not layout.rebuilt]
    rebuilt = [layout for layout in layouts.layouts(kind) if layout.rebuilt]
    known: dict[str, _Measured] = {}
    with layout_targets.target(bench.databases, kind) as target:
        _make(target, kind, AS_IT_IS, calls, rows)
        as_it_is_sizes = target.sizes()
        for layout in (AS_IT_IS, *in_place):
            if rows == 0:
                _empty(target, kind)
            before = _each_order(target, AS_IT_IS, chunks)
            known = known or before
            if layout is AS_IT_IS:
                yield from _rows(kind, rows, layout, before, None, as_it_is_sizes)
                continue
            _change(target, kind, layout)
            if rows == 0:
                _empty(target, kind)
            measured = _each_order(target, layout, chunks)
            _change_back(target, kind, layout)
            yield from _rows(kind, rows, layout, measured, before, "")
    for layout in rebuilt:
        with layout_targets.target(bench.databases, kind) as target:
            _make(target, kind, layout, calls, rows)
            sizes = target.sizes()
            measured = _each_order(target, layout, chunks)
            yield from _rows(kind, rows, layout, measured, known, sizes)


def _rows(
    kind: str,
    filled: int,
    layout: Layout,
    measured: dict[str, _Measured],
    baseline: dict[str, _Measured] | None,
    sizes: str,
) -> Iterator[Row]:
    for order, found in measured.items():
        beside = baseline[order].rates if baseline else None
        note = f"{found.processor_us:.2f} µs of processor a row"
        if baseline:
            note += f" against {baseline[order].processor_us:.2f}"
        if found.log_bytes:
            note += f", {found.log_bytes:,.0f} bytes of log"
        if found.log_bytes and baseline:
            note += f" against {baseline[order].log_bytes:,.0f}"
        yield Row(
            f"{kind}, {filled:,} rows, {order} ids: {layout.name}",
            "rows/s",
            found.rates,
            AS_IT_IS.name if beside else "",
            beside,
            _over(found.rates, beside) if beside else None,
            "of it" if beside else "",
            note="; ".join(part for part in (note, sizes) if part),
        )


def _over(rates: Spread, baseline: Spread) -> Spread:
    return Spread(
        *(over_baseline(one, baseline.median) for one in (rates.median, rates.low, rates.high))
    )


class _Chunks:
    """Rows to write, new ones each time."""

    def __init__(self, bench: Workbench, calls: Sample, first_id: int) -> None:
        self.rows = bench.size(CHUNK_ROWS, 100)
        self.groups = 3
        self.group_chunks = bench.size(6, 1)
        self._calls = calls
        self._next_id = first_id
        self._draw = random.Random(17)
        self._started_ms = workload.STARTED_AT_S * 1000

    def next(self, order: str) -> list[tuple[Any, ...]]:
        """In the order of layout_targets.COLUMNS, sorted by key."""
        ids = sorted(self._call_id(order) for _ in range(self.rows))
        rows = []
        for call_id in ids:
            n = self._next_id
            self._next_id += 1
            number, duration, *outcome = self._calls.rows[n % len(self._calls.rows)]
            rows.append(
                (
                    n,
                    TENANTS[order],
                    call_id,
                    1 + n % EXTENSIONS,
                    filling.CALLER,
                    number,
                    1,
                    1,
                    duration,
                    (self._started_ms + n // 100) * 1_000_000,
                    None,
                    *outcome,
                    self._calls.rate_revision,
                    1,
                    workload.STARTED_AT_S * 10**9,
                    0,
                )
            )
        return rows

    def _call_id(self, order: str) -> str:
        if order == "random":
            return f"{self._draw.getrandbits(128):032x}"
        self._started_ms += 1
        return f"{self._started_ms:012x}{self._draw.getrandbits(80):020x}"


def _each_order(target: Target, layout: Layout, chunks: _Chunks) -> dict[str, _Measured]:
    return {order: _measure(target, layout, chunks, order) for order in TENANTS}


def _measure(target: Target, layout: Layout, chunks: _Chunks, order: str) -> _Measured:
    prepared = [
        target.write(chunks.next(order), layout) for _ in range(chunks.groups * chunks.group_chunks)
    ]
    target.settle()
    log_before, processor_before = target.log_bytes(), target.processor_seconds()
    rates = []
    for group in range(chunks.groups):
        started = time.perf_counter()
        for write in prepared[group * chunks.group_chunks : (group + 1) * chunks.group_chunks]:
            write()
        seconds = time.perf_counter() - started
        rates.append(chunks.group_chunks * chunks.rows / seconds)
    written = len(prepared) * chunks.rows
    return _Measured(
        Spread.of(rates),
        (target.log_bytes() - log_before) / written,
        (target.processor_seconds() - processor_before) * 1e6 / written,
    )


def _make(target: Target, kind: str, layout: Layout, calls: Sample, rows: int) -> None:
    for statement in layout.tables or (layouts.table(kind),):
        target.execute(statement)
    if rows:
        filling.fill(target.connection, calls, rows, _others(layout))
        if layout.keyed:
            target.execute("INSERT INTO cdr_keys SELECT tenant_id, call_id, id FROM cdrs")
    for name, statement in index_statements(kind).items():
        if name not in layout.without:
            target.execute(_index(layout, name, statement))
    if rows and kind == "postgresql":
        # Otherwise autovacuum does it during the measurement.
        target.execute("VACUUM (ANALYZE) cdrs")


def _others(layout: Layout) -> dict[str, str]:
    hashes = {"call_hash": "randomblob(16)"} if layout.hashed else {}
    return {"extension_id": f"1 + n % {EXTENSIONS}", "upload_id": "1", **hashes}


def _index(layout: Layout, name: str, statement: str) -> str:
    if name == "uq_cdrs_call":
        if layout.keyed:
            return statement.replace("ON cdrs", "ON cdr_keys").replace(", generation", "")
        if layout.hashed:
            return statement.replace("call_id", "call_hash")
    return statement


def _change(target: Target, kind: str, layout: Layout) -> None:
    for name in layout.without:
        target.execute(f"DROP INDEX {name}")
    for _, statement in layout.indexes:
        target.execute(statement)
    for setting in layout.settings:
        target.execute(f"PRAGMA {setting}")


def _change_back(target: Target, kind: str, layout: Layout) -> None:
    for name, _ in layout.indexes:
        target.execute(f"DROP INDEX {name}")
    for name in layout.without:
        target.execute(index_statements(kind)[name])
    if layout.settings:
        for setting in (*SQLITE_SETTINGS, "wal_autocheckpoint = 1000", "secure_delete = ON"):
            target.execute(f"PRAGMA {setting}")


def _empty(target: Target, kind: str) -> None:
    target.execute("DELETE FROM cdrs" if kind == "sqlite" else "TRUNCATE cdrs")
