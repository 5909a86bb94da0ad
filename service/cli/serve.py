"""``tollwire serve`` and ``tollwire migrate``: what runs a server or prepares its database."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from service.cli.settings import with_settings

if TYPE_CHECKING:
    from service.config_sources import Loaded


@with_settings("serve")
def serve(loaded: Loaded) -> None:
    """Serve. An empty database is set up first; one of an older release is refused (migrate).

    Prints one line when it serves. SIGTERM stops it after what is in flight.
    """
    # Here, so that the client commands start without loading the server.
    from service import app

    sys.exit(app.serve(loaded.settings))


@with_settings("migrate", ["database"])
def migrate(loaded: Loaded) -> None:
    """Bring a database to the schema of this release. Stop all servers and make a backup first."""
    from service import app

    sys.exit(app.upgrade_database(loaded.settings.database))
