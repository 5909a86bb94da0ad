"""SQLite's engine: one writer, readers that never wait, and a file that must stay the same.

WAL, so that readers never wait for the writer; ``synchronous=FULL``, because a commit that was
acknowledged must survive a power cut (with NORMAL, WAL may lose the last commits); writes begin
with BEGIN IMMEDIATE, because a transaction that starts as a reader and then writes fails at once
with SQLITE_BUSY when another has written in between, whatever the timeout.

SQLite does not notice that its file was moved away or replaced: it goes on writing to a file that
has no name any more, and all of that is gone when the last process closes it. So each transaction
looks whether the name still stands for the file of the beginning.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from tollwire.service.domain.case_folding import holds
from tollwire.service.domain.errors import FailedPrecondition, Reason, Unavailable
from tollwire.service.domain.thread_context import current_work
from tollwire.service.storage.limits import limits, over, stop_if_over

# The name of ``holds`` in SQL.
HOLDS_FUNCTION = "tollwire_holds"
# A URI may name what is no file of this machine: whoever writes one looks after it.
_URI = "file:"
# While another process writes. Shorter takes more of a core: this is a twentieth of one.
_LOOK_AGAIN_SECONDS = 0.001
# Of its virtual machine, some milliseconds of work: whoever looks needs Python's lock.
_STEPS_BETWEEN_LOOKS = 100_000


class DatabaseFile:
    """The file that a name stood for when it was first looked at."""

    def __init__(self, path: str) -> None:
        self._path = None if path.startswith(_URI) else Path(path)
        self._identity: tuple[int, int] | None = None

    def check(self) -> None:
        """Unavailable where the file is gone, FailedPrecondition where it is another one."""
        if self._path is None:
            return
        try:
            found = self._path.stat()
        except OSError as error:
            if self._identity is None:
                return  # SQLite may be about to make it, or will say what is wrong
            raise Unavailable(
                Reason.DATABASE_UNAVAILABLE,
                "the database's file is gone; nothing was changed, put it back and try again",
            ) from error
        if self._identity is None:
            self._identity = (found.st_dev, found.st_ino)
        elif self._identity != (found.st_dev, found.st_ino):
            raise FailedPrecondition(
                Reason.DATABASE_UNUSABLE,
                "the database's file is not the one that the server started with; nothing was"
                " changed, put that one back or start the server again",
            )


def sqlite_engine(url: URL, pool_size: int, wait_seconds: float) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        # And one to see whether the database answers.
        max_overflow=pool_size + 1,
        pool_timeout=wait_seconds,
        connect_args={"timeout": wait_seconds, "check_same_thread": False},
        # The values of a failed statement would stand in the log, and callers' numbers are
        # personal data.
        hide_parameters=True,
    )
    file = DatabaseFile(url.database or "")

    @event.listens_for(engine, "do_connect")
    def _before_connect(*_: Any) -> None:
        file.check()  # SQLite would make an empty one

    @event.listens_for(engine, "connect")
    def _set_up(driver: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: it does so late, and only for writes.
        driver.isolation_level = None
        cursor = driver.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA recursive_triggers = ON")
        cursor.execute("PRAGMA cache_size = -65536")
        cursor.close()
        driver.create_function(HOLDS_FUNCTION, 2, holds, deterministic=True)
        # Within a statement: SQLite asks the thread that waits for it.
        driver.set_progress_handler(_is_over, _STEPS_BETWEEN_LOOKS)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        file.check()
        is_writing = connection.get_execution_options().get("is_writing", False)
        mode = "IMMEDIATE" if is_writing else "DEFERRED"
        lock_seconds = limits(current_work(), wait_seconds).lock_seconds
        _begin_in_turn(connection.connection.driver_connection, mode, lock_seconds)

    return engine


def _is_over() -> int:
    """1 ends the statement."""
    return int(over() is not None)


def _begin_in_turn(driver: Any, mode: str, lock_seconds: float) -> None:
    """Begins a transaction, and waits so long for another process that writes.

    SQLite's own way to wait soon looks ten times a second, and a process whose writers follow each
    other leaves the lock free for less than a millisecond: others would hardly ever find it so.
    Wherever else SQLite waits, it does so in its own way.
    """
    deadline = time.monotonic() + lock_seconds
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while not _begun(driver, mode, deadline):
            stop_if_over()
            time.sleep(_LOOK_AGAIN_SECONDS)
    finally:
        driver.execute(f"PRAGMA busy_timeout = {round(lock_seconds * 1000)}")


def _begun(driver: Any, mode: str, deadline: float) -> bool:
    """False where another process writes and there is time left to wait for it."""
    try:
        driver.execute(f"BEGIN {mode}")
    except sqlite3.OperationalError as error:
        busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        if not busy or time.monotonic() >= deadline:
            raise
        return False
    return True
