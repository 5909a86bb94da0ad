"""Whether PostgreSQL keeps sessions: a connection pooler may give each transaction another one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine

from tollwire.service.domain.thread_context import Work, doing
from tollwire.service.storage.dialects.postgresql_connection import BoundedConnection
from tollwire.service.storage.failures import named_failures
from tollwire.service.storage.refusals import (
    OPTION,
    SESSION_OPTION,
    DatabaseRefused,
    refusals_named,
    where,
)

# How often the process id of a session is read, to see whether it stays the same.
_SESSION_READS = 5


def check(engine: Engine, url: URL, session_engine: Engine | None, session_url: URL | None) -> bool:
    """``Dialect.check_sessions``."""
    with named_failures(), doing(Work.LOOK), engine.connect() as connection:
        is_pooled = bool(_driver(connection).is_pooled)
        server = _server_of(_driver(connection))
    if session_engine is None or session_url is None:
        return is_pooled
    with (
        named_failures(),
        refusals_named(session_url, SESSION_OPTION),
        doing(Work.LOOK),
        session_engine.connect() as first,
        session_engine.connect() as second,
    ):
        drivers = _driver(first), _driver(second)
        if _server_of(drivers[0]) != server:
            raise DatabaseRefused(
                f"{SESSION_OPTION}: {where(session_url)} is not the database of"
                f" {OPTION}, {where(url)}; both must lead to the same one"
            )
        if drivers[0].is_pooled and not _keeps_sessions(*drivers):
            raise DatabaseRefused(
                f"{SESSION_OPTION}: a connection pooler in transaction mode answers at"
                f" {where(session_url)}; give the URL of PostgreSQL itself, or of a"
                " pooler in session mode"
            )
    return is_pooled


def _driver(connection: Connection) -> BoundedConnection:
    """psycopg's connection, on which each statement is a transaction."""
    driver: Any = connection.connection.driver_connection
    assert isinstance(driver, BoundedConnection)
    return driver


def _server_of(driver: BoundedConnection) -> tuple[object, ...] | None:
    """Tells one running database from every other."""
    query = (
        "SELECT oid, pg_postmaster_start_time() FROM pg_database WHERE datname = current_database()"
    )
    return driver.execute(query).fetchone()


def _keeps_sessions(first: BoundedConnection, second: BoundedConnection) -> bool:
    """Whether each of two connections through a pooler has a session of its own, as in session
    mode; in transaction mode they share sessions, or change them."""
    query = "SELECT pg_backend_pid()"
    seen = [first.execute(query).fetchall()]
    with second.transaction():
        of_second = second.execute(query).fetchall()
    seen += [first.execute(query).fetchall() for _ in range(_SESSION_READS)]
    return of_second not in seen and seen.count(seen[0]) == len(seen)
