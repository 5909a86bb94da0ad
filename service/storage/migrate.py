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
from service.storage.limits import Work

_FOLDER = Path(__file__).with_name("migrations")
# Any number that no other program takes for the same database: "TOLL" in ASCII.
_ADVISORY_LOCK = 0x544F4C4C


class SchemaError(Exception):
    """The database is not one that this release can serve. The text says what to do."""


def prepare(database: Database, folder: Path = _FOLDER) -> None:
    """Make sure that the schema is the one of this release: create it in an empty database, and
    raise SchemaError where it is older, newer or something else."""
    scripts = _Scripts(folder)
    with database.write(work=Work.LONG) as connection:
        _take_turn(connection)
        found = scripts.present_revision(connection)
        if found is None:
            scripts.apply(connection)
        elif found != scripts.head:
            raise SchemaError(
                f"the database has schema {found}, this release needs {scripts.head};"
                " make a backup, stop all servers and run: tollwire migrate"
            )


def upgrade(database: Database, folder: Path = _FOLDER) -> tuple[str | None, str]:
    """Apply what is missing; returns the revisions before (None: empty) and after. SchemaError
    where the schema is newer or something else."""
    scripts = _Scripts(folder)
    with database.write(work=Work.MIGRATION) as connection:
        _take_turn(connection)
        found = scripts.present_revision(connection)
        if found != scripts.head:
            scripts.apply(connection)
    return found, scripts.head


def state(database: Database, folder: Path = _FOLDER) -> tuple[str | None, str]:
    """The revision of the schema that is there (None: empty), and the one of this release.
    SchemaError where it is newer or something else."""
    scripts = _Scripts(folder)
    with database.read() as connection:
        return scripts.present_revision(connection), scripts.head


def _take_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")


class _Scripts:
    """The revisions in a folder, with Alembic configured here: an installed package has no ini
    file."""

    def __init__(self, folder: Path) -> None:
        self._config = Config()
        self._config.set_main_option("script_location", str(folder).replace("%", "%%"))
        self._config.set_main_option("path_separator", "os")
        self._directory = ScriptDirectory.from_config(self._config)
        head = self._directory.get_current_head()
        assert head is not None
        self.head = head

    def present_revision(self, connection: Connection) -> str | None:
        """The revision of the schema that is there, None where the database is empty."""
        found = MigrationContext.configure(connection).get_current_revision()
        if found is None:
            tables = inspect(connection).get_table_names()
            if tables:
                some = ", ".join(sorted(tables)[:3])
                raise SchemaError(
                    f"the database holds tables of something else ({some}); give Tollwire one of"
                    " its own"
                )
        elif found not in {script.revision for script in self._directory.walk_revisions()}:
            raise SchemaError(
                f"the database has schema {found}, which this release does not know (it goes up to"
                f" {self.head}): it was written by a newer release; install that one"
            )
        return found

    def apply(self, connection: Connection) -> None:
        triggers.drop(connection)
        self._config.attributes["connection"] = connection
        command.upgrade(self._config, "head")
        triggers.install(connection)
