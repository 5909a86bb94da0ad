"""Fixtures that all tests share: a fresh, migrated database, on SQLite and on PostgreSQL.

Each test that uses ``database_url`` or ``database`` runs twice. PostgreSQL is a real server in a
temporary folder; if it cannot start, its tests fail. TOLLWIRE_TEST_POSTGRES=0 leaves them out.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from benchmarks.postgres_server import PostgresServer
from tests.databases import KINDS, Fill, FreshDatabases
from tests.slow import is_quick, is_slow
from tests.statement_cache import share_compiled_statements
from tests.world import World
from tollwire.service.observability.logs import Lines
from tollwire.service.storage.engine import Database

share_compiled_statements()
# Servers that do not state it have one worker, whatever machine runs the tests: they start sooner,
# and the tests read the memory and the state of one process.
os.environ.setdefault("TOLLWIRE_WORKERS", "1")


@pytest.fixture(scope="session")
def databases() -> Iterator[FreshDatabases]:
    databases = FreshDatabases()
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def postgres(databases: FreshDatabases) -> PostgresServer:
    return databases.postgres


@pytest.fixture
def fill() -> Fill | None:
    """Adds rows to fresh databases, which otherwise hold the schema only.

    A module whose tests all need the same rows overrides this: they are added once a run, to the
    template of the module's databases.
    """
    return None


@pytest.fixture(params=KINDS)
def database_url(
    request: pytest.FixtureRequest, databases: FreshDatabases, fill: Fill | None
) -> Iterator[str]:
    """The URL of a fresh database with the schema of this release."""
    url = databases.create(request.param, fill)
    yield url
    databases.drop(url)


@pytest.fixture(params=KINDS)
def empty_database_url(request: pytest.FixtureRequest, databases: FreshDatabases) -> Iterator[str]:
    """The URL of a fresh database without tables."""
    url = databases.create_empty(request.param)
    yield url
    databases.drop(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh database with the schema of this release."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def world(database: Database) -> World:
    """All subjects over a fresh database."""
    return World.over(database)


@pytest.fixture
def payer(world: World) -> int:
    """A tenant with a rate for prefix 44: 0.0200 a minute, in steps of 6 seconds."""
    tenant_id = world.tenant()
    world.rate(tenant_id, "44", 200, 6, destination="UK")
    return tenant_id


@pytest.fixture
def other(world: World) -> Iterator[World]:
    """Another worker on the same database."""
    database = Database(world.database.engine.url.render_as_string(hide_password=False))
    yield World.over(database)
    database.close()


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Restores the configuration of the log after a test (a command in this process changes it)."""
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, Lines):
            root.removeHandler(handler)
            root.setLevel(logging.WARNING)
            logging.captureWarnings(False)
            sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


# The slowest files, each on one processor: begun last, they would leave the others idle.
_LONG_FILES = {
    *("test_packaging.py", "test_torture.py", "test_backup.py", "test_endurance.py"),
    *("test_fuzzing.py", "test_stateful.py", "test_reversals.py", "test_scrape.py"),
    *("test_usage.py", "test_ledger.py", "test_verification.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)
        if is_quick(item.nodeid):
            item.add_marker(pytest.mark.quick)
    items.sort(key=lambda item: item.path.name not in _LONG_FILES)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The properties that tests record (``record_property``), a line each."""
    for report in terminalreporter.getreports("passed"):
        for name, told in report.user_properties:
            terminalreporter.write_line(f"{name}: {told}")
