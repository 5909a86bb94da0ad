"""The two databases, as the targets of the measurement of layouts."""

from __future__ import annotations

import sqlite3
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import psutil
import psycopg

from benchmarks import filling
from benchmarks.databases import Databases
from benchmarks.filling import Connection
from benchmarks.layouts import Layout
from tollwire.service.storage.cdr_rows import ROW_FIELDS

# The fields of a row to write, in this order.
COLUMNS = ("id", *ROW_FIELDS)

_CALL_ID_SIZE = 32
# A row as PostgreSQL's COPY data, priced and UNRATED.
_HEADER = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"
_KEY_COLUMNS = ("tenant_id", "call_id", "cdr_id")


class Target(Protocol):
    """A database with the table, to write rows to."""

    @property
    def connection(self) -> Connection: ...

    def execute(self, statement: str) -> Any: ...

    def write(self, rows: Sequence[tuple[Any, ...]], layout: Layout) -> Callable[[], None]:
        """One transaction that writes these prepared rows."""

    def settle(self) -> None:
        """Do now what the database would do later."""

    def log_bytes(self) -> int:
        """Bytes of log written so far; 0 if unknown."""

    def processor_seconds(self) -> float: ...

    def sizes(self) -> str: ...


@contextmanager
def target(databases: Databases, kind: str) -> Iterator[Target]:
    with databases.fresh(kind) as url, filling.connected(url) as connection:
        if isinstance(connection, sqlite3.Connection):
            yield _Sqlite(connection)
        else:
            assert isinstance(connection, psycopg.Connection)
            yield _Postgresql(connection)


class _Sqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def execute(self, statement: str) -> Any:
        return self.connection.execute(statement)

    def write(self, rows: Sequence[tuple[Any, ...]], layout: Layout) -> Callable[[], None]:
        columns = list(COLUMNS)
        if layout.hashed:
            columns.append("call_hash")
            at = columns.index("call_id")
            rows = sorted(
                ((*row, bytes.fromhex(row[at])) for row in rows), key=lambda row: bytes(row[-1])
            )
        insert = f"INSERT INTO cdrs ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"

        def write() -> None:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(insert, rows)
            self.connection.execute("COMMIT")

        return write

    def settle(self) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def log_bytes(self) -> int:
        return 0

    def processor_seconds(self) -> float:
        return time.process_time()

    def sizes(self) -> str:
        found = self.connection.execute(
            "SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY name"
        )
        return _sizes(dict(found.fetchall()))


class _Postgresql:
    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection

    def execute(self, statement: str) -> Any:
        return self.connection.execute(statement.encode())

    def write(self, rows: Sequence[tuple[Any, ...]], layout: Layout) -> Callable[[], None]:
        data = _copy_data(rows)
        keys = _keys_data(rows) if layout.keyed else b""

        def write() -> None:
            with self.connection.transaction(), self.connection.cursor() as cursor:
                if keys:
                    self._copy(cursor, f"cdr_keys ({', '.join(_KEY_COLUMNS)})", keys)
                self._copy(cursor, f"cdrs ({', '.join(COLUMNS)})", data)

        return write

    def _copy(self, cursor: psycopg.Cursor, into: str, data: bytes) -> None:
        with cursor.copy(f"COPY {into} FROM STDIN (FORMAT BINARY)".encode()) as copy:
            copy.write(data)

    def settle(self) -> None:
        self.connection.execute("CHECKPOINT")

    def log_bytes(self) -> int:
        found = self.connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        assert found is not None
        return int(found[0])

    def processor_seconds(self) -> float:
        times = psutil.Process(self.connection.info.backend_pid).cpu_times()
        return float(times.user + times.system)

    def sizes(self) -> str:
        found = self.connection.execute(
            "SELECT regexp_replace(relname, '_[0-9]+', ''), sum(pg_relation_size(oid))"
            " FROM pg_class WHERE relkind IN ('r', 'i') AND relname LIKE '%cdr%' GROUP BY 1"
        )
        return _sizes(dict(found.fetchall()))


def _sizes(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {int(size) / 1e6:,.0f} MB" for name, size in sorted(found.items()))


# q: 8 bytes, i: 4, h: 2, Ns: text. A field that is NULL has the length -1 and no content.
def _struct(priced: bool) -> struct.Struct:
    return struct.Struct(
        ">h"
        + "iq" * 2
        + f"i{_CALL_ID_SIZE}s"
        + "iq"
        + "i12s" * 2
        + "ihihiiiq"
        + "i"
        + "ih"
        + ("i" + "iqiqiiiq" if priced else "ih" + "iiii")
        + "iq" * 3
        + "ih"
    )


_PRICED, _UNRATED = _struct(True), _struct(False)


def _copy_data(rows: Sequence[tuple[Any, ...]]) -> bytes:
    parts = [_HEADER]
    for row in rows:
        (
            n,
            tenant,
            call_id,
            extension,
            caller,
            number,
            direction,
            disposition,
            duration,
            started,
            _,
            status,
            reason,
            bill,
            units,
            fraction,
            version,
            revision,
            upload,
            created,
            generation,
        ) = row
        begin = (
            21,
            8,
            n,
            8,
            tenant,
            _CALL_ID_SIZE,
            call_id.encode(),
            8,
            extension,
            12,
            caller.encode(),
            12,
            number.encode(),
            2,
            direction,
            2,
            disposition,
            4,
            duration,
            8,
            started,
            -1,
            2,
            status,
        )
        end = (8, revision, 8, upload, 8, created, 2, generation)
        if reason is None:
            parts.append(_PRICED.pack(*begin, -1, 8, bill, 8, units, 4, fraction, 8, version, *end))
        else:
            parts.append(_UNRATED.pack(*begin, 2, reason, -1, -1, -1, -1, *end))
    return b"".join((*parts, b"\xff\xff"))


_KEY = struct.Struct(f">hiqi{_CALL_ID_SIZE}siq")


def _keys_data(rows: Sequence[tuple[Any, ...]]) -> bytes:
    keys = [_KEY.pack(3, 8, row[1], _CALL_ID_SIZE, row[2].encode(), 8, row[0]) for row in rows]
    return b"".join((_HEADER, *keys, b"\xff\xff"))
