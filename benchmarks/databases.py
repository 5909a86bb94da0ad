"""Databases for a run, and the bare tables that Tollwire's writes are compared with.

PostgreSQL is a server of its own with the settings as installed: what it acknowledges is on the
disk. SQLite's bare tables get the settings that the service gives its own.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg
from sqlalchemy import Index, MetaData, Table, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CheckConstraint, CreateIndex, CreateTable, DDLElement

from benchmarks.postgres_server import PostgresServer
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.schema import migrate, triggers
from tollwire.service.storage.schema.record_tables import CdrRow
from tollwire.service.storage.schema.tenant_tables import Base

KINDS = ("sqlite", "postgresql")
SQLITE_SETTINGS = ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536")
_POSTGRESQL_TYPES = {
    "BIGINT": "int8",
    "INTEGER": "int4",
    "SMALLINT": "int2",
    "TEXT": "text",
    "BOOLEAN": "bool",
}


class BareTable(Protocol):
    """A table, written to as fast as the driver can."""

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """One transaction, durable on return."""

    def scalar(self, query: str) -> Any:
        """The single value of a query's result."""


class _SqliteTable:
    def __init__(self, connection: sqlite3.Connection, name: str, columns: Sequence[str]) -> None:
        self._connection = connection
        self._insert = (
            f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        )

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._connection:
            self._connection.executemany(self._insert, rows)

    def scalar(self, query: str) -> Any:
        return self._connection.execute(query).fetchone()[0]


class _PostgresTable:
    def __init__(
        self, connection: psycopg.Connection, name: str, columns: Sequence[str], types: list[str]
    ) -> None:
        self._connection = connection
        self._copy = f"COPY {name} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)".encode()
        self._types = types

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        with (
            self._connection.transaction(),
            self._connection.cursor() as cursor,
            cursor.copy(self._copy) as copy,
        ):
            copy.set_types(self._types)
            for row in rows:
                copy.write_row(row)

    def scalar(self, query: str) -> Any:
        found = self._connection.execute(query.encode()).fetchone()
        assert found is not None
        return found[0]


