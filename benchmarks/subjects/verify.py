"""VerifyCdrs over twenty million rows, as ``tollwire cdrs verify`` calls it, against reading the
same rows with the driver and doing nothing with them: PostgreSQL's by COPY, SQLite's by a cursor,
in the same parts.

One row in the middle has a higher cost than its rate gives: the verification must find this row and
no other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import databases, filling, serving
from benchmarks.filling import COLUMNS
from benchmarks.harness import Row, Spread, agreed, at_least, digest, in_turns, over_baseline, timed
from benchmarks.workbench import Workbench
from tollwire.client import Client
from tollwire.service.record.verification import PART_IDS
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import triggers
from tollwire.v1.cdr_service_pb2 import VerifyCdrsResponse

# Creating the tables takes minutes.
LONGEST_SECONDS = 1800
DRIVERS = {"sqlite": "sqlite3's cursor", "postgresql": "psycopg's COPY"}


def run(bench: Workbench) -> Iterator[Row]:
    for kind in databases.KINDS:
        yield measured(kind, bench.filled(kind).url)


def measured(kind: str, url: str) -> Row:
    """For any database of Tollwire's with CDRs, none of which may differ."""
    rows, middle_id = _count_and_middle(url)
    found: list[VerifyCdrsResponse] = []
    read: list[int] = []
    with (
        changed(url, middle_id),
        serving.tollwire(url) as server,
        Client(server.address, environment={}) as client,
    ):
        seconds = in_turns(
            {
                "verified": timed(lambda: found.append(verified(client, middle_id)), 10**9),
                "read": timed(lambda: read.append(read_only(url)), 10**9),
            },
            1,
        )
        memory = server.peak_memory_bytes() / 2**20
    agreed("rows", str(rows), *(str(one.checked) for one in found), *map(str, read))
    per_second = {name: [rows / one for one in taken] for name, taken in seconds.items()}
    return Row(
        f"VerifyCdrs, {kind}",
        "rows/s",
        Spread.of(per_second["verified"]),
        f"{DRIVERS[kind]} alone",
        Spread.of(per_second["read"]),
        Spread.of(map(over_baseline, per_second["verified"], per_second["read"])),
        "of it",
        at_least(0.5),
        digest(rows),
        f"{rows:,} rows, of which the one that was changed is found;"
        f" the server held at most {memory:.0f} MiB",
    )


def verified(client: Client, wrong_id: int) -> VerifyCdrsResponse:
    """The last response, after one named difference: that of the CDR with this id."""
    differences: list[tuple[int, str]] = []
    last = VerifyCdrsResponse()
    for last in client.verify_cdrs():
        differences += [(one.cdr_id, one.field) for one in last.differences[: 3 - len(differences)]]
    agreed("what differs", str([(wrong_id, "cost")]), str(differences))
    assert last.done
    return last


def read_only(url: str) -> int:
    """Read all rows in parts; return their number."""
    rows = 0
    with filling.connected(url) as connection:
        after_id = 0
        while True:
            query = f"SELECT min(id) FROM cdrs WHERE id > {after_id}"
            (first_id,) = connection.execute(query).fetchone()
            if first_id is None:
                return rows
            after_id = first_id + PART_IDS - 1
            rows += _read_part(connection, first_id, after_id)


def _read_part(connection: filling.Connection, first_id: int, last_id: int) -> int:
    query = (
        f"SELECT {', '.join(COLUMNS)} FROM cdrs WHERE id BETWEEN {first_id} AND {last_id}"
        " ORDER BY id"
    )
    if isinstance(connection, sqlite3.Connection):
        return sum(1 for _ in connection.execute(query))
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT BINARY)") as copy:
            for _ in copy:
                pass
        return int(cursor.rowcount)


def _count_and_middle(url: str) -> tuple[int, int]:
    with filling.connected(url) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM cdrs").fetchone()
        query = f"SELECT id FROM cdrs WHERE status = 1 AND id >= {rows // 2} ORDER BY id LIMIT 1"
        (middle_id,) = connection.execute(query).fetchone()
    return int(rows), int(middle_id)


@contextmanager
def changed(url: str, cdr_id: int) -> Iterator[None]:
    """One CDR costs more than it should while the block runs."""
    database = Database(url)
    try:
        _add_to_cost(database, cdr_id, 1)
        yield
        _add_to_cost(database, cdr_id, -1)
    finally:
        database.close()


def _add_to_cost(database: Database, cdr_id: int, units: int) -> None:
    with database.write() as connection:
        triggers.drop(connection)
        connection.exec_driver_sql(
            f"UPDATE cdrs SET cost_units = cost_units + {units} WHERE id = {cdr_id}"
        )
        triggers.install(connection)
