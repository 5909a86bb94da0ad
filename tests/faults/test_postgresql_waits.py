"""Every wait for PostgreSQL is limited: a slow statement, a lock, a silent connection."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import _copy, connection, cursor, transaction
from psycopg import _server_cursor as server_cursor
from sqlalchemy import text

from benchmarks.postgres_server import PostgresServer
from tests.faults.proxy import Proxy
from tollwire.service.domain.errors import Reason, Unavailable
from tollwire.service.domain.thread_context import Work
from tollwire.service.storage.engine import Database
from tollwire.service.storage.failures import UNKNOWN_OUTCOME

WAIT_SECONDS = 0.5
# Longer than any limit of the service, shorter than the test's own.
HANGS = "SELECT pg_sleep(60)"


@pytest.fixture
def database(postgres: PostgresServer, name: str, proxy: Proxy) -> Iterator[Database]:
    with postgres.connect(name) as own:
        own.execute("CREATE TABLE kept (id int PRIMARY KEY)")
    database = Database(postgres.url(name, proxy.port), wait_seconds=WAIT_SECONDS)
    assert count(database) == 0
    yield database
    database.close()


def count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(text("SELECT count(*) FROM kept")).scalar_one())


def add(database: Database, row: int) -> None:
    with database.write() as connection:
        connection.execute(text("INSERT INTO kept VALUES (:row)"), {"row": row})


def fails(work: Any, *words: str) -> None:
    with pytest.raises(Unavailable) as caught:
        work()
    assert caught.value.reason == Reason.DATABASE_UNAVAILABLE
    for expected in words:
        assert expected in caught.value.message


def test_a_slow_statement_is_ended_on_the_server_as_well(
    database: Database, postgres: PostgresServer, name: str
) -> None:
    def work() -> None:
        with database.read() as connection:
            connection.execute(text(HANGS))

    fails(work, "takes too long", "nothing was changed")
    with postgres.connect(name) as own:
        active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
        assert own.execute(active + " AND state = 'active'").fetchone() == (0,)
    assert count(database) == 0


def test_the_kind_of_work_determines_the_limit(database: Database) -> None:
    with database.read(work=Work.LONG) as connection:
        connection.execute(text(f"SELECT pg_sleep({WAIT_SECONDS * 3})"))
    limits = {}
    for work in Work:
        with database.read(work=work) as connection:
            limits[work] = connection.execute(text("SHOW statement_timeout")).scalar_one()
    assert limits[Work.LOOK] == "250ms"
    assert limits[Work.ORDINARY] == "500ms"
    assert limits[Work.LONG] == "30s"


def test_the_wait_for_a_lock_is_limited(
    database: Database, postgres: PostgresServer, name: str
) -> None:
    with postgres.connect(name, autocommit=False) as other:
        other.execute("INSERT INTO kept VALUES (1)")
        fails(lambda: add(database, 1), "locked", "nothing was changed")
        other.rollback()
    add(database, 1)
    assert count(database) == 1


# Each is another kind of wait in the driver.
STATEMENTS: dict[str, Callable[[Any], Any]] = {
    "a statement": lambda driver: driver.execute(HANGS),
    "rows": lambda driver: driver.execute("SELECT * FROM generate_series(1, 100000000)"),
    "a cursor's rows": lambda driver: fetch(driver),
    "copied rows": lambda driver: copy_out(driver),
    "rows to copy": lambda driver: copy_in(driver),
    "a notification": lambda driver: [*driver.notifies(timeout=WAIT_SECONDS), driver.execute(";")],
}


def fetch(driver: Any) -> None:
    with driver.cursor("named") as cursor:
        cursor.execute("SELECT pg_sleep(0.01) FROM generate_series(1, 9000)")
        cursor.fetchall()


def copy_out(driver: Any) -> None:
    query = "COPY (SELECT generate_series(1, 100000000)) TO STDOUT"
    with driver.cursor() as cursor, cursor.copy(query) as copy:
        for _ in copy:
            pass


def copy_in(driver: Any) -> None:
    with driver.cursor() as cursor, cursor.copy("COPY kept FROM STDIN") as copy:
        copy.write(b"1\n")
        time.sleep(WAIT_SECONDS / 2)  # the database accepts it, and does not answer


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_half_open_connection_is_closed(database: Database, proxy: Proxy, statement: str) -> None:
    """In the middle of a statement the peer falls silent, while the connection stays open."""

    def work() -> None:
        with database.write() as connection:
            # Otherwise the server may send something just before it falls silent.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            silence = threading.Timer(WAIT_SECONDS / 4, proxy.swallow)
            silence.start()
            try:
                STATEMENTS[statement](connection.connection.driver_connection)
            finally:
                silence.join()

    fails(work, "does not answer", "nothing was changed")
    proxy.restore()
    assert count(database) == 0


def test_silent_connections_of_the_pool_are_replaced(database: Database, proxy: Proxy) -> None:
    with database.read(), database.read(), database.read():
        pass
    proxy.swallow()
    fails(lambda: count(database), "does not answer")
    proxy.restore()
    assert count(database) == 0


def test_a_database_that_refuses_connections_comes_back(database: Database, proxy: Proxy) -> None:
    proxy.drop()
    fails(lambda: count(database), "does not answer")
    proxy.restore()
    assert count(database) == 0


def test_a_commit_without_an_answer_is_not_reported_as_failed(
    database: Database, proxy: Proxy
) -> None:
    proxy.cut_answer(rb"COMMIT\0")
    fails(lambda: add(database, 7), UNKNOWN_OUTCOME)
    assert proxy.cuts == 1
    assert count(database) == 1, "the proxy cuts after the commit"


def test_locks_of_a_lost_client_are_released(
    database: Database, proxy: Proxy, postgres: PostgresServer, name: str
) -> None:
    """The server does not notice that its client is gone: it ends the transaction by itself."""

    def work() -> None:
        with database.write() as connection:
            connection.execute(text("INSERT INTO kept VALUES (1)"))
            proxy.swallow()
            connection.execute(text("SELECT 1"))

    fails(work)
    with postgres.connect(name) as other:
        # Waits for the transaction that holds the lock.
        other.execute("SET lock_timeout = '20s'")
        other.execute("INSERT INTO kept VALUES (1)")


def test_a_standby_is_no_defect(database: Database, postgres: PostgresServer, name: str) -> None:
    with postgres.connect(name) as own:
        own.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database.close()
    fails(lambda: add(database, 1), "takes no changes")
    with postgres.connect(name) as own:
        own.execute("SET default_transaction_read_only = off")
        own.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    database.close()
    add(database, 1)


def test_the_driver_has_no_other_waits() -> None:
    """The limit holds for ``Connection.wait``; this test finds any other way to wait."""
    for module in (_copy, connection, cursor, server_cursor, transaction):
        source = inspect.getsource(module)
        direct = [line.strip() for line in source.splitlines() if "waiting.wait" in line]
        # Connecting and cancelling have limits of their own; the others are in Connection.wait.
        assert len(direct) == (4 if module is connection else 0), (module.__name__, direct)
