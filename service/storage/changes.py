"""How workers detect that other workers have changed what they hold in memory.

Each kind of thing that they hold has a clock: a table of one row, which every change raises within
its own transaction. A worker that compares this number with its own cannot miss a change.

A worker without work sleeps until something tells of a commit: a notification of PostgreSQL, or a
write to the log of an SQLite file (``Dialect.wakeups``). It also looks once a second, so a change
that nothing told of is found. Where nothing can tell, it polls many times a second: behind a
connection pooler, unless a second URL leads to a session of its own, and on systems without
inotify.
"""

from __future__ import annotations

import logging
import math
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Engine

from tollwire.service.domain.thread_context import Work, doing
from tollwire.service.storage.dialects.base import Wakeups
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.engine import Database

_LOG = logging.getLogger("tollwire.database")

# The longest sleep of a worker that is told of commits.
IDLE_SECONDS = 1.0
# The longest pause between two looks while commits follow each other.
SETTLE_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Clock:
    """The ``table`` with the number, the ``channel`` of its notifications, and the poll interval
    where nothing tells of commits; 0 is the shortest one of the database."""

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
        self._poll_seconds = max(clock.poll_seconds, self._dialect.least_poll_seconds)
        # The driver's own connection: a query takes microseconds, without a transaction.
        self._connection, self._driver = _own_connection(database.engine)
        # The connection that is told of commits, and what tells; None if nothing does.
        self._told: tuple[Connection, Any] | None = None
        self._wakeups: Wakeups | None = None
        # Until when a commit that was told of may not show yet, and the pause between looks until
        # then.
        self._settles_at = -math.inf
        self._settle_poll_seconds = self._poll_seconds
        try:
            self._be_told(database, clock)
        except BaseException:
            self.close()
            raise

    def _be_told(self, database: Database, clock: Clock) -> None:
        if database.session_engine is not None:
            try:
                self._told = _own_connection(database.session_engine)
            except Exception as error:
                # The other connection still polls.
                _LOG.warning("changes are not notified for now: %s", str(error).splitlines()[0])
        elif self._dialect.can_wake(self._driver):
            self._told = self._connection, self._driver
        if self._told is not None:
            try:
                with doing(Work.LOOK):
                    self._wakeups = self._dialect.wakeups(self._told[1], clock.channel)
            except OSError as error:
                _LOG.warning("changes are found by polling: %s", error)

    def wait(self, closing: socket.socket) -> None:
        """Wait until it is time to look again, or until ``closing`` is readable."""
        now = time.monotonic()
        settles = now < self._settles_at
        if self._wakeups is not None and self._wakeups.drain():
            self._settles_at = now + self._wakeups.settle_seconds
            if not settles:
                self._settle_poll_seconds = self._poll_seconds
                return
        if self._wakeups is None:
            _wait_for([closing], self._poll_seconds)
        elif settles:
            # Also between many commits: what tells of each would keep this thread awake. Most are
            # of this worker, and change nothing that it follows.
            _wait_for([closing], self._settle_poll_seconds)
            self._settle_poll_seconds = max(
                self._poll_seconds, min(2 * self._settle_poll_seconds, SETTLE_POLL_SECONDS)
            )
        else:
            _wait_for([closing, self._wakeups], IDLE_SECONDS)

    def has_moved(self, known_seq: int) -> bool:
        """Whether a change above ``known_seq`` is committed."""
        # The files of an SQLite database still exist.
        self._dialect.confirm(self._connection)
        commits = self._dialect.commits_of_others(self._driver)
        if commits is not None and commits == self._commits:
            return False
        found = self._change_seq()
        # Stored only now: if the query fails, the next look repeats it.
        self._commits = commits
        if found > known_seq:
            self._settle_poll_seconds = self._poll_seconds
        return found > known_seq

    def close(self) -> None:
        if self._wakeups is not None:
            self._wakeups.close()
        for connection, driver in filter(None, ((self._connection, self._driver), self._told)):
            connection.close()
            # If the database is unavailable, SQLAlchemy does not close a detached connection.
            driver.close()

    def _change_seq(self) -> int:
        # A connection that does not answer must not stop this worker from following. A failed look
        # also tells that the database is unavailable, so it must fail soon.
        with doing(Work.PING):
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


def _wait_for(readable: Iterable[socket.socket | Wakeups], seconds: float) -> None:
    # Not select(), which knows the first 1,024 descriptors of the process only.
    poll = select.poll()
    for one in readable:
        poll.register(one.fileno(), select.POLLIN)
    poll.poll(seconds * 1000)
