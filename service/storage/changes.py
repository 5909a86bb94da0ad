"""How workers detect that other workers have changed what they hold in memory.

Each kind of thing that they hold has a clock: a table of one row, which every change raises within
its own transaction. A worker that compares this number with its own cannot miss a change.
PostgreSQL also notifies of each commit (NOTIFY), and a worker polls for lost notifications; on
SQLite a query takes microseconds, so a worker only polls. Behind a connection pooler there are no
notifications, unless a second URL leads to a session of its own.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Engine

from tollwire.service.domain.thread_context import Work, doing
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.engine import Database

_LOG = logging.getLogger("tollwire.database")


@dataclass(frozen=True, slots=True)
class Clock:
    """The ``table`` with the number, the ``channel`` of its notifications, and the poll interval; 0
    is the shortest one of the database."""

    table: str
    channel: str
    poll_seconds: float = 0.0

    def notify(self, connection: Connection) -> None:
        """Notify other workers once this transaction is committed."""
        dialect_of(connection).notify(connection, self.channel)


class ChangeWatch:
    """Detects that a clock has moved, many times a second, on a connection of its own.

    Belongs to one thread. After an exception it cannot be used: close it and open another.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._dialect = database.dialect
        self._commits: int | None = None
        self._query = f"SELECT change_seq FROM {clock.table}"
        self.poll_seconds = max(clock.poll_seconds, self._dialect.least_poll_seconds)
        # The driver's own connection: a query takes microseconds, without a transaction.
        self._connection, self._driver = _own_connection(database.engine)
        # The connection that listens; None if there is none.
        self._listening: tuple[Connection, Any] | None = None
        try:
            self._listen(database, clock)
        except BaseException:
            self.close()
            raise

    def _listen(self, database: Database, clock: Clock) -> None:
        if database.session_engine is not None:
            try:
                self._listening = _own_connection(database.session_engine)
            except Exception as error:
                # The other connection still polls.
                _LOG.warning("changes are not notified for now: %s", str(error).splitlines()[0])
        elif self._dialect.can_listen(self._driver):
            self._listening = self._connection, self._driver
        if self._listening is not None:
            with doing(Work.LOOK):
                self._dialect.listen(self._listening[1], clock.channel)

    def wait(self, stop: threading.Event, seconds: float) -> None:
        """Wait until it is time to look again: at most ``seconds``, or until ``stop`` if there are
        no notifications."""
        if self._listening is None:
            stop.wait(seconds)
        else:
            self._dialect.wait_for_notification(self._listening[1], seconds)

    def has_moved(self, known_seq: int) -> bool:
        """Whether a change above ``known_seq`` is committed."""
        commits = self._dialect.commits_of_others(self._driver)
        if commits is not None and commits == self._commits:
            return False
        found = self._change_seq()
        # Stored only now: if the query fails, the next look repeats it.
        self._commits = commits
        return found > known_seq

    def close(self) -> None:
        for connection, driver in filter(None, ((self._connection, self._driver), self._listening)):
            connection.close()
            # If the database is unavailable, SQLAlchemy does not close a detached connection.
            driver.close()

    def _change_seq(self) -> int:
        # A connection that does not answer must not stop this worker from following.
        with doing(Work.LOOK):
            ((found,),) = self._driver.execute(self._query).fetchall()
        return int(found)


def _own_connection(engine: Engine) -> tuple[Connection, Any]:
    """A connection that leaves the pool, and the driver's own one. Each statement on the driver's
    is a transaction."""
    with doing(Work.LOOK):
        connection = engine.connect()
    driver = cast(Any, connection.connection.driver_connection)
    connection.detach()
    return connection, driver
