"""How workers see that others have changed what they keep in memory.

Each kind of thing that they keep has a clock: a table of one row, which every change raises within
its own transaction. A worker that compares this number with its own cannot miss a change.
PostgreSQL also notifies of each commit (NOTIFY); SQLite cannot, but a query there takes
microseconds. On PostgreSQL workers poll for the notifications that are lost. Behind a connection
pooler there are no notifications, unless a second URL leads to a session of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Engine

from tollwire.service.domain.thread_context import Work, doing
from tollwire.service.storage.engine import Database

_LOG = logging.getLogger("tollwire.database")


@dataclass(frozen=True, slots=True)
class Clock:
    """The ``table`` with the number, the ``channel`` on which PostgreSQL tells, and how often to
    ask each database."""

    table: str
    channel: str
    poll_seconds: Mapping[str, float]

    def tell(self, connection: Connection) -> None:
        """Let PostgreSQL tell of this transaction once it is committed."""
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"NOTIFY {self.channel}")


class ChangeWatch:
    """Sees whether a clock has moved, many times a second, on a connection of its own.

    Belongs to one thread. After an exception it is of no more use: close it and open another.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._is_sqlite = database.is_sqlite
        self._data_version: int | None = None
        self._query = f"SELECT change_seq FROM {clock.table}"
        self.poll_seconds = clock.poll_seconds[database.engine.dialect.name]
        # The driver's own connection: it asks in microseconds, and without a transaction.
        self._connection, self._driver = _own_connection(database.engine)
        # The connection that hears of commits; None where the database cannot tell.
        self._told: tuple[Connection, Any] | None = None
        try:
            if not self._is_sqlite:
                self._listen(database, clock)
        except BaseException:
            self.close()
            raise

    def _listen(self, database: Database, clock: Clock) -> None:
        if database.session_engine is not None:
            try:
                self._told = _own_connection(database.session_engine)
            except Exception as error:
                # Whether anything has changed is asked on the other connection.
                _LOG.warning("changes are not notified for now: %s", str(error).splitlines()[0])
        elif not self._driver.is_pooled:
            self._told = self._connection, self._driver
        if self._told is not None:
            with doing(Work.LOOK):
                self._told[1].execute(f"LISTEN {clock.channel}")

    def wait(self, stop: threading.Event, seconds: float) -> None:
        """Wait until it is time to look again: at most so long, or until ``stop`` where the
        database cannot tell of a change."""
        if self._told is None:
            stop.wait(seconds)
        else:
            for _ in self._told[1].notifies(timeout=seconds, stop_after=1):
                pass

    def has_moved(self, known_seq: int) -> bool:
        """Whether a change above ``known_seq`` is committed."""
        if not self._is_sqlite:
            return self._change_seq() > known_seq
        # data_version differs as soon as another connection has committed anything.
        ((data_version,),) = self._driver.execute("PRAGMA data_version").fetchall()
        if data_version == self._data_version:
            return False
        found = self._change_seq()
        # Remembered only now: a change that could not be looked at is looked at again.
        self._data_version = data_version
        return found > known_seq

    def close(self) -> None:
        for connection, driver in filter(None, ((self._connection, self._driver), self._told)):
            connection.close()
            # Where the database is gone, SQLAlchemy leaves a detached connection as it is.
            driver.close()

    def _change_seq(self) -> int:
        # A connection that says nothing any more must not stop this worker from following.
        with doing(Work.LOOK):
            ((found,),) = self._driver.execute(self._query).fetchall()
        return int(found)


def _own_connection(engine: Engine) -> tuple[Connection, Any]:
    """A connection that nobody else ever gets: it hears what it was told to listen to. And the
    driver's, on PostgreSQL without a transaction."""
    with doing(Work.LOOK):
        connection = engine.connect()
    if connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="AUTOCOMMIT")
    driver = cast(Any, connection.connection.driver_connection)
    connection.detach()
    return connection, driver
