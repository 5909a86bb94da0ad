"""The revisions of the schema, applied by Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from tollwire.service.storage.schema import triggers


class Revisions:
    """The revisions of a folder. Alembic is configured here: an installed package has no ini
    file."""

    def __init__(self, folder: Path) -> None:
        self._config = Config()
        self._config.set_main_option("script_location", str(folder).replace("%", "%%"))
        self._config.set_main_option("path_separator", "os")

    def known(self) -> set[str]:
        directory = ScriptDirectory.from_config(self._config)
        return {script.revision for script in directory.walk_revisions()}

    def apply(self, connection: Connection) -> None:
        """Apply all revisions that the database lacks."""
        triggers.drop(connection)
        self._config.attributes["connection"] = connection
        command.upgrade(self._config, "head")
        triggers.install(connection)
