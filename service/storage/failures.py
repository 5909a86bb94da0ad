"""Turns errors of the databases into errors that a client understands; no other module does.

A database that is unreachable, locked, slow or full may recover: Unavailable. A database that
cannot be written, or is damaged, needs an operator: FailedPrecondition. Any other error is a defect
of the service and passes unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tollwire.service.domain.errors import (
    FailedPrecondition,
    Reason,
    TollwireError,
    TooLate,
    Unavailable,
)
from tollwire.service.domain.thread_context import (
    Work,
    current_request,
    current_work,
    over,
    regardless,
    stop_if_over,
)

# For a change whose commit was sent and not answered.
UNKNOWN_OUTCOME = "whether it was changed is not known, look before you try again"
_NOTHING_CHANGED = "nothing was changed, try again later"

_LOCKED = "the database is locked by others for too long"
_LOST = "the database does not answer"
_TOO_SLOW = "the database takes too long"
_FULL = "the database's disk is full"

# By primary result code. SQLITE_ERROR is left out: it means that a statement is wrong.
_SQLITE = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: "the database's disk has an error",
    sqlite3.SQLITE_CANTOPEN: "the database's file cannot be opened",
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
    sqlite3.SQLITE_NOMEM: "the database has no memory left",
    sqlite3.SQLITE_INTERRUPT: _TOO_SLOW,
}
_SQLITE_UNUSABLE = {
    sqlite3.SQLITE_READONLY: "the database's file cannot be written",
    sqlite3.SQLITE_CORRUPT: "the database's file is damaged",
    sqlite3.SQLITE_NOTADB: "the database's file is no database",
}
_PRIMARY_CODE = 0xFF

# The first class that matches counts.
_POSTGRESQL = (
    (psycopg.errors.LockNotAvailable, _LOCKED),
    (psycopg.errors.QueryCanceled, _TOO_SLOW),
    (psycopg.errors.DiskFull, _FULL),
    # A standby that is not promoted yet.
    (psycopg.errors.ReadOnlySqlTransaction, "the database takes no changes for now"),
    (psycopg.errors.IdleInTransactionSessionTimeout, "the database did not wait"),
    (psycopg.errors.TransactionTimeout, "the database did not wait"),
    (psycopg.OperationalError, _LOST),
    (psycopg.InterfaceError, _LOST),
)
_POSTGRESQL_UNUSABLE = (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted)


class CommitState:
    """How far the commit of a unit of work has come. ``is_known``: if it fails now, it is known
    that nothing was changed."""

    is_known = True
    is_committed = False


# In ``Connection.info``: the CommitState of the present unit of work.
COMMIT_STATE = "commit_state"


@contextmanager
def committing(connection: Connection) -> Iterator[CommitState]:
    """The block commits the unit of work on ``connection``, with or without its last statements. It
    does not begin if the client no longer waits, and then runs to its end. If the commit fails for
    sure, the block sets ``is_known``."""
    state: CommitState = connection.info[COMMIT_STATE]
    stop_if_over()
    state.is_known = False
    with regardless():
        yield state
    state.is_committed = True


@contextmanager
def named_failures(state: CommitState | None = None) -> Iterator[None]:
    """Turns errors of the database within the block into failures with a name."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError, psycopg.Error, sqlite3.Error) as error:
        is_known = state is None or state.is_known
        failure = _failure(error, _NOTHING_CHANGED if is_known else UNKNOWN_OUTCOME)
        if failure is None:
            raise
        if is_known and isinstance(failure, Unavailable):
            # A statement that was cancelled because its client has gone fails in the same way.
            failure = over() or _too_long(error) or failure
        raise failure from error


def _too_long(error: Exception) -> TooLate | None:
    """The failure of a client's work that reads much and takes longer than the server allows. A
    retry would take as long."""
    if current_work() is not Work.LONG or not current_request().id or not _is_ended(error):
        return None
    return TooLate(
        Reason.DEADLINE_EXCEEDED,
        "the database takes longer than the server allows for one answer; ask for less at a time,"
        " for example for a shorter period",
    )


def _is_ended(error: Exception) -> bool:
    """Whether the time limit of a statement ended it."""
    cause = getattr(error, "orig", error)
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT
    return isinstance(cause, psycopg.errors.QueryCanceled)


def _failure(error: Exception, then: str) -> TollwireError | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(error, PoolTimeoutError):
        return unavailable("all connections to the database are taken", then)
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE
        if code in _SQLITE_UNUSABLE:
            return _unusable(_SQLITE_UNUSABLE[code])
        return unavailable(_SQLITE[code], then) if code in _SQLITE else None
    if isinstance(cause, _POSTGRESQL_UNUSABLE):
        return _unusable("the database is damaged")
    for kind, words in _POSTGRESQL:
        if isinstance(cause, kind):
            return unavailable(words, then)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return unavailable(_LOST, then)
    return None


def is_lock(error: TollwireError) -> bool:
    """Whether ``error`` is due to a row that another transaction has locked for too long. Nothing
    was changed then."""
    cause = getattr(error.__cause__, "orig", error.__cause__)
    return isinstance(cause, psycopg.errors.LockNotAvailable)


def unavailable(words: str, then: str = _NOTHING_CHANGED) -> Unavailable:
    return Unavailable(Reason.DATABASE_UNAVAILABLE, f"{words}; {then}")


def _unusable(words: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.DATABASE_UNUSABLE,
        f"{words}; nothing was changed, and a retry cannot succeed before the operator has acted",
    )
