"""Fresh databases for tests, on SQLite and on PostgreSQL, each a copy of a template.

A template is migrated once for a run of tests. The databases are in memory where the machine has
enough of it: no test asserts that they survive a power cut.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from sqlalchemy import make_url

from benchmarks.postgres_server import PostgresServer
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema.migrate import prepare

KINDS = ["sqlite"]
if os.environ.get("TOLLWIRE_TEST_POSTGRES", "1") != "0":
    KINDS.append("postgresql")

# Adds rows to a new database.
Fill = Callable[[Database], object]

_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 2 * 2**30


def _parent() -> Path | None:
    """The folder for databases; None for the usual one for temporary files."""
    try:
        return _MEMORY if shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES else None
    except OSError:
        return None


class FreshDatabases:
    """The databases of a run of tests. A database is known by its URL."""

    def __init__(self) -> None:
        self._closing = ExitStack()
        parent = _parent()
        self._folder = Path(
            self._closing.enter_context(
                tempfile.TemporaryDirectory(prefix="tollwire-test-", dir=parent)
            )
        )
        # The URLs of the templates by the kind of the database and what was added to it.
        self._templates: dict[tuple[str, Fill | None], str] = {}

    @cached_property
    def postgres(self) -> PostgresServer:
        """The PostgreSQL server of the run; it starts at the first use."""
        server = self._closing.enter_context(PostgresServer(_parent()))
        # No test needs these databases after a power cut, and no database lives for long.
        off = dict.fromkeys(
            ("fsync", "full_page_writes", "synchronous_commit", "autovacuum"), "off"
        )
        server.change_settings(off | {"max_wal_size": "128MB"})
        return server

    def create(self, kind: str, fill: Fill | None = None) -> str:
        """The URL of a new database with the schema of this release and the rows of ``fill``."""
        template = self._template(kind, fill)
        if kind == "sqlite":
            url = self.create_empty(kind)
            shutil.copy(_file(template), _file(url))
            return url
        name = self.postgres.create(database_name(template), copy_files=True)
        return self.postgres.url(name)

    def create_empty(self, kind: str) -> str:
        """The URL of a new database without tables."""
        if kind == "sqlite":
            # A folder for each: a test may move the file.
            return f"sqlite:///{tempfile.mkdtemp(dir=self._folder)}/tollwire.db"
        return self.postgres.url(self.postgres.create(copy_files=True))

    def drop(self, url: str) -> None:
        if url.startswith("sqlite:"):
            shutil.rmtree(_file(url).parent)
        else:
            self.postgres.drop(database_name(url))

    def close(self) -> None:
        self._closing.close()

    def _template(self, kind: str, fill: Fill | None) -> str:
        url = self._templates.get((kind, fill))
        if url is None:
            url = self.create_empty(kind) if fill is None else self.create(kind)
            database = Database(url)
            if fill is None:
                prepare(database)
            else:
                fill(database)
            database.close()
            self._templates[kind, fill] = url
        return url


def database_name(url: str) -> str:
    """The name of the database at ``url``."""
    return str(make_url(url).database)


def _file(url: str) -> Path:
    return Path(database_name(url))
