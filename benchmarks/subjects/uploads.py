"""UploadCdrs with all checks, against the same rows in the same chunks written to tables: one with
the same columns and indexes, and a bare one with an ascending primary key."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import databases, serving, upload_work, workload
from benchmarks.databases import table_of
from benchmarks.filling import Tenant
from benchmarks.harness import Row, agreed, digest, in_turns
from benchmarks.upload_work import IDS, UploadWork
from benchmarks.workbench import TENANT_ID, Workbench
from tollwire.client import Client
from tollwire.service.storage.schema.record_tables import CdrRow

_SUM = "SELECT sum(cost_units * 10000 + cost_fraction_e8 / 10000) FROM cdrs"


def run(bench: Workbench) -> Iterator[Row]:
    real = workload.real_calls(bench.prefixes, bench.size(300_000, 2_000), seed=11)
    tenant = Tenant(TENANT_ID, 2, range(1, len(bench.prefixes) + 1))
    for ids_name in bench.size(tuple(IDS), ("random ids",)):
        work = upload_work.prepare(bench, real, IDS[ids_name](len(real), 11), tenant)
        for kind in databases.KINDS:
            yield from _on(bench, kind, ids_name, work)


def _on(bench: Workbench, kind: str, ids_name: str, work: UploadWork) -> Iterator[Row]:
    costs: list[str] = []
    taken = in_turns(
        {
            "upload": lambda: _upload(bench, kind, work, costs),
            "indexed": lambda: _bare(bench, kind, work, costs, indexes=True),
            "bare": lambda: _bare(bench, kind, work, costs, indexes=False),
        },
        bench.size(3, 1),
    )
    same = digest(agreed("the sum of all costs", str(work.cost_scaled), *costs))
    yield from upload_work.compared(
        bench,
        kind,
        taken,
        where=f"{ids_name}, {kind}",
        calls=len(work),
        same=same,
        indexed=("same columns and indexes", "a table alike"),
    )
    with bench.loaded(kind) as server:
        yield from upload_work.peak_memory(bench, server, work, f"{ids_name}, {kind}")


def _upload(bench: Workbench, kind: str, work: UploadWork, costs: list[str]) -> float:
    """Rows a second."""
    with bench.loaded(kind) as server:
        seconds = upload_work.upload(server, work)
        costs.append(_total_e4(server))
    return len(work) / seconds


def _total_e4(server: serving.Server) -> str:
    with Client(server.address, environment={}) as client:
        (row,) = client.summarize_usage(tenant_id=TENANT_ID).rows
    return str(int(row.cost.replace(".", "")))


def _bare(
    bench: Workbench, kind: str, work: UploadWork, costs: list[str], *, indexes: bool
) -> float:
    """Rows a second."""
    columns, rows = upload_work.columns(kind), work.rows_for(kind)
    with bench.databases.bare_table(
        kind, table_of(CdrRow), columns, indexes=indexes, ascending="id"
    ) as table:
        seconds = upload_work.write(bench, table, rows)
        costs.append(str(int(table.scalar(_SUM))))
    return len(work) / seconds
