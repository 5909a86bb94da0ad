"""PostgreSQL's engine: connections on which no wait is without end.

The server is told the limits with each BEGIN, in the same message, so they cost no round trip and
hold behind a pooler too. They cannot help where the server is not heard: a connection whose peer is
gone without a word, or a proxy that takes all and forwards nothing. Keepalives find the first; the
second looks like a server that thinks. psycopg waits in slices of a tenth of a second in the thread
that asked, so that thread itself looks at the clock, gives up and closes the connection. No other
thread is needed that would shut down a socket which may be another's by then. The same thread sees
there that its client is gone, and asks the server to break the statement off.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from time import monotonic
from typing import Any, ClassVar, TypeVar

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

from tollwire.service.domain.thread_context import Work, current_work, doing, regardless
from tollwire.service.storage.limits import Limits, connect_seconds, limits, over, seconds_left

T = TypeVar("T")

# libpq's, for peers that are gone: the first probe after idle seconds, the others at intervals.
# tcp_user_timeout is for what was sent and is not acknowledged. None has a meaning on Unix sockets.
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_AFTER_DEADLINE_SECONDS = 0.05
# For the server to hear that a statement is to be broken off, and then to do so.
_END_SECONDS = 2.0


def postgresql_engine(url: URL, pool_size: int, wait_seconds: float) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        # And one to see whether the database answers.
        max_overflow=pool_size + 1,
        pool_timeout=wait_seconds,
        # Transactions begin in the listener below, and with them their limits.
        isolation_level="AUTOCOMMIT",
        connect_args={"connect_timeout": connect_seconds(wait_seconds), **_KEEPALIVE},
        # The values of a failed statement would stand in the log, and callers' numbers are
        # personal data.
        hide_parameters=True,
    )
    answers = {work: limits(work, wait_seconds) for work in Work}
    begins = {
        work: _begin_statement(limit, limit.answer_seconds) for work, limit in answers.items()
    }

    class Bounded(BoundedConnection):
        limits_of = answers

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, args: Any, options: Any) -> Any:
        driver = Bounded.connect(*args, **options)
        try:
            driver.look_for_a_pooler()
        except BaseException:
            driver.close()
            raise
        return driver

    @event.listens_for(engine, "checkout")
    def _ping(driver: Any, _record: Any, _fairy: Any) -> None:
        try:
            # A pooler whose sessions are all in use lets it wait as it does with any statement.
            with doing(Work.ORDINARY if driver.is_pooled else Work.PING), regardless():
                driver.execute(";")
        except psycopg.Error as error:
            raise InvalidatePoolError from error

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        work = current_work()
        limit = answers[work]
        left = seconds_left(limit.answer_seconds)
        if left < limit.answer_seconds:
            # A little longer, so that what it ends has come too late by then.
            statement = _begin_statement(limit, left + _AFTER_DEADLINE_SECONDS)
        else:
            statement = begins[work]
        connection.exec_driver_sql(statement)

    return engine


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which every wait ends: after how long is its class's to say."""

    limits_of: ClassVar[Mapping[Work, Limits]]
    # Whether a connection pooler answers, which may give each transaction another session: no
    # prepared statement, no LISTEN and no setting of a session outlives its transaction.
    is_pooled = False

    def look_for_a_pooler(self) -> None:
        """To be called once, before anything else. A pooler makes up the process id that it gives
        to its client, which is then not that of the process that answers."""
        self.autocommit = True
        ((pid,),) = self.execute("SELECT pg_backend_pid()").fetchall()
        self.is_pooled = pid != self.info.backend_pid
        if self.is_pooled:
            self.prepare_threshold = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """All that psycopg waits for on an open connection goes through here."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """``gen``, which waits for the socket with each ``yield`` and is sent what has happened
        there, or after a tenth of a second that nothing has."""
        limit = self.limits_of[current_work()].silence_seconds
        until = monotonic() + limit
        is_ending = False
        try:
            wanted = next(gen)
            while True:
                happened = yield wanted
                if monotonic() > until:
                    # Whatever comes after all would be taken for the answer to the next question.
                    self.close()
                    raise psycopg.OperationalError(f"no answer within {limit:g} s")
                if not happened and not is_ending and over() is not None:
                    is_ending = True
                    until = monotonic() + _END_SECONDS
                    self._break_off()
                wanted = gen.send(happened)
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _break_off(self) -> None:
        """The server answers a statement that it breaks off with an error, which is waited for."""
        try:
            self.cancel_safe(timeout=_END_SECONDS)
        except psycopg.Error:
            self.close()
            raise

    # What settles a transaction is not broken off: its outcome would not be known.

    def commit(self) -> None:
        with regardless():
            super().commit()

    def rollback(self) -> None:
        with regardless():
            super().rollback()


def _begin_statement(limit: Limits, answer_seconds: float) -> str:
    settings = {
        "statement_timeout": answer_seconds,
        "lock_timeout": limit.lock_seconds,
        "idle_in_transaction_session_timeout": limit.idle_seconds,
    }
    local = [f"SET LOCAL {name} = {round(value * 1000)}" for name, value in settings.items()]
    return "; ".join(["BEGIN ISOLATION LEVEL READ COMMITTED", *local])
