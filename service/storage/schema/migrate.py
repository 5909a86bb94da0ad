"""Brings a database to the schema of this release, and refuses all other schemas.

One transaction examines the database and changes it, so that two servers that start at once on an
empty database do not both create the schema: on PostgreSQL it has an advisory lock, and SQLite has
only one writer.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect

from tollwire.service.domain.thread_context import Work
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import triggers

if TYPE_CHECKING:
    from tollwire.service.storage.schema.revisions import Revisions

_LOG = logging.getLogger("tollwire.database")
_FOLDER = Path(__file__).with_name("migrations")
# A number that no other program uses in the same database: "TOLL" in ASCII.
_ADVISORY_LOCK = 0x544F4C4C
_STAMP_QUERY = "SELECT version_num FROM alembic_version"


class SchemaError(Exception):
    """This release cannot serve the database. The text says what to do."""


def prepare(database: Database, folder: Path = _FOLDER) -> None:
    """Create the schema in an empty database. SchemaError if the schema is older or newer than that
    of this release, or of another program. Missing triggers are logged, and ``upgrade`` restores
    them: an operator must learn that they were removed."""
    with database.write(work=Work.LONG) as connection:
        _lock(connection)
        if _stamp(connection) == newest(folder):
            if missing := triggers.missing(connection):
                _LOG.error(
                    "the database does not refuse all changes of the record: these triggers are"
                    " missing or disabled: %s; find out who removed them, and run: tollwire"
                    " migrate",
                    triggers.described(missing),
                )
            return
        revisions = _revisions(folder)
        found = _present(connection, revisions, folder)
        if found is None:
            revisions.apply(connection)
        else:
            raise SchemaError(
                f"the database has schema {found}, this release needs {newest(folder)};"
                " make a backup, stop all servers and run: tollwire migrate"
            )


def check(database: Database, folder: Path = _FOLDER) -> None:
    """SchemaError if the schema of a database that was prepared is not that of this release."""
    with database.read() as connection:
        ((found,),) = dialect_of(connection).driver_rows(connection, _STAMP_QUERY, ())
    if found != newest(folder):
        raise SchemaError(
            f"the database has schema {found}, this release needs {newest(folder)};"
            " it was changed while this server runs: start this server again"
        )


def upgrade(database: Database, folder: Path = _FOLDER) -> tuple[str | None, str]:
    """Apply the missing revisions, and restore missing triggers; returns the revisions before
    (None: empty) and after. SchemaError if the schema is newer, or of another program."""
    revisions = _revisions(folder)
    with database.write(work=Work.MIGRATION) as connection:
        _lock(connection)
        found = _present(connection, revisions, folder)
        if found != newest(folder):
            revisions.apply(connection)
        elif missing := triggers.missing(connection):
            _LOG.warning("restored these triggers: %s", triggers.described(missing))
            triggers.drop(connection)
            triggers.install(connection)
    return found, newest(folder)


def state(database: Database, folder: Path = _FOLDER) -> tuple[str | None, str]:
    """The revision of the database (None: empty), and that of this release. SchemaError if the
    schema is newer, or of another program."""
    revisions = _revisions(folder)
    with database.read() as connection:
        return _present(connection, revisions, folder), newest(folder)


@functools.cache
def newest(folder: Path = _FOLDER) -> str:
    """The newest revision of a folder: its files have the numbers of the revisions. Read once: a
    later release may replace the files while this process runs."""
    names = [path.name for path in folder.glob("versions/[0-9]*.py")]
    return max(names).partition("_")[0]


def _stamp(connection: Connection) -> str | None:
    """The revision that Alembic has stored in the database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql(_STAMP_QUERY).scalar()


def _present(connection: Connection, revisions: Revisions, folder: Path) -> str | None:
    """The revision of the database; None if it is empty."""
    found = _stamp(connection)
    if found is None:
        tables = inspect(connection).get_table_names()
        if tables:
            some = ", ".join(sorted(tables)[:3])
            raise SchemaError(
                f"the database holds tables of something else ({some}); give Tollwire one of its"
                " own"
            )
    elif found not in revisions.known():
        raise SchemaError(
            f"the database has schema {found}, which this release does not know (it goes up to"
            f" {newest(folder)}): it was written by a newer release; install that one"
        )
    return found


def _revisions(folder: Path) -> Revisions:
    # Imported here: a server whose database is up to date starts without Alembic.
    from tollwire.service.storage.schema.revisions import Revisions

    return Revisions(folder)


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
