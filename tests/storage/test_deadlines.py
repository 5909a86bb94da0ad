"""Work ends with its client: the statements of a request end with it, in the database too.

The database may wait for minutes here. A test whose work is not interrupted reaches its own time
limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tollwire.service.domain.errors import Reason, TollwireError, TooLate, Unavailable, Unwanted
from tollwire.service.domain.request import Request
from tollwire.service.domain.thread_context import Work, handling, regardless
from tollwire.service.storage.engine import Database
from tollwire.service.storage.limits import seconds_left

WAIT_SECONDS = 120.0
SOON_SECONDS = 0.3
LONG = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
}


class Client:
    """Waits for this time, or until it is cancelled."""

    def __init__(self, seconds: float | None = None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds
        self.is_there = True

    def remaining_seconds(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def request(self) -> Request:
        return Request(remaining_seconds=self.remaining_seconds, is_wanted=lambda: self.is_there)

    def leave_soon(self) -> None:
        def leave() -> None:
            self.is_there = False

        timer = threading.Timer(SOON_SECONDS, leave)
        timer.daemon = True
        timer.start()


def impatient() -> Client:
    return Client(SOON_SECONDS)


def gone_soon() -> Client:
    client = Client()
    client.leave_soon()
    return client


ENDS: list[tuple[Callable[[], Client], type[TollwireError], Reason]] = [
    (impatient, TooLate, Reason.DEADLINE_EXCEEDED),
    (gone_soon, Unwanted, Reason.CANCELLED),
]
each_end = pytest.mark.parametrize(
    ("client", "failure", "reason"), ENDS, ids=["deadline", "cancelled"]
)


@pytest.fixture
def patient(database_url: str) -> Iterator[Database]:
    database = Database(database_url, pool_size=2, wait_seconds=WAIT_SECONDS)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE kept (id INTEGER PRIMARY KEY, note INTEGER)"))
        connection.execute(text("INSERT INTO kept VALUES (1, 0)"))
    yield database
    database.close()


def notes(database: Database) -> list[int]:
    with database.read() as connection:
        return [row[0] for row in connection.execute(text("SELECT note FROM kept ORDER BY id"))]


def change(connection: Any) -> None:
    connection.execute(text("UPDATE kept SET note = note + 1 WHERE id = 1"))


@each_end
@pytest.mark.parametrize("work", [Work.ORDINARY, Work.LONG])
def test_a_statement_ends_with_its_client(
    patient: Database,
    client: Callable[[], Client],
    failure: type[TollwireError],
    reason: Reason,
    work: Work,
) -> None:
    statement = LONG[patient.engine.dialect.name]
    with (
        pytest.raises(failure) as caught,
        handling(client().request()),
        patient.write(work=work) as connection,
    ):
        change(connection)
        connection.execute(text(statement))
    assert caught.value.reason == reason
    # Its changes are rolled back, and its connection works as before.
    assert notes(patient) == [0]
    with patient.write() as connection:
        change(connection)
    assert notes(patient) == [1]


@each_end
def test_a_wait_for_a_lock_ends_with_its_client(
    patient: Database,
    database_url: str,
    client: Callable[[], Client],
    failure: type[TollwireError],
    reason: Reason,
) -> None:
    """Another process holds it: on SQLite the lock of all writers."""
    other = Database(database_url)
    with other.write() as connection:
        change(connection)
        with (
            pytest.raises(failure) as caught,
            handling(client().request()),
            patient.write() as mine,
        ):
            change(mine)
        assert caught.value.reason == reason
    other.close()
    assert notes(patient) == [1]


@each_end
def test_a_wait_for_another_writer_ends_with_its_client(
    patient: Database,
    client: Callable[[], Client],
    failure: type[TollwireError],
    reason: Reason,
) -> None:
    """A writer of the same process."""
    is_in, may_go = threading.Event(), threading.Event()

    def write() -> None:
        with patient.write() as connection:
            change(connection)
            is_in.set()
            may_go.wait(WAIT_SECONDS)

    writer = threading.Thread(target=write)
    writer.start()
    is_in.wait(WAIT_SECONDS)
    with (
        pytest.raises(failure) as caught,
        handling(client().request()),
        patient.write() as connection,
    ):
        change(connection)
    may_go.set()
    writer.join()
    assert caught.value.reason == reason
    assert notes(patient) == [1]


@each_end
def test_a_wait_for_a_connection_ends_with_its_client(
    patient: Database,
    client: Callable[[], Client],
    failure: type[TollwireError],
    reason: Reason,
) -> None:
    with ExitStack() as taken:
        for _ in range(4):
            taken.enter_context(patient.keep())
        taken.enter_context(handling(client().request()))
        with pytest.raises(failure) as caught:
            notes(patient)
    assert caught.value.reason == reason
    assert notes(patient) == [0]


def test_long_work_leaves_connections_to_the_rest(database_url: str) -> None:
    """The limit is three quarters of the connections, 3 of 4 here."""
    database = Database(database_url, pool_size=2, wait_seconds=SOON_SECONDS)
    with (
        database.read(work=Work.LONG),
        database.read(work=Work.LONG),
        database.read(work=Work.LONG),
    ):
        with pytest.raises(Unavailable, match="all connections"), database.read(work=Work.LONG):
            pytest.fail("a fourth connection was available")
        with database.read() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
    with database.read(work=Work.LONG) as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    database.close()


def test_no_work_begins_for_a_client_that_has_left(patient: Database) -> None:
    client = Client()
    client.is_there = False
    with handling(client.request()):
        for unit in (patient.read, patient.write, patient.snapshot):
            with pytest.raises(Unwanted), unit():
                pytest.fail("the unit of work was begun")
        with handling(Client(0).request()), pytest.raises(TooLate), patient.read():
            pytest.fail("the unit of work was begun")


def test_uncommitted_work_is_rolled_back_when_the_client_leaves(patient: Database) -> None:
    client = Client()
    with handling(client.request()), pytest.raises(Unwanted), patient.write() as connection:
        change(connection)
        client.is_there = False
    assert notes(patient) == [0]


def test_a_commit_is_not_interrupted(patient: Database) -> None:
    """Otherwise the outcome would be unknown."""
    asked = 0

    def is_wanted() -> bool:
        nonlocal asked
        asked += 1
        return asked < last

    last = 1_000_000
    with handling(Request(is_wanted=is_wanted)), patient.write() as connection:
        change(connection)
    # The last check comes just before the commit.
    last, asked = asked + 1, 0
    with handling(Request(is_wanted=is_wanted)), patient.write() as connection:
        change(connection)
    assert notes(patient) == [2]
    last, asked = last - 1, 0
    with (
        handling(Request(is_wanted=is_wanted)),
        pytest.raises(Unwanted),
        patient.write() as connection,
    ):
        change(connection)
    assert notes(patient) == [2]


def test_a_client_that_waits_long_enough_gets_the_answer(patient: Database) -> None:
    with handling(Client(WAIT_SECONDS).request()):
        assert notes(patient) == [0]


def test_some_work_does_not_depend_on_a_client(patient: Database) -> None:
    with handling(Client(0).request()), regardless():
        assert seconds_left(7.0) == 7.0
        assert notes(patient) == [0]
    with handling(Client(WAIT_SECONDS).request()):
        assert seconds_left(7.0) == 7.0
        assert seconds_left(1000.0) <= WAIT_SECONDS


def test_a_statement_ends_at_the_limit_of_its_work(database_url: str) -> None:
    """Also without a client that waits, and so without a deadline."""
    database = Database(database_url, pool_size=2, wait_seconds=SOON_SECONDS)
    statement = text(LONG[database.engine.dialect.name])
    for unit in (database.read, database.write):
        with pytest.raises(Unavailable, match="takes too long"), unit() as connection:
            connection.execute(statement)
    with database.read() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    database.close()


def test_a_clients_long_work_ends_at_its_limit(database_url: str) -> None:
    """With the status that does not invite a retry, which would take as long."""
    database = Database(database_url, pool_size=2, wait_seconds=SOON_SECONDS / Work.LONG.value)
    with (
        pytest.raises(TooLate, match="longer than the server allows"),
        handling(Request(id="one")),
        database.read(work=Work.LONG) as connection,
    ):
        connection.execute(text(LONG[database.engine.dialect.name]))
    database.close()


def test_the_time_between_two_answers_of_sqlite_does_not_count(tmp_path: Path) -> None:
    """Statements that bypass SQLAlchemy are timed too, each on its own."""
    count = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT i FROM n"
    )
    some, many = count.format(20_000), count.format(50_000_000)
    database = Database(f"sqlite:///{tmp_path}/t.db", pool_size=2, wait_seconds=SOON_SECONDS)
    with database.read() as connection:
        driver: Any = connection.connection.driver_connection
        for run in (
            lambda: driver.execute(some).fetchall(),
            lambda: driver.cursor().execute(some).fetchall(),
            lambda: database.dialect.driver_rows(connection, some, ()),
        ):
            time.sleep(SOON_SECONDS)
            assert len(run()) == 20_000
        with database.dialect.parts(connection, some) as parts:
            for part in parts:
                assert part
                time.sleep(SOON_SECONDS / 20)
    with pytest.raises(Unavailable, match="takes too long"), database.read() as connection:
        database.dialect.driver_rows(connection, many, ())
    database.close()
