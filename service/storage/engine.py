"""Opens connections and transactions; no other module does.

A unit of work is ``with database.read() as connection:`` or ``with database.write() as
connection:``. A write commits at the end of the block and rolls back on any exception. No caller
keeps a connection after the block. Every wait for the database has a limit, given by the kind of
work, and ends if the client has gone (tollwire.service.storage.limits).

SQLite has one writer at a time. Within a process the writers wait for a lock, which is fair;
SQLite's own busy handler polls. PostgreSQL: READ COMMITTED; a row lock or a unique index guards
each invariant that spans rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeAlias

# The subjects import Connection from here: they pass it from one storage function to the next.
from sqlalchemy import Connection as Connection
from sqlalchemy import Transaction
from sqlalchemy.pool import QueuePool

from tollwire.service.domain.thread_context import Work, current_work, doing, stop_if_over
from tollwire.service.storage import ledger
from tollwire.service.storage.dialects.base import ConnectionLost
from tollwire.service.storage.dialects.lookup import DIALECTS
from tollwire.service.storage.failures import (
    COMMIT_STATE,
    CommitState,
    committing,
    named_failures,
    unavailable,
)
from tollwire.service.storage.limits import DEFAULT_WAIT_SECONDS, acquired, limits
from tollwire.service.storage.refusals import (
    SESSION_OPTION,
    explained,
    parsed,
    refusals_named,
    where,
)

# The first step in a transaction, in the round trip of its BEGIN: a method of the Dialect that says
# that it may be one. Nothing is changed before it, so it may be repeated on another connection.
Opening: TypeAlias = Callable[[Connection], object]
# In ``Connection.info``: what the opening of the present transaction has returned.
_OPENED = "opened"


class Database:
    """The engine of one database and the units of work on it. Thread-safe."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 16,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
        session_url: str | None = None,
        sign_ledger_entry: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """``url`` is SQLAlchemy's: ``sqlite:///file`` or ``postgresql+psycopg://…``.
        ``wait_seconds``: how long an ordinary answer may take; the other limits are multiples.
        ``session_url``: the same database without a connection pooler, for notifications, which
        need a session of their own. ``sign_ledger_entry``: signs the hash of each entry that is
        added to the ledger."""
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
        self._writer_lock = threading.Lock()
        most = 2 * pool_size
        self._free_connections = threading.Semaphore(most)
        # Work that reads whole tables leaves some connections to work that reads a few rows.
        self._free_long_connections = threading.Semaphore(max(1, most * 3 // 4))
        self.engine = self.dialect.make_engine(self._url, pool_size, wait_seconds)
        if sign_ledger_entry is not None:
            self.engine.update_execution_options(**{ledger.SIGN_OPTION: sign_ledger_entry})
        self._session_url = parsed(session_url, SESSION_OPTION) if session_url else None
        self.session_engine = (
            self.dialect.make_engine(self._session_url, 1, wait_seconds)
            if self._session_url
            else None
        )
        # If all connections of the pool are taken, the engine opens as many again.
        self._most_connections = 2 * pool_size

    @property
    def where(self) -> str:
        """The URL as messages show it: without user and password."""
        return where(self._url)

    def refusals_named(self) -> AbstractContextManager[None]:
        """Turns errors of the block that do not pass by waiting into DatabaseRefused."""
        return refusals_named(self._url)

    def explained(self, error: BaseException) -> str:
        """The text for the log of a failure of this database."""
        return explained(error, self._url)

    @contextmanager
    def read(
        self, kept: Connection | None = None, work: Work = Work.ORDINARY
    ) -> Iterator[Connection]:
        """A transaction for reading: on SQLite one consistent snapshot."""
        stop_if_over()
        with (
            doing(work),
            named_failures(),
            self._begun(kept, is_writing=False) as (connection, _),
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
        self,
        kept: Connection | None = None,
        work: Work = Work.ORDINARY,
        opening: Opening | None = None,
    ) -> Iterator[Connection]:
        """A transaction for writing. Commits at the block's end unless the block has committed
        (``committing``), rolls back on an exception. ``opened`` returns what ``opening`` has
        returned."""
        stop_if_over()
        state = CommitState()
        with (
            doing(work),
            named_failures(state),
            self._writing(work),
            self._begun(kept, is_writing=True, opening=opening) as begun,
        ):
            connection, transaction = begun
            connection.info[COMMIT_STATE] = state
            with ledger.collecting(connection):
                yield connection
                if not state.is_committed and transaction.is_active:
                    ledger.append_collected(connection)
            if state.is_committed:
                transaction.commit()  # ends it in SQLAlchemy
            elif transaction.is_active:
                with committing(connection):
                    transaction.commit()
                    self.dialect.confirm(connection)

    @contextmanager
    def keep(self) -> Iterator[Connection]:
        """One connection for several ``read`` and ``write`` in sequence, which share its temporary
        tables. Between them it is in no transaction."""
        with named_failures(), self._reserved(), ExitStack() as stack:
            connection, transaction = self._begun_on_pooled(stack)
            transaction.rollback()
            yield connection

    def ping(self) -> None:
        """Runs a trivial query. Unavailable or FailedPrecondition if the database does not answer;
        never because all connections are in use."""
        with (
            named_failures(),
            doing(Work.PING),
            ExitStack() as stack,
        ):
            _, transaction = self._begun_on_pooled(stack, opening=self.dialect.deck_change_seq)
            with transaction:
                pass

    @contextmanager
    def _writing(self, work: Work) -> Iterator[None]:
        """Waits until no other thread writes, if the database has only one writer."""
        if not self.dialect.has_one_writer:
            yield
            return
        if not acquired(self._writer_lock, limits(work, self.wait_seconds).lock_seconds):
            raise unavailable("the database is busy with other writes")
        try:
            yield
        finally:
            self._writer_lock.release()

    @contextmanager
    def _begun(
        self, kept: Connection | None, *, is_writing: bool, opening: Opening | None = None
    ) -> Iterator[tuple[Connection, Transaction]]:
        if kept is not None:
            assert opening is None, "only for connections of the pool"
            kept, of_kept = _begin(kept, is_writing)
            with of_kept:
                yield kept, of_kept
            return
        with self._reserved(), ExitStack() as stack:
            connection, transaction = self._begun_on_pooled(
                stack, is_writing=is_writing, opening=opening
            )
            with transaction:
                yield connection, transaction

    def _begun_on_pooled(
        self, stack: ExitStack, *, is_writing: bool = False, opening: Opening | None = None
    ) -> tuple[Connection, Transaction]:
        """A transaction on a connection of the pool, which goes back with the stack. A connection
        that has died in the pool is found when the transaction begins there; the pool then replaces
        all its connections."""
        pool = self.engine.pool
        try:
            with ExitStack() as attempt:
                connection = attempt.enter_context(self.engine.connect())
                begun = _begin(connection, is_writing, opening)
                stack.push(attempt.pop_all())
                return begun
        except ConnectionLost:
            if self.engine.pool is pool:
                self.engine.dispose()
        return _begin(stack.enter_context(self.engine.connect()), is_writing, opening)

    def connections(self) -> tuple[int, int, int]:
        """The number of connections in use, the number of idle ones, and the maximum."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout(), pool.checkedin(), self._most_connections

    @contextmanager
    def _reserved(self) -> Iterator[None]:
        """Reserves one of the connections. The pool itself would wait for one even after the client
        has gone."""
        with ExitStack() as taken:
            if current_work() is Work.LONG:
                self._take(self._free_long_connections)
                taken.callback(self._free_long_connections.release)
            self._take(self._free_connections)
            taken.callback(self._free_connections.release)
            yield

    def _take(self, free: threading.Semaphore) -> None:
        if not acquired(free, self.wait_seconds):
            raise unavailable("all connections to the database are taken")

    def check_sessions(self) -> bool:
        """Whether a connection pooler answers, which may not keep sessions. DatabaseRefused if the
        second URL leads to another database, or to sessions that are not kept."""
        return self.dialect.check_sessions(
            self.engine, self._url, self.session_engine, self._session_url
        )

    def close(self) -> None:
        self.engine.dispose()
        if self.session_engine is not None:
            self.session_engine.dispose()


def _begin(
    connection: Connection, is_writing: bool, opening: Opening | None = None
) -> tuple[Connection, Transaction]:
    connection = connection.execution_options(
        is_writing=is_writing, has_opening=opening is not None
    )
    transaction = connection.begin()
    if opening is not None:
        connection.info[_OPENED] = opening(connection)
    return connection, transaction


def opened(connection: Connection) -> Any:
    """What the opening of this transaction has returned."""
    return connection.info[_OPENED]
