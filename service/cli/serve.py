"""``tollwire serve``, ``migrate`` and ``backup``: what runs a server or works on its database."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tollwire.service.cli.settings import with_settings

if TYPE_CHECKING:
    from tollwire.service.settings.sources import Loaded


@with_settings("serve")
def serve(loaded: Loaded) -> None:
    """Run the server. An empty database is set up first; one of an older release is refused.

    Prints one line when the server accepts requests. SIGTERM stops it after the requests in
    progress. "tollwire migrate" upgrades a database of an older release.
    """
    # Here, so that the client commands start without loading the server. What is loaded stays: to
    # search it for garbage meanwhile takes an eighth of the time.
    gc.disable()
    from tollwire.service.process import app

    gc.enable()
    sys.exit(app.serve(loaded.settings))


@with_settings("migrate", ["database", "session_database"])
def migrate(loaded: Loaded) -> None:
    """Upgrade a database to the schema of this release.

    Stop all servers and make a backup first.
    """
    from tollwire.service.process import maintenance

    sys.exit(
        maintenance.upgrade_database(loaded.settings.database, loaded.settings.session_database)
    )


@with_settings("backup", ["database", "backup_record_file"])
@click.argument("file", type=click.Path(path_type=Path))
def backup(loaded: Loaded, file: Path) -> None:
    """Copy an SQLite database to FILE, a new file, while servers run.

    If FILE is a folder, the copy gets a name with the time in it. The copy contains everything that
    was committed before it began. Back up PostgreSQL with pg_dump or pg_basebackup.
    """
    from tollwire.service.process import maintenance

    sys.exit(maintenance.back_up_database(loaded.settings, file))
