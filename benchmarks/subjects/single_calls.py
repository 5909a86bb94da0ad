"""CreateCdr beside RateCall on the same server and beside a commit by the driver alone; a small
transaction of an upload beside the driver's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import psutil

from benchmarks import databases, rate_calls, serving, upload_work, workload
from benchmarks.databases import table_of
from benchmarks.filling import Tenant
from benchmarks.harness import (
    Budget,
    Row,
    at_least,
    at_most,
    batches,
    compared,
    digest,
    in_turns,
    over_baseline,
    timed,
)
from benchmarks.rate_calls import CREATE_CDR, RATE_CALL, Measured, Requests
from benchmarks.subjects.unary import sample
from benchmarks.workbench import TENANT_ID, Workbench
from tollwire.client import Client
from tollwire.service.storage.schema.record_tables import CdrRow

# The least share of RateCall's calls a second, by the number of calls in flight.
BUDGETS: dict[int, Budget | None] = {1: None, 16: at_least(0.5), 64: at_least(0.7)}
CPU_IN_FLIGHT = 16
CHUNK_CALLS = 64

# The measurement, with the processor's milliseconds for a call, by the name of the RPC.
Taken = dict[str, list[tuple[Measured, float]]]


def run(bench: Workbench) -> Iterator[Row]:
    for kind in databases.KINDS:
        with bench.loaded(kind) as server:
            yield from _single_calls(bench, kind, server)
        yield from _small_chunks(bench, kind)


def _single_calls(bench: Workbench, kind: str, server: serving.Server) -> Iterator[Row]:
    calls, _ = sample(bench, bench.size(2_000, 100))
    requests = {
        method.name: Requests(bench.folder, calls, method) for method in (RATE_CALL, CREATE_CDR)
    }
    seconds = bench.size(3.0, 0.3)
    recorded = 0

    def measured(name: str, in_flight: int) -> tuple[Measured, float]:
        nonlocal recorded
        before = _processor_seconds(server)
        found = rate_calls.measure(server.address, requests[name], seconds, in_flight=in_flight)
        if name == CREATE_CDR.name:
            recorded += len(found.latencies_ms)
        used = _processor_seconds(server) - before
        return found, used * 1000 / len(found.latencies_ms)

    for name in requests:
        measured(name, 1)  # warming up
    note = f"one worker, one connection, client: {rate_calls.client()} in another process"
    for in_flight, budget in BUDGETS.items():
        taken: Taken = {name: [] for name in requests}

        def keep(name: str, in_flight: int = in_flight, taken: Taken = taken) -> float:
            taken[name].append(measured(name, in_flight))
            return taken[name][-1][0].per_second

        in_turns({name: partial(keep, name) for name in requests}, bench.size(5, 1))
        of_create, of_rate = taken[CREATE_CDR.name], taken[RATE_CALL.name]
        p50, p99 = (
            statistics.median(one.percentile_ms(percent) for one, _ in of_create)
            for percent in (50, 99)
        )
        yield compared(
            f"CreateCdr, {in_flight} in flight, {kind}",
            "calls/s",
            [one.per_second for one, _ in of_create],
            "RateCall",
            [one.per_second for one, _ in of_rate],
            over_baseline,
            "of it",
            budget=budget,
            note=f"p50 {p50:.2f} ms, p99 {p99:.2f} ms; {note}",
        )
        if in_flight == CPU_IN_FLIGHT:
            yield compared(
                f"processor time of a CreateCdr, {in_flight} in flight, {kind}",
                "ms",
                [cpu for _, cpu in of_create],
                "of a RateCall",
                [cpu for _, cpu in of_rate],
                over_baseline,
                "times",
                budget=at_most(2),
                note=note,
            )
    yield from _alone(bench, kind, measured)
    with Client(server.address, environment={}) as client:
        stored = sum(1 for _ in client.export_cdrs(tenant_id=TENANT_ID))
    if stored != recorded:
        raise AssertionError(f"{recorded} calls were answered, {stored} are stored")


def _alone(
    bench: Workbench, kind: str, measured: Callable[[str, int], tuple[Measured, float]]
) -> Iterator[Row]:
    """One call at a time, against the driver's commit of one row."""
    work = upload_work_of(bench, bench.size(2_000, 100))
    columns, rows = upload_work.columns(kind), work.rows_for(kind)
    with bench.databases.bare_table(
        kind, table_of(CdrRow), columns, indexes=True, ascending="id"
    ) as table:
        part = len(rows) // bench.size(5, 1)
        parts = iter(list(batches(rows, part)))

        def commits() -> float:
            return statistics.median(
                timed(partial(table.write, [row]))() / 1e6 for row in next(parts)
            )

        taken = in_turns(
            {
                "call": lambda: measured(CREATE_CDR.name, 1)[0].percentile_ms(50),
                "commit": commits,
            },
            bench.size(5, 1),
        )
    yield compared(
        f"p50 of a lone CreateCdr, {kind}",
        "ms",
        taken["call"],
        f"a commit of one row, {upload_work.DRIVERS[kind]}",
        taken["commit"],
        lambda value, baseline: value - baseline,
        "ms above it",
        budget=at_most(1.5),
    )


def _small_chunks(bench: Workbench, kind: str) -> Iterator[Row]:
    """UploadCdrs with 64 calls a chunk, each sent after the response to the one before."""
    work = upload_work_of(bench, bench.size(200, 10) * CHUNK_CALLS)
    columns, rows = upload_work.columns(kind), work.rows_for(kind)
    chunks = len(work) // CHUNK_CALLS

    def upload() -> float:
        return lockstep_seconds(bench, kind, work) / chunks * 1000

    def bare() -> float:
        with bench.databases.bare_table(
            kind, table_of(CdrRow), columns, indexes=True, ascending="id"
        ) as table:

            def write() -> None:
                for part in batches(rows, CHUNK_CALLS):
                    table.write(part)

            return timed(write, per=chunks)() / 1e6

    taken = in_turns({"upload": upload, "bare": bare}, bench.size(3, 1))
    yield compared(
        f"UploadCdrs, {CHUNK_CALLS} calls a chunk in lockstep, {kind}",
        "ms a chunk",
        taken["upload"],
        f"{upload_work.DRIVERS[kind]}, same columns and indexes",
        taken["bare"],
        over_baseline,
        "times",
        budget=at_most(2.5),
        digest=digest(len(work)),
        note=f"{chunks} chunks a turn",
    )


def lockstep_seconds(bench: Workbench, kind: str, work: upload_work.UploadWork) -> float:
    """Seconds of an upload of which each chunk is sent after the response to the one before."""
    with bench.loaded(kind) as server:
        return upload_work.upload(server, work, window=1)


def upload_work_of(bench: Workbench, count: int) -> upload_work.UploadWork:
    real = workload.real_calls(bench.prefixes, count, seed=13)
    tenant = Tenant(TENANT_ID, 2, range(1, len(bench.prefixes) + 1))
    return upload_work.prepare(bench, real, workload.random_ids(count, 13), tenant, CHUNK_CALLS)


def _processor_seconds(server: serving.Server) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in server.processes())
