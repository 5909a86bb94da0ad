"""Millions of CDRs that the database itself writes: the content of a table after months of uploads.

The calls are a sample of real calls, rated by the core, that repeats; each has its own call_id and
start. The indexes are created after the rows, so twenty million rows take minutes.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import psycopg

from benchmarks import workload
from benchmarks.databases import SQLITE_SETTINGS, index_statements
from benchmarks.workload import RealCalls
from ratingcore import Deck
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import triggers
from tollwire.service.storage.schema.record_tables import CdrRow

COLUMNS = tuple(column.name for column in CdrRow.__table__.c)
CALLER = "493012345678"
# No prefix begins like this.
UNRATED_NUMBER = "000000000000"
# The filled rows begin this long before the calls that are written later.
SPAN_SECONDS = 360 * 86_400
# One of this number of calls has no rate.
UNRATED_EVERY = 100
ROWS_A_STATEMENT = 1_000_000

_SAMPLE = (
    "destination_number",
    "duration_seconds",
    "status",
    "unrated_reason",
    "bill_seconds",
    "cost_units",
    "cost_fraction_e8",
    "rate_version_id",
)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant with the real deck: its revision, and its rate versions in the order of the deck."""

    id: int
    rate_revision: int
    version_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class FilledDatabase:
    """A database of Tollwire with ``rows`` CDRs of the first tenant. The ids of the tenants begin
    with 1. No entry of the ledger covers the CDRs. ``bare_url``: the same rows, without secondary
    indexes and triggers."""

    url: str
    bare_url: str
    rows: int
    tenants: tuple[Tenant, Tenant]