class Databases:
    """The databases of a run: each is created at its first use and removed at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._postgres: PostgresServer | None = None

    @property
    def postgres(self) -> PostgresServer:
        if self._postgres is None:
            self._postgres = PostgresServer()
        return self._postgres

    @contextmanager
    def fresh(self, kind: str, template: str = "") -> Iterator[str]:
        """The URL of a database for Tollwire: empty, or a copy of one that ``keep`` created."""
        if kind == "sqlite":
            path = self._folder / f"bench-{next(self._numbers)}.db"
            if template:
                shutil.copy(template, path)
            yield f"sqlite:///{path}"
            for file in self._folder.glob(path.name + "*"):
                file.unlink()
        else:
            name = self.postgres.create(template or "template0")
            yield self.postgres.url(name)
            self.postgres.drop(name)

    @contextmanager
    def copied(self, kind: str, url: str) -> Iterator[str]:
        """The URL of a copy of a large database without connections."""
        source = make_url(url).database
        assert source is not None
        if kind == "sqlite":
            with self.fresh(kind, source) as copy:
                yield copy
        else:
            name = self.postgres.create(source, copy_files=True)
            yield self.postgres.url(name)
            self.postgres.drop(name)

    def keep(self, kind: str) -> tuple[str, str]:
        """A database that stays for the run: its URL, and its name as a template. It can be copied
        while it has no connections."""
        if kind == "sqlite":
            path = self._folder / f"kept-{next(self._numbers)}.db"
            return f"sqlite:///{path}", str(path)
        name = self.postgres.create()
        return self.postgres.url(name), name

    @contextmanager
    def bare_table(
        self, kind: str, table: Table, columns: Sequence[str], *, indexes: bool, ascending: str = ""
    ) -> Iterator[BareTable]:
        """A new table with ``columns`` of ``table`` in its own database: with the indexes and the
        primary key of the original, with the primary key ``ascending`` alone, or with neither. It
        has no checks and no triggers."""
        statements = _definition(kind, table, columns, indexes=indexes, ascending=ascending)
        with self.fresh(kind) as url, writing(url, table, columns, statements) as written:
            yield written

    def close(self) -> None:
        if self._postgres is not None:
            self._postgres.close()


@contextmanager
def writing(
    url: str, table: Table, columns: Sequence[str], before: Sequence[str] = ()
) -> Iterator[BareTable]:
    """A table in a database, for the driver alone. ``before``: statements to execute first."""
    if url.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            for setting in SQLITE_SETTINGS:
                connection.execute(f"PRAGMA {setting}")
            connection.execute("PRAGMA ignore_check_constraints = ON")
            for statement in before:
                connection.execute(statement)
            yield _SqliteTable(connection, table.name, columns)
        return
    with psycopg.connect(url.replace("+psycopg:", ":"), autocommit=True) as remote:
        for statement in before:
            remote.execute(statement.encode())
        types = [_POSTGRESQL_TYPES[str(table.c[column].type)] for column in columns]
        yield _PostgresTable(remote, table.name, columns, types)


@contextmanager
def unguarded(url: str) -> Iterator[None]:
    """The table of CDRs in a database of Tollwire's, without its checks and triggers, which are
    restored afterwards. (SQLite's checks cannot be removed; ``writing`` disables them.)"""
    database = Database(url)
    with database.write() as connection:
        triggers.drop(connection)
        checks = [] if database.is_sqlite else _checks(connection)
        for name, _ in checks:
            connection.exec_driver_sql(f"ALTER TABLE cdrs DROP CONSTRAINT {name}")
    try:
        yield
    finally:
        with database.write() as connection:
            for name, definition in checks:
                connection.exec_driver_sql(
                    f"ALTER TABLE cdrs ADD CONSTRAINT {name} {definition} NOT VALID"
                )
            triggers.install(connection)
        database.close()


def _checks(connection: Connection) -> list[tuple[str, str]]:
    found = connection.exec_driver_sql(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'cdrs'::regclass AND contype = 'c'"
    )
    return [(name, definition.removesuffix(" NOT VALID")) for name, definition in found]


def table_of(row: type[Base]) -> Table:
    """The table of a row's class."""
    table = row.__table__
    assert isinstance(table, Table)
    return table


def prepare(url: str) -> None:
    """Tollwire's schema, in an empty database."""
    database = Database(url)
    migrate.prepare(database)
    database.close()


def index_statements(kind: str) -> dict[str, str]:
    """The statements that create the secondary indexes of the table of CDRs, by index name."""
    made: list[Index] = sorted(table_of(CdrRow).indexes, key=lambda index: str(index.name))
    return {
        str(index.name): str(CreateIndex(index).compile(dialect=dialect(kind))) for index in made
    }


def dialect(kind: str) -> Any:
    return sqlite.dialect() if kind == "sqlite" else postgresql.dialect()  # type: ignore[no-untyped-call]


def _definition(
    kind: str, table: Table, columns: Sequence[str], *, indexes: bool, ascending: str
) -> list[str]:
    if not indexes:
        fields = [
            f"{name} {table.c[name].type.compile(dialect(kind))}"
            f"{'' if table.c[name].nullable else ' NOT NULL'}"
            for name in columns
        ]
        if ascending and ascending not in columns:  # SQLite creates it by itself
            fields.insert(0, f"{ascending} INTEGER NOT NULL")
        if ascending:
            fields.append(f"PRIMARY KEY ({ascending})")
        return [f"CREATE TABLE {table.name} ({', '.join(fields)})"]
    copy = table.to_metadata(MetaData())
    for constraint in [one for one in copy.constraints if isinstance(one, CheckConstraint)]:
        copy.constraints.discard(constraint)
    made: list[Index] = sorted(copy.indexes, key=lambda index: str(index.name))
    statements: list[DDLElement] = [CreateTable(copy), *map(CreateIndex, made)]
    return [str(statement.compile(dialect=dialect(kind))) for statement in statements]
