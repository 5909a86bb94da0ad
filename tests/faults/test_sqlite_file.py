"""An SQLite file that is locked, full, read-only, deleted or replaced."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from tollwire.service.domain.errors import FailedPrecondition, Reason, TollwireError, Unavailable
from tollwire.service.domain.thread_context import Work
from tollwire.service.storage.engine import Database

WAIT_SECONDS = 0.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tollwire.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with contextlib.closing(sqlite3.connect(path)) as own:
        own.execute("PRAGMA journal_mode = WAL")
        own.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY, words TEXT)")
    database = Database(f"sqlite:///{path}", wait_seconds=WAIT_SECONDS)
    add(database, 1)
    yield database
    database.close()


def add(database: Database, row: int, words: str = "") -> None:
    with database.write() as connection:
        connection.execute(
            text("INSERT INTO kept VALUES (:row, :words)"), {"row": row, "words": words}
        )


def rows(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.execute(text("SELECT id FROM kept ORDER BY id")).scalars())


def fails(work: Callable[[], Any], kind: type[TollwireError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        work()
    unusable = kind is FailedPrecondition
    assert caught.value.reason == (
        Reason.DATABASE_UNUSABLE if unusable else Reason.DATABASE_UNAVAILABLE
    )
    for expected in words:
        assert expected in caught.value.message


def test_the_wait_for_another_process_is_limited(database: Database, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        fails(lambda: add(database, 2), Unavailable, "locked", "nothing was changed")
        assert rows(database) == [1], "readers do not wait"
        other.execute("ROLLBACK")
    add(database, 2)
    assert rows(database) == [1, 2]


def test_a_process_that_writes_all_the_time_does_not_starve_others(
    database: Database, path: Path
) -> None:
    """It releases the lock for moments only, between the instants at which SQLite would try by
    itself: 228 ms after the wait begins, and then every 100 ms."""
    held, enough = threading.Event(), threading.Event()

    def write_on() -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as own:
            own.execute("BEGIN IMMEDIATE")
            held.set()
            time.sleep(0.268)
            while not enough.is_set():
                own.execute("COMMIT")
                time.sleep(0.02)
                own.execute("BEGIN IMMEDIATE")
                time.sleep(0.08)

    other = threading.Thread(target=write_on)
    other.start()
    try:
        assert held.wait(20)
        with contextlib.closing(Database(f"sqlite:///{path}", wait_seconds=1)) as patient:
            add(patient, 2)
    finally:
        enough.set()
        other.join()
    assert rows(database) == [1, 2]


def test_other_locks_have_the_same_limit(database: Database) -> None:
    """For example the file's log, by another process that recovers it."""
    for unit, work, milliseconds in (
        (database.write, Work.ORDINARY, 400),
        (database.read, Work.ORDINARY, 400),
        (database.read, Work.LONG, 24_000),
    ):
        with unit(work=work) as connection:
            found = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        assert found == milliseconds


def test_a_full_disk(database: Database) -> None:
    """SQLite's own limit of a file's pages: as on a full disk, there is no space for another
    one."""

    def bound(pages: int) -> None:
        database.close()  # for new connections, which have the limit

        @event.listens_for(database.engine, "connect")
        def _bound(driver: Any, _record: Any) -> None:
            driver.execute(f"PRAGMA max_page_count = {pages}")

    bound(2)
    fails(lambda: add(database, 2, "x" * 100_000), Unavailable, "full", "nothing was changed")
    assert rows(database) == [1]
    bound(2**30)
    add(database, 2, "x" * 100_000)
    assert rows(database) == [1, 2]


def test_a_file_that_cannot_be_written(database: Database, path: Path) -> None:
    # The file's mode would allow it: these tests may run as root.
    read_only = Database(f"sqlite:///file:{path}?mode=ro&uri=true", wait_seconds=WAIT_SECONDS)
    fails(lambda: add(read_only, 2), FailedPrecondition, "cannot be written")
    assert rows(read_only) == [1]
    read_only.close()


@pytest.mark.parametrize("url", ["sqlite:///{}", "sqlite:///file:{}?uri=true"])
def test_only_the_owner_can_read_a_new_file_and_its_log(tmp_path: Path, url: str) -> None:
    file = tmp_path / "new file.db"
    before = os.umask(0)
    try:
        with (
            contextlib.closing(Database(url.format(file))) as new,
            new.write() as connection,
        ):
            connection.execute(text("CREATE TABLE kept (id INTEGER PRIMARY KEY)"))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {f"new file.db{end}": 0o600 for end in ("", "-wal", "-shm")}


def test_a_file_that_exists_keeps_its_mode(database: Database, path: Path) -> None:
    """Its owner may want others to read it."""
    database.close()
    path.chmod(0o640)
    add(database, 2)
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o640}


