"""The engine of SQLite: one writer, readers that never wait, and a file that must stay the same.

WAL, so that readers never wait for the writer; ``synchronous=FULL``, because an acknowledged commit
must survive a power cut (with NORMAL, WAL may lose the last commits). Writes begin with BEGIN
IMMEDIATE: a transaction that starts as a reader and then writes fails at once with SQLITE_BUSY if
another one has written in between, whatever the timeout.

SQLite does not detect that its file, or the log beside it, was moved, deleted or replaced: it
writes on to a file without a name, and the data is lost if the server is killed. So each
transaction checks at its beginning, and before it is acknowledged, that the paths still lead to the
files that this process has open. The last connection to close deletes the log and its index; nobody
else may, so they are checked while the pool has a connection.

The files hold personal data. A new database can be read by its owner alone; SQLite gives the log
and its index the mode of the database.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from tollwire.service.domain.case_folding import holds
from tollwire.service.domain.errors import FailedPrecondition, Reason, Unavailable
from tollwire.service.domain.thread_context import current_work, over, stop_if_over
from tollwire.service.storage.limits import limits

# The mode of files with personal data.
_OWNER_ONLY = 0o600
# In ``Connection.info``: the DatabaseFiles of the connection.
FILES = "files"
# The name of ``holds`` in SQL.
HOLDS_FUNCTION = "tollwire_holds"
_URI = "file:"
# What the names of the log and of its index end with.
_LOGS = ("-wal", "-shm")
_Identity = tuple[int, int]
_LOG_ADVICE = (
    "put it back, or stop all servers with SIGTERM: the last connection writes the log into the"
    " database"
)
# Parameters of a URI with which it may name something other than a local file.
_OTHER_PLACES = {"vfs", "immutable"}
# The pause between attempts to begin while another process writes. It takes a twentieth of a core.
_RETRY_SECONDS = 0.001
# Steps of SQLite's virtual machine: below a millisecond, or tens where a search folds each text.
# A check needs Python's global lock.
_STEPS_BETWEEN_CHECKS = 10_000


def local_file(url: URL) -> Path:
    """The file of a database."""
    path = url.database or ""
    is_uri = path.startswith(_URI) and "uri" in url.query
    return Path(unquote(urlsplit(path).path) if is_uri else path)


class DatabaseFiles:
    """The file that the path led to at the first check, and the log and its index that the
    connections of one pool have open. Thread-safe."""

    def __init__(self, url: URL) -> None:
        file = local_file(url)
        self._is_checked = not _OTHER_PLACES & set(url.query)
        self._may_create = self._is_checked and url.query.get("mode", "rwc") == "rwc"
        self._file = str(file)
        self._logs = tuple(f"{file}{end}" for end in _LOGS)
        self._identity: _Identity | None = None
        self._lock = threading.Lock()
        self._connections = 0
        self._log_identities: tuple[_Identity | None, ...] = ()

    def create(self) -> None:
        """Create an empty database for this user alone, before the first connection, if the file
        does not exist. SQLite would let every user read it."""
        if not self._may_create or self._identity is not None:
            return
        with contextlib.suppress(OSError):  # it exists, or SQLite reports what is wrong
            os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))

    def check(self, then: str = "nothing was changed") -> None:
        """Unavailable if a file does not exist, FailedPrecondition if it is another one.
        ``then``: what is known about the transaction."""
        if not self._is_checked:
            return
        found = _identity_of(self._file)
        if self._identity is None:
            self._identity = found  # None: SQLite creates it, or reports what is wrong
        elif found is None:
            raise Unavailable(
                Reason.DATABASE_UNAVAILABLE,
                f"the database's file is gone; {then}, put it back and try again",
            )
        elif found != self._identity:
            raise FailedPrecondition(
                Reason.DATABASE_UNUSABLE,
                "the database's file is not the one that the server started with;"
                f" {then}, put that one back or start the server again",
            )
        self._check_logs(then)

    def check_that_the_log_exists(self) -> None:
        """FailedPrecondition if the index of a log exists and the log does not: a process that
        closes the database deletes the index first."""
        if not self._is_checked or self._connections:
            return
        log, index = self._logs
        if _identity_of(log) is None and _identity_of(index) and _identity_of(log) is None:
            raise FailedPrecondition(
                Reason.DATABASE_UNUSABLE,
                f"the file {Path(log).name} of the database is gone, but {Path(index).name} exists;"
                " nothing was changed, put it back, or stop all servers with SIGTERM; if none runs,"
                f" its records are lost, and the rest opens without {Path(index).name}",
            )

    def opened(self) -> None:
        """Call it when a connection has opened the log."""
        if not self._is_checked:
            return
        with self._lock:
            if not self._connections:
                self._log_identities = tuple(map(_identity_of, self._logs))
            self._check_logs("nothing was changed")
            self._connections += 1

    def closing(self) -> None:
        """Call it before a connection of ``opened`` closes."""
        if not self._is_checked:
            return
        with self._lock:
            self._connections -= 1
            if not self._connections:
                self._log_identities = ()

    def _check_logs(self, then: str) -> None:
        expected = self._log_identities
        for path, identity in zip(self._logs, expected, strict=False):
            # None: a database that is only read may have no log.
            if identity is None or (found := _identity_of(path)) == identity:
                continue
            if self._log_identities is not expected:
                return  # the last connection has closed
            raise (
                Unavailable(
                    Reason.DATABASE_UNAVAILABLE,
                    f"the file {Path(path).name} of the database is gone; {then}, {_LOG_ADVICE}",
                )
                if found is None
                else FailedPrecondition(
                    Reason.DATABASE_UNUSABLE,
                    f"the file {Path(path).name} of the database is not the one that the server"
                    f" has open; {then}, {_LOG_ADVICE}",
                )
            )


def _identity_of(path: str) -> _Identity | None:
    """None if the file does not exist."""
    try:
        found = os.stat(path)  # noqa: PTH116  each transaction calls it
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Answer:
    """The answer of the database that a connection waits for. SQLite has no limit for the time that
    it takes, but calls a function while it works."""

    def __init__(self, wait_seconds: float) -> None:
        self.began_at = 0.0
        self._wait_seconds = wait_seconds

    def is_over(self) -> int:
        """Whether to end the statement: 1 or 0. SQLite calls it within a statement, in the thread
        that waits."""
        seconds = limits(current_work(), self._wait_seconds).answer_seconds
        return int(time.monotonic() - self.began_at > seconds or over() is not None)


class _Connection(sqlite3.Connection):
    def __init__(self, database: str, timeout: float, **options: Any) -> None:
        self.answer = _Answer(timeout)
        super().__init__(database, timeout, **options)

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(_Cursor if factory is None else factory)

    def execute(self, *arguments: Any) -> Any:
        return self.cursor().execute(*arguments)


class _Cursor(sqlite3.Cursor):
    """Notes when each statement begins."""

    connection: _Connection

    def execute(self, *arguments: Any) -> Any:
        self.connection.answer.began_at = time.monotonic()
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        self.connection.answer.began_at = time.monotonic()
        return super().executemany(*arguments)

    def fetchmany(self, *arguments: Any) -> Any:
        # What has read the part before may have taken long.
        self.connection.answer.began_at = time.monotonic()
        return super().fetchmany(*arguments)


def sqlite_engine(url: URL, pool_size: int, wait_seconds: float) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        # One more for the health check.
        max_overflow=pool_size + 1,
        pool_timeout=wait_seconds,
        connect_args={
            "timeout": wait_seconds,
            "check_same_thread": False,
            "factory": _Connection,
        },
        # The log must not contain the values of a failed statement: callers' numbers are personal
        # data.
        hide_parameters=True,
    )
    files = DatabaseFiles(url)

    @event.listens_for(engine, "do_connect")
    def _before_connect(*_: Any) -> None:
        files.create()
        files.check()  # SQLite would create an empty one
        files.check_that_the_log_exists()

    @event.listens_for(engine, "connect")
    def _set_up(driver: Any, record: Any) -> None:
        # The driver must not begin transactions: it begins them late, and only for writes.
        driver.isolation_level = None
        cursor = driver.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA recursive_triggers = ON")
        cursor.execute("PRAGMA cache_size = -65536")
        cursor.close()
        driver.create_function(HOLDS_FUNCTION, 2, holds, deterministic=True)
        driver.set_progress_handler(driver.answer.is_over, _STEPS_BETWEEN_CHECKS)
        # The first query opens the log.
        driver.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        files.opened()
        record.info[FILES] = files

    @event.listens_for(engine, "close")
    def _before_close(_driver: Any, record: Any) -> None:
        if record.info.pop(FILES, None) is not None:
            files.closing()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        files.check()
        options = connection.get_execution_options()
        is_writing = options.get("is_writing", False)
        driver: Any = connection.connection.driver_connection
        mode = "IMMEDIATE" if is_writing else "DEFERRED"
        lock_seconds = limits(current_work(), wait_seconds).lock_seconds
        _begin_when_free(driver, mode, lock_seconds)

    return engine


def _begin_when_free(driver: Any, mode: str, lock_seconds: float) -> None:
    """Begins a transaction. Waits ``lock_seconds`` at most for another process that writes.

    SQLite's own busy handler soon polls ten times a second, and a process with many writers leaves
    the lock free for less than a millisecond, so other processes would rarely get it. Other waits
    of SQLite use the busy handler.
    """
    deadline = time.monotonic() + lock_seconds
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while not _begun(driver, mode, deadline):
            stop_if_over()
            time.sleep(_RETRY_SECONDS)
    finally:
        driver.execute(f"PRAGMA busy_timeout = {round(lock_seconds * 1000)}")


def _begun(driver: Any, mode: str, deadline: float) -> bool:
    """False if another process writes and the deadline has not passed."""
    try:
        driver.execute(f"BEGIN {mode}")
    except sqlite3.OperationalError as error:
        busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        if not busy or time.monotonic() >= deadline:
            raise
        return False
    return True
