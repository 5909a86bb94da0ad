"""UploadCdrs, everything on, against the same rows in the same chunks written to tables: one with
the same columns and indexes, and a bare one with an ascending primary key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import databases, load, serving, workload
from benchmarks.databases import BareTable, table_of
from benchmarks.harness import (
    Row,
    Spread,
    agreed,
    at_least,
    batches,
    digest,
    in_turns,
    over_baseline,
    timed,
)
from benchmarks.workbench import TENANT_ID, Workbench
from benchmarks.workload import RealCalls
from service.cli.connection import Client
from service.storage.tables import CdrRow
from tollwire.v1.cdr_service_pb2 import SummarizeUsageRequest

CHUNK_CALLS = 10_000
WINDOW = 4
COLUMNS = tuple(column.name for column in CdrRow.__table__.c if column.name != "id")
IDS: dict[str, Callable[[int, int], list[str]]] = {
    "random ids": workload.random_ids,
    "time-ordered ids": workload.ordered_ids,
}
_SUM = "SELECT sum(cost_units * 10000 + cost_fraction_e4) FROM cdrs"


@dataclass(frozen=True, slots=True)
class _Work:
    """The same calls for all contestants: as messages in a file, and as rows."""

    messages: Path
    rows: list[tuple[Any, ...]]
    cost_e4: int


def run(bench: Workbench) -> Iterator[Row]:
    real = workload.real_calls(bench.prefixes, bench.size(300_000, 2_000), seed=11)
    for ids_name in bench.size(tuple(IDS), ("random ids",)):
        work = _work(bench, real, IDS[ids_name](len(real), 11))
        for kind in databases.KINDS:
            yield from _on(bench, kind, ids_name, work)


def _on(bench: Workbench, kind: str, ids_name: str, work: _Work) -> Iterator[Row]:
    costs: list[str] = []
    driver = "executemany" if kind == "sqlite" else "binary COPY"
    taken = in_turns(
        {
            "upload": lambda: _upload(bench, kind, work, costs),
            "indexed": lambda: _bare(bench, kind, work, costs, indexes=True),
            "bare": lambda: _bare(bench, kind, work, costs, indexes=False),
        },
        bench.size(3, 1),
    )
    same = digest(agreed("the sum of all costs", str(work.cost_e4), *costs))
    for name, baseline, table, budget in (
        (f"{driver}, same columns and indexes", "indexed", "a table alike", 0.7),
        (f"{driver}, ascending key alone", "bare", "a bare table", 0.3),
    ):
        yield Row(
            f"UploadCdrs, {ids_name}, {kind}, against {table}",
            "rows/s",
            Spread.of(taken["upload"]),
            name,
            Spread.of(taken[baseline]),
            Spread.of(map(over_baseline, taken["upload"], taken[baseline])),
            "of it",
            at_least(budget),
            same,
            f"{len(work.rows):,} rows, {_chunk_calls(bench):,} a chunk, {WINDOW} in flight",
        )


def _upload(bench: Workbench, kind: str, work: _Work, costs: list[str]) -> float:
    """Rows a second."""
    with bench.loaded(kind) as server:
        done = load.run(
            "upload",
            address=server.address,
            messages=str(work.messages),
            chunk_calls=_chunk_calls(bench),
            window=WINDOW,
        )
        if done["created"] != len(work.rows):
            raise AssertionError(f"not all calls were recorded: {done}")
        costs.append(_total_e4(server))
    return len(work.rows) / float(done["seconds"])


def _total_e4(server: serving.Server) -> str:
    with Client(server.address) as client:
        (row,) = client.cdrs.SummarizeUsage(SummarizeUsageRequest(tenant_id=TENANT_ID)).rows
    return str(int(row.cost.replace(".", "")))


def _bare(bench: Workbench, kind: str, work: _Work, costs: list[str], *, indexes: bool) -> float:
    """Rows a second."""
    with bench.databases.bare_table(
        kind, table_of(CdrRow), COLUMNS, indexes=indexes, ascending="id"
    ) as table:
        seconds = timed(lambda: _write(table, work.rows, _chunk_calls(bench)))() / 1e9
        costs.append(str(int(table.scalar(_SUM))))
    return len(work.rows) / seconds


def _write(table: BareTable, rows: Sequence[tuple[Any, ...]], chunk: int) -> None:
    for part in batches(rows, chunk):
        table.write(part)


def _chunk_calls(bench: Workbench) -> int:
    return bench.size(CHUNK_CALLS, 500)


def _work(bench: Workbench, real: RealCalls, ids: list[str]) -> _Work:
    calls = workload.wire_calls(real, TENANT_ID, ids)
    messages = bench.folder / "uploads"
    load.write_messages(messages, workload.upload_messages(calls, _chunk_calls(bench)))
    columns = real.rated(bench.deck)
    now_ns = workload.STARTED_AT_S * 10**9
    rows = [
        {
            "tenant_id": TENANT_ID,
            "call_id": call.call_id,
            "extension_id": None,
            "caller_number": call.caller_number,
            "destination_number": call.destination_number,
            "direction": call.direction,
            "disposition": call.disposition,
            "duration_seconds": call.duration_seconds,
            "started_at_ns": started_at_ns,
            "ended_at_ns": None,
            "status": status,
            "unrated_reason": None,
            "bill_seconds": bill_seconds,
            "cost_units": cost_e4 // 10_000,
            "cost_fraction_e4": cost_e4 % 10_000,
            "rate_version_id": rate_index + 1,
            "rate_revision": 2,
            "upload_id": 1,
            "created_at_ns": now_ns,
        }
        for call, started_at_ns, status, bill_seconds, cost_e4, rate_index in zip(
            calls,
            real.started_at_ns,
            columns.status,
            columns.bill_seconds,
            columns.cost_e4,
            columns.rate_index,
            strict=True,
        )
    ]
    return _Work(
        messages,
        [tuple(row[name] for name in COLUMNS) for row in rows],
        sum(columns.cost_e4),
    )
