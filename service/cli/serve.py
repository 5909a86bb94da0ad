"""``tollwire serve``, ``migrate`` and ``backup``: the commands that run where the server runs."""

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
    """Run the server. Sets up an empty database, and refuses a database of an older release.

    Prints one line when the server accepts requests. SIGTERM stops it after the requests in
    progress. "tollwire migrate" upgrades a database of an older release.
    """
    # Imported here, so that the client commands start without loading the server. Garbage
    # collection is off meanwhile: the modules stay loaded, and it would take an eighth of the time.
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

    If FILE is a folder, the name of the copy contains the time. The copy contains everything that
    was committed before the backup began. For PostgreSQL use pg_dump or pg_basebackup.
    """
    from tollwire.service.process import maintenance

    sys.exit(maintenance.back_up_database(loaded.settings, file))
