"""Brings a database to the schema of this release, and refuses to serve on any other.

Everything happens in one transaction, the same that looks at what is there, so that two servers
that start at once on an empty database do not both create it: PostgreSQL holds an advisory lock for
it, SQLite has but one writer.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from service.storage import triggers
from service.storage.engine import Database

# Any number that no other program takes for the same database: "TOLL" in ASCII.
_ADVISORY_LOCK = 0x544F4C4C


class SchemaError(Exception):
    """The database is not one that this release can serve. The text says what to do."""


def prepare(database: Database) -> None:
    """Make sure that the schema is the one of this release: create it in an empty database, and
    raise SchemaError where it is older, newer or something else."""
    with database.write() as connection:
        _take_turn(connection)
        found = _present_revision(connection)
        if found is None:
            _apply(connection)
        elif found != _head():
            raise SchemaError(
                f"the database has schema {found}, this release needs {_head()};"
                " make a backup, stop all servers and run: tollwire migrate"
            )


def upgrade(database: Database) -> tuple[str | None, str]:
    """Apply what is missing; returns the revisions before (None: empty) and after. SchemaError
    where the schema is newer or something else."""
    with database.write() as connection:
        _take_turn(connection)
        found = _present_revision(connection)
        if found != _head():
            _apply(connection)
        return found, _head()


def _take_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")


def _present_revision(connection: Connection) -> str | None:
    """The revision of the schema that is there, None where the database is empty."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None:
        tables = inspect(connection).get_table_names()
        if tables:
            raise SchemaError(
                f"the database holds tables of something else ({', '.join(sorted(tables)[:3])});"
                " give Tollwire one of its own"
            )
    elif found not in {revision.revision for revision in _scripts().walk_revisions()}:
        raise SchemaError(
            f"the database has schema {found}, which this release does not know (it goes up to"
            f" {_head()}): it was written by a newer release; install that one"
        )
    return found


def _apply(connection: Connection) -> None:
    triggers.drop(connection)
    command.upgrade(_config(connection), "head")
    triggers.install(connection)


def _head() -> str:
    head = _scripts().get_current_head()
    assert head is not None
    return head


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, made here because an installed package has no ini file."""
    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config
