"""Connections and transactions: the one module that knows how each database wants them.

A unit of work is ``with database.read() as connection:`` or ``with database.write() as
connection:``. A write commits at the end of the block and rolls back on any exception. Nothing
outside keeps a connection.

SQLite: WAL, so that readers never wait for the writer; ``synchronous=FULL``, because a commit that
was acknowledged must survive a power cut (with NORMAL, WAL may lose the last commits); writes begin
with BEGIN IMMEDIATE, because a transaction that starts as a reader and then writes fails at once
with SQLITE_BUSY when another has written in between, whatever the timeout. Within a process a lock
hands the writers their turn, which is fair where SQLite's own busy handler polls.

PostgreSQL: READ COMMITTED; every invariant that spans rows is held by a row lock or by a unique
index.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

# Connection is also for the subjects, which hand it on from one storage function to the next.
from sqlalchemy import Connection as Connection
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service.errors import Reason, Unavailable
from service.storage.ids import Blocks

# Longer than any chunk takes, shorter than a client's patience.
BUSY_TIMEOUT_SECONDS = 30
# The values of a failed statement would stand in the log, and callers' numbers are personal data.
_HIDE_PARAMETERS = True


class Database:
    """The engine of one database and the units of work on it. Thread-safe."""

    def __init__(self, url: str, *, pool_size: int = 16) -> None:
        """``url`` is SQLAlchemy's: ``sqlite:///file`` or ``postgresql+psycopg://…``."""
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise ValueError(
                f"database: {backend!r} is not supported; use sqlite:///FILE or"
                " postgresql+psycopg://USER@HOST/NAME"
            )
        self.is_sqlite = backend == "sqlite"
        self._writer_turn = threading.Lock()
        if self.is_sqlite:
            self.engine = _sqlite_engine(url, pool_size)
        else:
            self.engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_timeout=BUSY_TIMEOUT_SECONDS,
                pool_pre_ping=True,
                isolation_level="READ COMMITTED",
                connect_args={"connect_timeout": 5},
                # For service.storage.ids.
                execution_options={"id_blocks": Blocks()},
                hide_parameters=_HIDE_PARAMETERS,
            )

    @contextmanager
    def read(self, kept: Connection | None = None) -> Iterator[Connection]:
        """A transaction for reading: on SQLite one consistent snapshot."""
        with _named_failures(), self._connected(kept, "DEFERRED") as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, kept: Connection | None = None) -> Iterator[Connection]:
        """A transaction for writing. Commits at the block's end, rolls back on an exception."""
        if not self.is_sqlite:
            with _named_failures(), self._connected(kept, "") as connection, connection.begin():
                yield connection
            return
        if not self._writer_turn.acquire(timeout=BUSY_TIMEOUT_SECONDS):
            raise _unavailable("the database is busy with other writes")
        try:
            with (
                _named_failures(),
                self._connected(kept, "IMMEDIATE") as connection,
                connection.begin(),
            ):
                yield connection
        finally:
            self._writer_turn.release()

    @contextmanager
    def keep(self) -> Iterator[Connection]:
        """One connection for several ``read`` and ``write`` in a row, which share its temporary
        tables. Outside of them it is in no transaction."""
        with _named_failures(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def _connected(self, kept: Connection | None, sqlite_begin: str) -> Iterator[Connection]:
        if kept is None:
            with self.engine.connect() as connection:
                yield connection.execution_options(sqlite_begin=sqlite_begin)
        else:
            yield kept.execution_options(sqlite_begin=sqlite_begin)

    def close(self) -> None:
        self.engine.dispose()


def _sqlite_engine(url: str, pool_size: int) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        hide_parameters=_HIDE_PARAMETERS,
    )

    @event.listens_for(engine, "connect")
    def _set_up(dbapi_connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: it does so late, and only for writes.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA recursive_triggers = ON")
        cursor.execute("PRAGMA cache_size = -65536")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


def _unavailable(message: str) -> Unavailable:
    return Unavailable(
        Reason.DATABASE_UNAVAILABLE, f"{message}; nothing was changed, try again later"
    )


# The bulk paths go past SQLAlchemy, and so do their failures.
_DRIVER_FAILURES = (psycopg.OperationalError, psycopg.InterfaceError, sqlite3.OperationalError)


@contextmanager
def _named_failures() -> Iterator[None]:
    """The database away, locked or full is a named failure; all else is a defect and passes."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError, *_DRIVER_FAILURES) as error:
        if _is_wrong_sql(error):
            raise
        raise _unavailable("the database does not answer") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise _unavailable("the connection to the database was lost") from error
        raise


def _is_wrong_sql(error: Exception) -> bool:
    """SQLite's driver has no exception of its own for a statement that is wrong in itself."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return (
        isinstance(cause, sqlite3.OperationalError)
        and cause.sqlite_errorcode == sqlite3.SQLITE_ERROR
    )