class Connection(Protocol):
    """The common part of the drivers' connections."""

    def execute(self, query: str, /) -> Any: ...

    def cursor(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """Calls of a tenant and their outcomes: the fields of _SAMPLE, in their order."""

    rows: list[tuple[Any, ...]]
    rate_revision: int


def sample(real: RealCalls, deck: Deck, tenant: Tenant) -> Sample:
    columns = real.rated(deck)
    rated = zip(
        real.numbers,
        real.durations,
        columns.bill_seconds,
        columns.cost_scaled,
        columns.rate_index,
        strict=True,
    )
    rows: list[tuple[Any, ...]] = []
    for number, duration, bill, cost_scaled, rate in rated:
        if len(rows) % UNRATED_EVERY:
            cost = (cost_scaled // 10_000, cost_scaled % 10_000 * 10_000)
            version_id = tenant.version_ids[workload.row_of(deck, rate)]
            rows.append((number, duration, 1, None, bill, *cost, version_id))
        else:
            rows.append((UNRATED_NUMBER, duration, 3, 1, None, None, None, None))
    return Sample(rows, tenant.rate_revision)


def fill_database(
    url: str, prefixes: Sequence[str], deck: Deck, real: RealCalls, rows: int
) -> tuple[Tenant, Tenant]:
    """Fill a database that has two tenants with the real deck, and nothing else. Its secondary
    indexes and triggers are removed: see ``add_indexes``."""
    with connected(url) as connection:
        tenants = _tenant(connection, 1, prefixes), _tenant(connection, 2, prefixes)
        _remove_indexes(url, connection)
        fill(connection, sample(real, deck, tenants[0]), rows)
        if not _is_sqlite(connection):
            connection.execute(f"SELECT setval('cdrs_ids', {rows + 1}, false)")
            # Otherwise autovacuum does it during the measurement. Before the indexes exist, because
            # it does not need them.
            connection.execute("VACUUM (ANALYZE) cdrs")
            connection.execute("CHECKPOINT")
    return tenants


def _tenant(connection: Connection, tenant_id: int, prefixes: Sequence[str]) -> Tenant:
    revision = f"SELECT revision FROM decks WHERE tenant_id = {tenant_id}"
    versions = f"SELECT prefix, version_id FROM rate_versions WHERE tenant_id = {tenant_id}"
    found = dict(connection.execute(versions).fetchall())
    return Tenant(
        tenant_id,
        connection.execute(revision).fetchone()[0],
        [found[prefix] for prefix in prefixes],
    )


def _remove_indexes(url: str, connection: Connection) -> None:
    """Create the table's secondary indexes, and all triggers."""
    database = Database(url)
    with database.write() as writing:
        triggers.drop(writing)
    database.close()
    for name in index_statements(_kind(connection)):
        connection.execute(f"DROP INDEX {name}")


def add_indexes(url: str) -> None:
    """Restore what ``fill_database`` removed."""
    with connected(url) as connection:
        for statement in index_statements(_kind(connection)).values():
            connection.execute(statement)
        if not _is_sqlite(connection):
            connection.execute("CHECKPOINT")
    database = Database(url)
    with database.write() as writing:
        triggers.install(writing)
    database.close()


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection of the driver alone, which begins no transaction by itself."""
    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for setting in SQLITE_SETTINGS:
                connection.execute(f"PRAGMA {setting}")
            yield connection
    else:
        with psycopg.connect(url.replace("+psycopg:", ":"), autocommit=True) as remote:
            # For the creation of indexes over millions of rows.
            remote.execute("SET maintenance_work_mem = '1GB'")
            yield cast(Connection, remote)


def fill(
    connection: Connection, calls: Sample, rows: int, others: Mapping[str, str] | None = None
) -> None:
    """Rows 1 to ``rows`` of tenant 1, their starts spread over the time before the calls that are
    written later. ``others``: expressions over n, the number of the row, for more columns."""
    sqlite = _is_sqlite(connection)
    _load_sample(connection, calls, sqlite=sqlite)
    values = _values(calls, rows, sqlite=sqlite) | dict(others or {})
    into = f"INSERT INTO cdrs ({', '.join(values)}) SELECT {', '.join(values.values())} FROM"
    joined = f"JOIN sample ON sample.number = n % {len(calls.rows)}"
    for start in range(1, rows + 1, ROWS_A_STATEMENT):
        end = min(start + ROWS_A_STATEMENT - 1, rows)
        if sqlite:
            connection.execute(
                f"WITH RECURSIVE numbers (n) AS (VALUES ({start}) UNION ALL SELECT n + 1 FROM"
                f" numbers WHERE n < {end}) {into} numbers CROSS {joined}"
            )
        else:
            connection.execute(
                f"{into} generate_series({start}::bigint, {end}) AS numbers (n) {joined} ORDER BY n"
            )
    connection.execute("DROP TABLE sample")


def _values(calls: Sample, rows: int, *, sqlite: bool) -> dict[str, str]:
    """The expressions for the columns of row n."""
    begin_s = workload.STARTED_AT_S - SPAN_SECONDS
    return {
        "id": "n",
        "tenant_id": "1",
        "call_id": "lower(hex(randomblob(16)))" if sqlite else "md5('filled ' || n)",
        "caller_number": f"'{CALLER}'",
        "direction": "2",
        "disposition": "1",
        "started_at_ns": f"({begin_s} + n * {SPAN_SECONDS} / {rows}) * 1000000000",
        "rate_revision": str(calls.rate_revision),
        "created_at_ns": f"{workload.STARTED_AT_S}000000000",
        "generation": "0",
        **{name: f"sample.{name}" for name in _SAMPLE},
    }


def _load_sample(connection: Connection, calls: Sample, *, sqlite: bool) -> None:
    types = ("TEXT", *["BIGINT"] * (len(_SAMPLE) - 1))
    columns = [f"{name} {type_name}" for name, type_name in zip(_SAMPLE, types, strict=True)]
    connection.execute(
        f"CREATE TEMPORARY TABLE sample (number INTEGER PRIMARY KEY, {', '.join(columns)})"
    )
    numbered = [(number, *row) for number, row in enumerate(calls.rows)]
    cursor = connection.cursor()
    if sqlite:
        places = ", ".join("?" * len(numbered[0]))
        cursor.executemany(f"INSERT INTO sample VALUES ({places})", numbered)
    else:
        with cursor.copy("COPY sample FROM STDIN") as copy:
            for row in numbered:
                copy.write_row(row)
        connection.execute("ANALYZE sample")
    cursor.close()


def _kind(connection: Connection) -> str:
    return "sqlite" if _is_sqlite(connection) else "postgresql"


def _is_sqlite(connection: Connection) -> bool:
    return hasattr(connection, "executescript")
