"""Calls to upload, as messages and as their rows, and the ways to write either."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import load, serving, workload
from benchmarks.databases import BareTable
from benchmarks.filling import Tenant
from benchmarks.harness import Row, Spread, at_least, batches, over_baseline, timed
from benchmarks.machine import REPOSITORY
from benchmarks.workbench import Workbench
from benchmarks.workload import RealCalls
from tollwire.service.storage.schema.record_tables import CdrRow

CHUNK_CALLS = 10_000
WINDOW = 4
DRIVERS = {"sqlite": "executemany", "postgresql": "binary COPY"}
IDS: dict[str, Callable[[int, int], list[str]]] = {
    "random ids": workload.random_ids,
    "time-ordered ids": workload.ordered_ids,
}
# The fields of a call in a file, and its start.
_SENT = (
    "tenant_id",
    "call_id",
    "caller_number",
    "destination_number",
    "direction",
    "disposition",
    "duration_seconds",
)
_ALL_COLUMNS = tuple(column.name for column in CdrRow.__table__.c)


def columns(kind: str) -> tuple[str, ...]:
    """The columns that are written: SQLite assigns ids by itself."""
    return tuple(name for name in _ALL_COLUMNS if kind != "sqlite" or name != "id")


@dataclass(frozen=True, slots=True)
class UploadWork:
    """The same calls for all contestants: as messages in a file, ``chunk_calls`` in each, and as
    rows without ids."""

    messages: Path
    chunk_calls: int
    rows: list[tuple[Any, ...]]
    cost_scaled: int

    def __len__(self) -> int:
        return len(self.rows)

    def rows_for(self, kind: str, first_id: int = 1) -> list[tuple[Any, ...]]:
        """In the order of ``columns``."""
        if kind == "sqlite":
            return self.rows
        return [(number, *row) for number, row in enumerate(self.rows, first_id)]


def chunk_calls(bench: Workbench) -> int:
    return bench.size(CHUNK_CALLS, 500)


def prepare(
    bench: Workbench, real: RealCalls, ids: list[str], tenant: Tenant, chunk: int = 0
) -> UploadWork:
    """``chunk``: the calls of a message; 0 for the usual number."""
    calls = workload.wire_calls(real, tenant.id, ids)
    messages = bench.folder / "uploads"
    chunk = chunk or chunk_calls(bench)
    load.write_messages(messages, workload.upload_messages(calls, chunk))
    rated = real.rated(bench.deck)
    same = {
        "tenant_id": tenant.id,
        "extension_id": None,
        "ended_at_ns": None,
        "unrated_reason": None,
        "rate_revision": tenant.rate_revision,
        "upload_id": 1,
        "created_at_ns": workload.STARTED_AT_S * 10**9,
        "generation": 0,
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
            "cost_units": cost_scaled // 10_000,
            "cost_fraction_e8": cost_scaled % 10_000 * 10_000,
            "rate_version_id": tenant.version_ids[workload.row_of(bench.deck, rate_index)],
        }
        for call, started_at_ns, status, bill_seconds, cost_scaled, rate_index in zip(
            calls,
            real.started_at_ns,
            rated.status,
            rated.bill_seconds,
            rated.cost_scaled,
            rated.rate_index,
            strict=True,
        )
    )
    names = columns("sqlite")
    return UploadWork(
        messages,
        chunk,
        [tuple(row[name] for name in names) for row in rows],
        sum(rated.cost_scaled),
    )


def upload(server: serving.Server, work: UploadWork, window: int = WINDOW) -> float:
    """Seconds from sending the first chunk to the last response, with ``window`` chunks in
    flight."""
    done = load.run(
        "upload",
        address=server.address,
        messages=str(work.messages),
        chunk_calls=work.chunk_calls,
        window=window,
    )
    if done["created"] != len(work):
        raise AssertionError(f"not all calls were recorded: {done}")
    return float(done["seconds"])


def compared(
    bench: Workbench,
    kind: str,
    taken: Mapping[str, Sequence[float]],
    *,
    where: str,
    calls: int,
    same: str,
    indexed: tuple[str, str],
) -> Iterator[Row]:
    """The rows a second of "upload" beside those of "indexed" and of "bare" (all in ``taken``).

    ``indexed`` is the name of the baseline with indexes, and its table.
    """
    for contestant, (baseline, table), budget in (
        ("indexed", indexed, 0.75),
        ("bare", ("ascending key alone", "a bare table"), 0.3),
    ):
        yield Row(
            f"UploadCdrs, {where}, against {table}",
            "rows/s",
            Spread.of(taken["upload"]),
            f"{DRIVERS[kind]}, {baseline}",
            Spread.of(taken[contestant]),
            Spread.of(map(over_baseline, taken["upload"], taken[contestant])),
            "of it",
            at_least(budget),
            same,
            f"{calls:,} rows a turn, {chunk_calls(bench):,} a chunk, {WINDOW} in flight",
        )


def peak_memory(
    bench: Workbench, server: serving.Server, work: UploadWork, where: str
) -> Iterator[Row]:
    """The rows a second of the server, and of ``tollwire cdrs upload`` with the same calls from a
    file, with new call_ids."""
    path = bench.folder / "uploads.csv"
    _write_csv(path, work)
    command = ["cdrs", "upload", str(path), "--no-resume", "--chunk", str(chunk_calls(bench))]
    answer = bench.folder / "uploads.answer"
    with answer.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tollwire.service.cli.main",
                *command,
                "--server",
                server.address,
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env=serving.environment(),
        )
        client_bytes = 0
        while process.poll() is None:
            client_bytes = max(client_bytes, serving.peak_memory_bytes(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise AssertionError(f"not all calls were recorded: {answer.read_text()[-500:]}")
    for name, peak_bytes in (
        ("the server", server.peak_memory_bytes()),
        ("tollwire cdrs upload", client_bytes),
    ):
        yield Row(
            f"peak memory of {name}, {where}",
            "MiB",
            Spread.of([peak_bytes / 2**20]),
            note=f"{len(work):,} calls an upload, {chunk_calls(bench):,} a chunk,"
            f" {WINDOW} in flight",
        )


def _write_csv(path: Path, work: UploadWork) -> None:
    names = columns("sqlite")
    at = {name: names.index(name) for name in (*_SENT, "started_at_ns")}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_SENT, "started_at"])
        for row in work.rows:
            started = datetime.fromtimestamp(row[at["started_at_ns"]] // 10**9, UTC)
            sent = {name: row[at[name]] for name in _SENT}
            sent |= {"direction": "outbound", "disposition": "answered"}
            writer.writerow([*sent.values(), started.isoformat()])


def write(bench: Workbench, table: BareTable, rows: Sequence[tuple[Any, ...]]) -> float:
    """Seconds for the same chunks, written by the driver."""

    def every_chunk() -> None:
        for part in batches(rows, chunk_calls(bench)):
            table.write(part)

    return timed(every_chunk)() / 1e9
