"""The facts about a database that ``tollwire doctor`` and the metrics report. Changes nothing."""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from tollwire.service.storage import tokens
from tollwire.service.storage.dialects.sqlite_connection import local_file
from tollwire.service.storage.engine import Database
from tollwire.service.storage.refusals import parsed as parsed_url
from tollwire.service.storage.schema import migrate, triggers

# One for each thread that works on requests, and some more: see Database.
CONNECTIONS_A_WORKER = 32


@dataclass(frozen=True, slots=True)
class Answers:
    """The facts about a database. ``schema`` None: it is empty. ``clock_ahead_seconds``: by how
    much its clock is ahead of the clock of this machine; None if it has no clock of its own."""

    version: str
    schema: str | None
    needed_schema: str
    clock_ahead_seconds: float | None = None
    max_connections: int | None = None
    unsafe_settings: tuple[str, ...] = ()
    missing_triggers: tuple[tuple[str, str], ...] = ()
    defect: tuple[str, str] | None = None


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite database; None for another database."""
    parsed = parsed_url(url)
    return local_file(parsed) if parsed.get_backend_name() == "sqlite" else None


def free_bytes(file: Path) -> int:
    return shutil.disk_usage(file.absolute().parent).free


def file_sizes(file: Path) -> dict[str, int]:
    """The sizes in bytes of an SQLite database's file ("main") and of its log ("wal")."""
    log = file.with_name(f"{file.name}-wal")
    return {
        part: path.stat().st_size if path.exists() else 0
        for part, path in (("main", file), ("wal", log))
    }


def readable_by_everyone(file: Path) -> list[Path]:
    """The files of an SQLite database that every user of the machine may read."""
    parts = [file, *(file.with_name(f"{file.name}-{end}") for end in ("wal", "shm"))]
    return [one for one in parts if one.exists() and one.stat().st_mode & stat.S_IROTH]


def postgresql_bytes(connection: Connection) -> int:
    return int(
        connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
    )


def ask(database: Database) -> Answers:
    """Asks the database. SchemaError if it is not Tollwire's, or of a newer release."""
    schema, needed = migrate.state(database)
    with database.read() as connection:
        facts = database.dialect.describe(connection)
        missing = triggers.missing(connection) if schema == needed else []
    return Answers(
        facts.version,
        schema,
        needed,
        facts.clock_ahead_seconds,
        facts.max_connections,
        facts.unsafe_settings,
        tuple(missing),
        facts.defect,
    )


def had_tokens(database: Database) -> bool:
    """Whether a token exists, usable or not."""
    with database.read() as connection:
        return any(True for _ in tokens.after(connection, 0, include_revoked=True))


def has_tokens(database: Database, now_ns: int) -> bool:
    """Whether a usable token exists."""
    with database.read() as connection:
        found = tokens.after(connection, 0, include_revoked=False)
        return any(token.is_usable(now_ns) for token in found)
