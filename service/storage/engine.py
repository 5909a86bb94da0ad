"""Connections and transactions: the one module that hands them out, on either database.

A unit of work is ``with database.read() as connection:`` or ``with database.write() as
connection:``. A write commits at the end of the block and rolls back on any exception. Nothing
outside keeps a connection. No unit waits for the database without end: what kind of work it is says
how long, and none goes on for a client that has gone (tollwire.service.storage.limits).

SQLite has one writer at a time. Within a process a lock hands the writers their turn, which is
fair where SQLite's own busy handler polls. PostgreSQL: READ COMMITTED; every invariant that spans
rows is held by a row lock or by a unique index.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

# Connection is also for the subjects, which hand it on from one storage function to the next.
from sqlalchemy import Connection as Connection
from sqlalchemy.pool import QueuePool

from tollwire.service.domain.thread_context import Work, current_work, doing, regardless
from tollwire.service.storage.dialects.lookup import DIALECTS
from tollwire.service.storage.failures import CommitState, named_failures, unavailable
from tollwire.service.storage.limits import DEFAULT_WAIT_SECONDS, acquired, limits, stop_if_over
from tollwire.service.storage.refusals import (
    SESSION_OPTION,
    explained,
    parsed,
    refusals_named,
    where,
)


class Database:
    """The engine of one database and the units of work on it. Thread-safe."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 16,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
        session_url: str | None = None,
    ) -> None:
        """``url`` is SQLAlchemy's: ``sqlite:///file`` or ``postgresql+psycopg://…``.
        ``wait_seconds``: how long the usual answer may take; other limits follow from it.
        ``session_url``: the same database past a connection pooler, for what needs a session of
        its own."""
        self._url = parsed(url)
        backend = self._url.get_backend_name()
        if backend not in DIALECTS:
            raise ValueError(
                f"database: {backend!r} is not supported; use sqlite:///FILE or"
                " postgresql+psycopg://USER@HOST/NAME"
            )
        self.dialect = DIALECTS[backend]
        self.is_sqlite = backend == "sqlite"
        self.wait_seconds = wait_seconds
        self._writer_turn = threading.Lock()
        most = 2 * pool_size
        self._places = threading.Semaphore(most)
        # What goes through whole tables leaves connections to what takes a few rows.
        self._long_places = threading.Semaphore(max(1, most * 3 // 4))
        self.engine = self.dialect.make_engine(self._url, pool_size, wait_seconds)
        self._session_url = parsed(session_url, SESSION_OPTION) if session_url else None
        self.session_engine = (
            self.dialect.make_engine(self._session_url, 1, wait_seconds)
            if self._session_url
            else None
        )
        # The engines open as many again where all of the pool are taken.
        self._most_connections = 2 * pool_size

    @property
    def where(self) -> str:
        """Its place, as texts show it: without user and password."""
        return where(self._url)

    def refusals_named(self) -> AbstractContextManager[None]:
        """Errors of the block that waiting does not mend leave it as DatabaseRefused."""
        return refusals_named(self._url)

    def explained(self, error: BaseException) -> str:
        """A failure of this database in the words of the log."""
        return explained(error, self._url)

    @contextmanager
    def read(
        self, kept: Connection | None = None, work: Work = Work.ORDINARY
    ) -> Iterator[Connection]:
        """A transaction for reading: on SQLite one consistent snapshot."""
        stop_if_over()
        with (
            named_failures(),
            doing(work),
            self._connected(kept, is_writing=False) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def snapshot(self, work: Work = Work.ORDINARY) -> Iterator[Connection]:
        """A transaction for reading in which all statements see the same state."""
        with self.read(work=work) as connection:
            self.dialect.hold_snapshot(connection)
            yield connection

    @contextmanager
    def write(
        self, kept: Connection | None = None, work: Work = Work.ORDINARY
    ) -> Iterator[Connection]:
        """A transaction for writing. Commits at the block's end, rolls back on an exception."""
        stop_if_over()
        state = CommitState()
        with (
            named_failures(state),
            doing(work),
            self._turn(work),
            self._connected(kept, is_writing=True) as connection,
            connection.begin() as transaction,
        ):
            yield connection
            if transaction.is_active:
                stop_if_over()
                state.is_known = False
                with regardless():
                    transaction.commit()

    @contextmanager
    def keep(self) -> Iterator[Connection]:
        """One connection for several ``read`` and ``write`` in a row, which share its temporary
        tables. Outside of them it is in no transaction."""
        with named_failures(), self._place(), self.engine.connect() as connection:
            yield connection

    def ping(self) -> None:
        """Asks the database for next to nothing. Unavailable or FailedPrecondition where it does
        not answer; never because all connections are in use."""
        with (
            named_failures(),
            doing(Work.PING),
            self.engine.connect() as connection,
            connection.begin(),
        ):
            connection.exec_driver_sql("SELECT change_seq FROM deck_clock")

    @contextmanager
    def _turn(self, work: Work) -> Iterator[None]:
        """The turn of one writer, if the database has only one."""
        if not self.dialect.has_one_writer:
            yield
            return
        if not acquired(self._writer_turn, limits(work, self.wait_seconds).lock_seconds):
            raise unavailable("the database is busy with other writes")
        try:
            yield
        finally:
            self._writer_turn.release()

    @contextmanager
    def _connected(self, kept: Connection | None, *, is_writing: bool) -> Iterator[Connection]:
        if kept is None:
            with self._place(), self.engine.connect() as connection:
                yield connection.execution_options(is_writing=is_writing)
        else:
            yield kept.execution_options(is_writing=is_writing)

    def connections(self) -> tuple[int, int, int]:
        """How many are in use, how many are open and idle, and how many there may be."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout(), pool.checkedin(), self._most_connections

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the connections that there may be; the pool itself would wait for one however long
        the client still does."""
        with ExitStack() as taken:
            if current_work() is Work.LONG:
                self._take(self._long_places)
                taken.callback(self._long_places.release)
            self._take(self._places)
            taken.callback(self._places.release)
            yield

    def _take(self, places: threading.Semaphore) -> None:
        if not acquired(places, self.wait_seconds):
            raise unavailable("all connections to the database are taken")

    def check_sessions(self) -> bool:
        """Whether a connection pooler answers, which need not keep sessions. DatabaseRefused where
        the second URL leads to another database, or to sessions that are not kept."""
        return self.dialect.check_sessions(
            self.engine, self._url, self.session_engine, self._session_url
        )

    def close(self) -> None:
        self.engine.dispose()
        if self.session_engine is not None:
            self.session_engine.dispose()
