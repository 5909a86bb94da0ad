"""The engine of PostgreSQL: connections on which every wait ends.

Each BEGIN sets the limits of its transaction in the same round trip, so they cost none and also
work behind a pooler. They do not help if the server cannot be reached: its machine is gone, or
a proxy forwards nothing. Keepalives detect the first; the second looks like a server that works.
psycopg waits in slices of a tenth of a second in the calling thread, so this thread checks the time
itself, gives up and closes the connection. Another thread might close a socket that is already
reused. The calling thread also detects that its client has gone, and cancels the statement.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg.pq.abc import PGresult
from sqlalchemy import URL, Connection, Engine, create_engine, event

from tollwire.service.domain.thread_context import Work, current_work, doing, over, regardless
from tollwire.service.storage.dialects.base import ConnectionLost
from tollwire.service.storage.dialects.postgresql_pipeline import NotBegun, Step, begin_and_run, run
from tollwire.service.storage.limits import Limits, connect_seconds, limits, seconds_left

T = TypeVar("T")

# Parameters of libpq that detect a peer that is gone: the first probe after idle seconds, the
# others at intervals. tcp_user_timeout limits the wait for an acknowledgement. Unix sockets ignore
# them.
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_AFTER_DEADLINE_SECONDS = 0.05
# How long the server may take to cancel a statement.
_CANCEL_SECONDS = 2.0
# In ``Connection.info``: the statements that begin its transaction, if they are not sent yet.
_UNSENT_BEGIN = "unsent_begin"


def postgresql_engine(url: URL, pool_size: int, wait_seconds: float) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        # One more for the health check.
        max_overflow=pool_size + 1,
        pool_timeout=wait_seconds,
        # The listener below begins transactions and sets their limits.
        isolation_level="AUTOCOMMIT",
        connect_args={"connect_timeout": connect_seconds(wait_seconds), **_KEEPALIVE},
        # The log must not contain the values of a failed statement: callers' numbers are personal
        # data.
        hide_parameters=True,
    )
    answers = {work: limits(work, wait_seconds) for work in Work}
    begins = {work: _begin_steps(limit, limit.answer_seconds) for work, limit in answers.items()}

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

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        work = current_work()
        limit = answers[work]
        left = seconds_left(limit.answer_seconds)
        if left < limit.answer_seconds:
            # A little longer, so that the deadline has passed when the statement ends.
            steps = _begin_steps(limit, left + _AFTER_DEADLINE_SECONDS)
        else:
            steps = begins[work]
        connection.info[_UNSENT_BEGIN] = steps
        if not connection.get_execution_options().get("has_opening"):
            run_steps(connection, ())

    return engine


def run_steps(connection: Connection, steps: Sequence[Step]) -> list[PGresult]:
    """``postgresql_pipeline.run`` on the driver's connection; begins the transaction of
    ``connection`` in the same round trip if that was left to its opening."""
    driver: Any = connection.connection.driver_connection
    begin = connection.info.pop(_UNSENT_BEGIN, None)
    if begin is None:
        return run(driver, steps)
    try:
        return begin_and_run(driver, begin, steps, _awaiting_begin(driver))
    except NotBegun as failure:
        error = failure.__cause__
        assert isinstance(error, psycopg.Error)
        if driver.closed:
            connection.invalidate(error)
            raise ConnectionLost(str(error)) from error
        raise error from None


@contextmanager
def _awaiting_begin(driver: BoundedConnection) -> Iterator[None]:
    """A new connection takes less than to wait for one that has died in the pool. A pooler whose
    sessions are all in use lets its clients wait as long as for any statement."""
    with doing(Work.ORDINARY if driver.is_pooled else Work.PING), regardless():
        yield


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which every wait ends, after the limits of its class."""

    limits_of: ClassVar[Mapping[Work, Limits]]
    # Whether a connection pooler answers. It may give each transaction another session, so prepared
    # statements, LISTEN and settings of a session end with their transaction.
    is_pooled = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The names of the statements that postgresql_pipeline has prepared in this session.
        self.prepared: set[bytes] = set()

    def look_for_a_pooler(self) -> None:
        """Call it once, before any other method. A pooler invents the process id that it gives to
        its client, so this id differs from that of the process that answers."""
        self.autocommit = True
        ((pid,),) = self.execute("SELECT pg_backend_pid()").fetchall()
        self.is_pooled = pid != self.info.backend_pid
        if self.is_pooled:
            self.prepare_threshold = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """psycopg calls this for every wait on an open connection."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """``gen`` with a limit. At each ``yield`` psycopg waits for the socket and sends back what
        has happened there; after a tenth of a second it sends back that nothing has happened."""
        limit = self.limits_of[current_work()].silence_seconds
        until = monotonic() + limit
        is_cancelled = False
        try:
            wanted = next(gen)
            while True:
                happened = yield wanted
                if monotonic() > until:
                    # A late answer would be taken for the answer to the next statement.
                    self.close()
                    raise psycopg.OperationalError(f"no answer within {limit:g} s")
                if not happened and not is_cancelled and over() is not None:
                    is_cancelled = True
                    until = monotonic() + _CANCEL_SECONDS
                    self._cancel()
                wanted = gen.send(happened)
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _cancel(self) -> None:
        """The server answers a cancelled statement with an error; the caller waits for it."""
        try:
            self.cancel_safe(timeout=_CANCEL_SECONDS)
        except psycopg.Error:
            self.close()
            raise

    def _deallocate(self, name: bytes | None) -> Generator[Any, Any, None]:
        """psycopg calls this to deallocate a statement that it has prepared; after a rollback, all
        statements of the session (None)."""
        if name is None:
            self.prepared.clear()
        return super()._deallocate(name)

    # Commit and rollback are not cancelled: their outcome would not be known.

    def commit(self) -> None:
        with regardless():
            super().commit()

    def rollback(self) -> None:
        with regardless():
            super().rollback()


def _begin_steps(limit: Limits, answer_seconds: float) -> Sequence[Step]:
    settings = {
        "statement_timeout": answer_seconds,
        "lock_timeout": limit.lock_seconds,
        "idle_in_transaction_session_timeout": limit.idle_seconds,
    }
    local = [f"SET LOCAL {name} = {round(value * 1000)}" for name, value in settings.items()]
    return [(one.encode(), ()) for one in ("BEGIN ISOLATION LEVEL READ COMMITTED", *local)]
