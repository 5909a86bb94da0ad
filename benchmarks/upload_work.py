"""Calls to upload, as messages and as the rows that they become, and how either is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import load, serving, workload
from benchmarks.databases import BareTable
from benchmarks.filling import Tenant
from benchmarks.harness import batches, timed
from benchmarks.workbench import Workbench
from benchmarks.workload import RealCalls
from service.storage.record_tables import CdrRow

CHUNK_CALLS = 10_000
WINDOW = 4
IDS: dict[str, Callable[[int, int], list[str]]] = {
    "random ids": workload.random_ids,
    "time-ordered ids": workload.ordered_ids,
}
_ALL_COLUMNS = tuple(column.name for column in CdrRow.__table__.c)


def columns(kind: str) -> tuple[str, ...]:
    """Those that are written: SQLite gives ids by itself."""
    return tuple(name for name in _ALL_COLUMNS if kind != "sqlite" or name != "id")


@dataclass(frozen=True, slots=True)
class UploadWork:
    """The same calls for all contestants: as messages in a file, and as rows without their ids."""

    messages: Path
    rows: list[tuple[Any, ...]]
    cost_e4: int

    def __len__(self) -> int:
        return len(self.rows)

    def rows_for(self, kind: str, first_id: int = 1) -> list[tuple[Any, ...]]:
        """As ``columns`` has them."""
        if kind == "sqlite":
            return self.rows
        return [(number, *row) for number, row in enumerate(self.rows, first_id)]


def chunk_calls(bench: Workbench) -> int:
    return bench.size(CHUNK_CALLS, 500)


def prepare(bench: Workbench, real: RealCalls, ids: list[str], tenant: Tenant) -> UploadWork:
    calls = workload.wire_calls(real, tenant.id, ids)
    messages = bench.folder / "uploads"
    load.write_messages(messages, workload.upload_messages(calls, chunk_calls(bench)))
    rated = real.rated(bench.deck)
    same = {
        "tenant_id": tenant.id,
        "extension_id": None,
        "ended_at_ns": None,
        "unrated_reason": None,
        "rate_revision": tenant.rate_revision,
        "upload_id": 1,
        "created_at_ns": workload.STARTED_AT_S * 10**9,
    }
    rows = (
        same
        | {
            "call_id": call.call_id,
            "caller_number": call.caller_number,
            "destination_number": call.destination_number,
            "direction": call.direction,
            "disposition": call.disposition,
            "duration_seconds": call.duration_seconds,
            "started_at_ns": started_at_ns,
            "status": status,
            "bill_seconds": bill_seconds,
            "cost_units": cost_e4 // 10_000,
            "cost_fraction_e4": cost_e4 % 10_000,
            "rate_version_id": tenant.version_ids[workload.place(bench.deck, rate_index)],
        }
        for call, started_at_ns, status, bill_seconds, cost_e4, rate_index in zip(
            calls,
            real.started_at_ns,
            rated.status,
            rated.bill_seconds,
            rated.cost_e4,
            rated.rate_index,
            strict=True,
        )
    )
    names = columns("sqlite")
    return UploadWork(
        messages, [tuple(row[name] for name in names) for row in rows], sum(rated.cost_e4)
    )


def upload(bench: Workbench, server: serving.Server, work: UploadWork) -> float:
    """Seconds from the first chunk's sending to the last one's answer."""
    done = load.run(
        "upload",
        address=server.address,
        messages=str(work.messages),
        chunk_calls=chunk_calls(bench),
        window=WINDOW,
    )
    if done["created"] != len(work):
        raise AssertionError(f"not all calls were recorded: {done}")
    return float(done["seconds"])


def write(bench: Workbench, table: BareTable, rows: Sequence[tuple[Any, ...]]) -> float:
    """Seconds for the same chunks, written by the driver."""

    def every_chunk() -> None:
        for part in batches(rows, chunk_calls(bench)):
            table.write(part)

    return timed(every_chunk)() / 1e9
