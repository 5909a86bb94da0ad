"""Errors of a database that an operator must correct.

A database that is unreachable may recover: Unavailable (tollwire.service.storage.failures). A wrong
password, a missing database, role or right, or a wrong URL needs an operator: DatabaseRefused, with
a message that says what is wrong and what to do. No message contains a password.

PostgreSQL reports a refused connection as text alone, so patterns of words find the cause. A text
that no pattern matches counts as unreachable: the server waits, and logs the text.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

OPTION = "--database"
SESSION_OPTION = "--session-database"

_POSTGRESQL_PORT = 5432
# The parameters of the driver, and those of SQLite in a URI ("file:…?mode=rw&uri=true").
_SQLITE_PARAMETERS = {
    *("timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"),
    *("uri", "mode", "cache", "immutable", "nolock", "vfs", "psow", "modeof"),
}

# Answers of a server or pooler to a new connection, and errors of libpq: a pattern of the words,
# what is wrong, and what to do. "{option}" is the option with the URL.
_WORDS = tuple(
    (re.compile(words, re.IGNORECASE), wrong, advice)
    for words, wrong, advice in (
        (
            r"no password supplied|password authentication failed|SASL authentication failed"
            r"|wrong password|auth_user|authentication failed for user",
            "the password or the user name is wrong",
            "correct them in {option}",
        ),
        (
            r"\w+ authentication failed",
            "the server does not accept this user",
            "correct the user in {option}, or the server's pg_hba.conf",
        ),
        (
            r"database \"?[^\"]*\"? does not exist|no such database",
            "the database does not exist",
            "create it (createdb), or correct the name in {option}",
        ),
        (
            r"role \"?[^\"]*\"? does not exist|no such user",
            "the user (role) does not exist",
            "create it (createuser), or correct the name in {option}",
        ),
        (
            r"not permitted to log ?in",
            "the user (role) may not log in",
            "run: ALTER ROLE … LOGIN",
        ),
        (
            r"no pg_hba\.conf entry|pg_hba\.conf rejects",
            "the server's pg_hba.conf does not allow this connection",
            "add a line for this user, database and address, and reload the server",
        ),
        (
            r"permission denied for database|does not have CONNECT privilege",
            "the user (role) may not connect to the database",
            "run: GRANT CONNECT ON DATABASE … TO …",
        ),
        (
            r"not currently accepting connections",
            "the database does not accept connections",
            "run: ALTER DATABASE … ALLOW_CONNECTIONS true",
        ),
        (
            r"server does not support SSL|certificate verify failed|root certificate file"
            r"|certificate file|private key file|does not match host ?name|no SSL encryption",
            "the TLS parameters do not fit the server",
            "correct sslmode, sslrootcert, sslcert and sslkey in {option}",
        ),
        (
            r"unsupported startup parameter",
            "the connection pooler does not accept a parameter of the URL",
            "remove it from {option}, or add it to ignore_startup_parameters of PgBouncer",
        ),
        (
            r"statement pooling mode",
            "the connection pooler runs in statement mode, which allows no transactions",
            "set pool_mode = transaction or pool_mode = session in PgBouncer",
        ),
        (
            r"invalid connection option|invalid integer value|invalid (?:\w+ )?\w+ value"
            r"|unrecognized configuration parameter|invalid value for parameter"
            r"|invalid command-line argument|invalid port number|invalid URI"
            r"|missing \"=\"|could not parse|invalid percent",
            "the URL is wrong",
            "correct {option}",
        ),
    )
)
# SQLite's errors about the parameters of a URI.
_SQLITE_WORDS = re.compile(r"no such (?:vfs|access mode|cache mode)\b")
# Errors of statements, by class or code of SQLSTATE.
_STATES = (
    (
        "42501",
        "the user (role) lacks a right",
        "make it the owner of the database, or run: GRANT CREATE, USAGE ON SCHEMA public TO …",
    ),
    (
        "3F000",
        "no schema to work in exists",
        "create one, and name it in the search_path of the user (role)",
    ),
)


class DatabaseRefused(Exception):
    """The database cannot be used with these settings; the text says why and what to do."""


def parsed(url: str, option: str = OPTION) -> URL:
    """The parsed URL. DatabaseRefused if a part is wrong."""
    # After the first colon, one @ ends the password. Of a password with another one, SQLAlchemy
    # takes the rest as the host, and messages would show it.
    if url.startswith("postgresql") and url.partition("://")[2].partition(":")[2].count("@") > 1:
        raise DatabaseRefused(
            f"{option}: the URL is wrong: it has more than one @, and is not repeated here; write @"
            " in the password or in a parameter as %40"
        )
    try:
        found = make_url(url)
        backend = found.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise DatabaseRefused(f"{option}: the URL is wrong; it is not repeated here") from None
    if backend == "sqlite":
        unknown = sorted(set(found.query) - _SQLITE_PARAMETERS)
        if unknown:
            raise DatabaseRefused(
                f"{option}: the URL is wrong: SQLite has no parameter {unknown[0]!r}; remove it"
            )
        try:
            found.get_dialect()().create_connect_args(found)
        except (ArgumentError, TypeError, ValueError) as error:
            raise DatabaseRefused(
                f"{option}: the URL is wrong: {_first_line(error)}; correct the parameter"
            ) from None
    elif backend == "postgresql":
        try:
            make_conninfo(**{name: str(value) for name, value in found.query.items()})
        except psycopg.Error as error:
            raise DatabaseRefused(
                f"{option}: the URL is wrong: {_first_line(error)}; correct or remove it"
            ) from None
    return found


def where(url: URL) -> str:
    """The URL as messages show it: without user and password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    host = url.host or url.query.get("host") or "the local socket"
    hosts = ",".join(host) if isinstance(host, tuple) else host
    port = url.port or url.query.get("port") or _POSTGRESQL_PORT
    place = hosts if hosts.startswith(("/", "the ")) else f"{hosts}:{port}"
    return f"{place}, database {url.database!r}" if url.database else place


