"""UploadCdrs into a table of twenty million rows, against the same chunks written by the driver: to
that table with its indexes, without its checks and triggers, and to a bare one with the same rows.

Random call_ids are of the tenant that has all rows so far; ordered ones are of another tenant, so
they go to one place of the index, as in a table in which all are ordered.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from dataclasses import replace

from benchmarks import databases, filling, serving, upload_work, workload
from benchmarks.databases import table_of
from benchmarks.filling import FilledDatabase, Tenant
from benchmarks.harness import Row, agreed, digest, in_turns
from benchmarks.upload_work import IDS, UploadWork
from benchmarks.workbench import Workbench
from benchmarks.workload import RealCalls
from tollwire.service.storage.schema.record_tables import CdrRow

# Creating the tables takes minutes.
LONGEST_SECONDS = 1800
HOUR_NS = 3_600 * 10**9
# No server assigns ids from here on while this runs.
_BASELINE_IDS = 10**12


def run(bench: Workbench) -> Iterator[Row]:
    for kind in databases.KINDS:
        filled = bench.filled(kind)
        with serving.tollwire(filled.url) as server:
            for ids_name, tenant in zip(IDS, filled.tenants, strict=True):
                yield from _on(_Contest(bench, kind, filled, server), ids_name, tenant)


def _on(contest: _Contest, ids_name: str, tenant: Tenant) -> Iterator[Row]:
    bench, kind = contest.bench, contest.kind
    taken = in_turns(
        {
            "upload": lambda: contest.upload(ids_name, tenant),
            "indexed": lambda: contest.indexed(ids_name, tenant),
            "bare": lambda: contest.bare(ids_name, tenant),
        },
        bench.size(3, 1),
    )
    where = f"{ids_name}, {kind}, at {contest.filled.rows:,} rows"
    yield from upload_work.compared(
        bench,
        kind,
        taken,
        where=where,
        calls=contest.calls,
        same=digest(*contest.costs),
        indexed=("the same table", "the table itself"),
    )
    yield from contest.peak_memory(ids_name, tenant, where)


class _Contest:
    """Each round has the same calls, an hour later, with new call_ids."""

    def __init__(
        self, bench: Workbench, kind: str, filled: FilledDatabase, server: serving.Server
    ) -> None:
        self.bench = bench
        self.kind = kind
        self.filled = filled
        self.costs: list[str] = []
        self.calls = bench.size(100_000, 2_000)
        self._server = server
        self._real = workload.real_calls(bench.prefixes, self.calls, seed=11)

    def upload(self, ids_name: str, tenant: Tenant) -> float:
        """Rows a second."""
        work, hours = self._next(ids_name, tenant)
        self._settle()
        seconds = upload_work.upload(self._server, work)
        self._check(self.filled.url, work, tenant, hours)
        return len(work) / seconds

    def indexed(self, ids_name: str, tenant: Tenant) -> float:
        """Rows a second."""
        return self._write(self.filled.url, ids_name, tenant)

    def bare(self, ids_name: str, tenant: Tenant) -> float:
        """Rows a second."""
        return self._write(self.filled.bare_url, ids_name, tenant)

    def peak_memory(self, ids_name: str, tenant: Tenant, where: str) -> Iterator[Row]:
        work, _ = self._next(ids_name, tenant)
        yield from upload_work.peak_memory(self.bench, self._server, work, where)

    def _write(self, url: str, ids_name: str, tenant: Tenant) -> float:
        work, hours = self._next(ids_name, tenant)
        columns = upload_work.columns(self.kind)
        rows = work.rows_for(self.kind, _BASELINE_IDS + hours * self.calls)
        with databases.unguarded(url):
            self._settle()
            with databases.writing(url, table_of(CdrRow), columns) as table:
                seconds = upload_work.write(self.bench, table, rows)
        self._check(url, work, tenant, hours)
        return len(work) / seconds

    def _next(self, ids_name: str, tenant: Tenant) -> tuple[UploadWork, int]:
        hours = next(_HOURS)
        calls = _later(self._real, hours)
        ids = IDS[ids_name](self.calls, 100 + hours)
        if ids_name != "random ids":
            ids = [f"{int(one[:12], 16) + hours * 3_600_000:012x}{one[12:]}" for one in ids]
        return upload_work.prepare(self.bench, calls, ids, tenant), hours

    def _settle(self) -> None:
        """Both begin alike: no write is pending from before."""
        for url in (self.filled.url, self.filled.bare_url):
            with filling.connected(url) as connection:
                if self.kind == "sqlite":
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                else:
                    connection.execute("CHECKPOINT")

    def _check(self, url: str, work: UploadWork, tenant: Tenant, hours: int) -> None:
        begin_ns = workload.STARTED_AT_S * 10**9 + hours * HOUR_NS
        table = "cdrs"
        if url == self.filled.bare_url:  # which has no index to find them with
            table = f"(SELECT * FROM cdrs ORDER BY id DESC LIMIT {len(work)}) AS newest"
        query = (
            f"SELECT count(*), sum(cost_units * 10000 + cost_fraction_e8 / 10000) FROM {table}"
            f" WHERE tenant_id = {tenant.id} AND started_at_ns >= {begin_ns}"
            f" AND started_at_ns < {begin_ns + HOUR_NS}"
        )
        with filling.connected(url) as connection:
            count, cost_scaled = connection.execute(query).fetchone()
        found = f"{count} rows, {cost_scaled}"
        self.costs.append(agreed("rows and costs", f"{len(work)} rows, {work.cost_scaled}", found))


_HOURS = itertools.count(1)


def _later(real: RealCalls, hours: int) -> RealCalls:
    return replace(
        real, started_at_ns=array("q", (start + hours * HOUR_NS for start in real.started_at_ns))
    )