def test_a_file_that_must_exist_is_not_created(tmp_path: Path) -> None:
    with contextlib.closing(Database(f"sqlite:///file:{tmp_path}/no.db?mode=rw&uri=true")) as none:
        fails(lambda: rows(none), Unavailable, "cannot be opened")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_missing_for_a_while(database: Database, path: Path) -> None:
    away = path.with_name("away.db")
    path.rename(away)
    fails(lambda: add(database, 2), Unavailable, "gone", "nothing was changed")
    fails(lambda: rows(database), Unavailable, "gone")
    database.close()
    fails(lambda: add(database, 2), Unavailable, "gone")
    assert not path.exists(), "an empty one was created in its place"
    away.rename(path)
    add(database, 2)
    assert rows(database) == [1, 2]


def test_a_file_that_was_replaced(database: Database, path: Path) -> None:
    other = path.with_name("other.db")
    shutil.copy(path, other)
    os.replace(other, path)  # noqa: PTH105  as mv does
    fails(lambda: add(database, 2), FailedPrecondition, "not the one", "nothing was changed")
    fails(lambda: rows(database), FailedPrecondition, "not the one")
    with contextlib.closing(sqlite3.connect(path)) as own:
        assert own.execute("SELECT count(*) FROM kept").fetchone() == (1,)


LOGS = ("-wal", "-shm")


@pytest.mark.parametrize("end", LOGS)
def test_a_log_that_is_deleted(database: Database, path: Path, end: str) -> None:
    path.with_name(path.name + end).unlink()
    fails(lambda: add(database, 2), Unavailable, f"db{end} of the", "gone", "nothing was changed")
    fails(lambda: rows(database), Unavailable, "gone")
    fails(database_with_more_connections(database), Unavailable, "gone")
    assert not path.with_name(path.name + end).exists(), "a new one was created in its place"
    database.close()  # as at SIGTERM
    with contextlib.closing(Database(f"sqlite:///{path}")) as again:
        assert rows(again) == [1], "the last connection wrote the log into the database"
        add(again, 2)


def database_with_more_connections(database: Database) -> Callable[[], object]:
    def use() -> None:
        with database.engine.connect(), database.engine.connect():
            pass

    return use


@pytest.mark.parametrize("end", LOGS)
def test_a_log_that_is_away_for_a_while(database: Database, path: Path, end: str) -> None:
    log, away = path.with_name(path.name + end), path.with_name("away")
    log.rename(away)
    fails(lambda: add(database, 2), Unavailable, "gone")
    away.rename(log)
    add(database, 2)
    assert rows(database) == [1, 2]


@pytest.mark.parametrize("end", LOGS)
def test_a_log_that_was_replaced(database: Database, path: Path, end: str) -> None:
    log = path.with_name(path.name + end)
    shutil.copy(log, path.with_name("other"))
    path.with_name("other").replace(log)
    fails(lambda: add(database, 2), FailedPrecondition, "not the one", "nothing was changed")
    fails(lambda: rows(database), FailedPrecondition, "not the one")


@pytest.mark.parametrize("end", ["", *LOGS])
def test_a_file_that_goes_during_a_transaction(database: Database, path: Path, end: str) -> None:
    def add_and_lose() -> None:
        with database.write() as connection:
            connection.execute(text("INSERT INTO kept VALUES (2, '')"))
            path.with_name(path.name + end).unlink()

    fails(add_and_lose, Unavailable, "gone", "not known")


def test_another_process_does_not_begin_a_log_in_place_of_a_deleted_one(
    database: Database, path: Path
) -> None:
    """As a worker that replaces a killed one. It would append to the middle of an empty log."""
    path.with_name(f"{path.name}-wal").unlink()
    with contextlib.closing(Database(f"sqlite:///{path}")) as other:
        fails(lambda: rows(other), FailedPrecondition, "db-wal of the database is gone")
    assert not path.with_name(f"{path.name}-wal").exists()


def test_the_last_connection_may_delete_the_log(database: Database, path: Path) -> None:
    for row in (2, 3):
        database.close()
        assert not path.with_name(f"{path.name}-wal").exists()
        add(database, row)
    assert rows(database) == [1, 2, 3]


def test_connections_that_come_and_go(path: Path, database: Database) -> None:
    """The pool closes the connections that it does not keep, and other processes theirs."""
    wrong: list[Exception] = []

    def use(start: int) -> None:
        try:
            for row in range(start, start + 20):
                with contextlib.closing(Database(f"sqlite:///{path}", pool_size=1)) as own:
                    add(own, row)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=use, args=(100 * number,)) for number in range(1, 4)]
    database.close()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(rows(database)) == 61


def test_a_damaged_file(database: Database, path: Path) -> None:
    database.close()  # which also leaves all content in the one file
    with path.open("r+b") as file:
        file.write(b"\xff" * 4096)
    fails(lambda: rows(database), FailedPrecondition, "no database")


@pytest.mark.parametrize("pragma, value", [("synchronous", 2), ("journal_mode", "wal")])
def test_every_connection_writes_durably(database: Database, pragma: str, value: Any) -> None:
    with database.read() as first, database.read() as second:
        for connection in (first, second):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value