def refusal_of(error: BaseException, url: URL, option: str = OPTION) -> DatabaseRefused | None:
    """The refusal behind an error of a connection or a statement, or behind a failure that was made
    from it; None if the error may pass, or is a defect."""
    cause = _driver_error(error)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_refusal(cause, url, option)
    if not isinstance(cause, psycopg.Error):
        return None
    for state, wrong, advice in _STATES:
        if cause.sqlstate == state:
            return DatabaseRefused(f"{option}: {wrong} ({_first_line(cause)}); {advice}")
    # Errors of statements are about tables, not about the connection.
    if cause.sqlstate is not None and not cause.sqlstate.startswith(("08", "28", "3D")):
        return None
    text = str(cause)
    for words, wrong, advice in _WORDS:
        if words.search(text):
            told = _first_line(cause)
            return DatabaseRefused(f"{option}: {wrong} ({told}); {advice.format(option=option)}")
    return None


def explained(error: BaseException, url: URL) -> str:
    """The text for the log: the refusal, or the failure and the words of the driver."""
    refusal = refusal_of(error, url)
    if refusal is not None:
        return str(refusal)
    cause = _driver_error(error)
    return str(error) if cause is None or cause is error else f"{error} ({_first_line(cause)})"


@contextmanager
def refusals_named(url: URL, option: str = OPTION) -> Iterator[None]:
    """Turns errors of the block that do not pass by waiting into DatabaseRefused."""
    try:
        yield
    except DatabaseRefused:
        raise  # it names its own option
    except Exception as error:
        refusal = refusal_of(error, url, option)
        if refusal is None:
            raise
        raise refusal from error


def _sqlite_refusal(error: sqlite3.Error, url: URL, option: str) -> DatabaseRefused | None:
    if _SQLITE_WORDS.match(str(error)):
        return DatabaseRefused(f"{option}: the URL is wrong: {error}; correct the parameter")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code != sqlite3.SQLITE_CANTOPEN:
        return None
    file = Path(str(url.database)).absolute()
    if not file.parent.is_dir():
        return DatabaseRefused(
            f"{option}: the folder {file.parent} does not exist; create it, or correct the path"
        )
    return DatabaseRefused(
        f"{option}: the file {file} cannot be opened; let this user read and write it and the"
        " folder, or correct the path"
    )


def _driver_error(error: BaseException | None) -> BaseException | None:
    """The error of the driver behind a failure."""
    while error is not None:
        if isinstance(error, DBAPIError):
            error = error.orig
        if isinstance(error, psycopg.Error | sqlite3.Error):
            return error
        error = error.__cause__ if error is not None else None
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
