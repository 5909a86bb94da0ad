"""``tollwire serve`` and ``tollwire migrate``: what runs beside a database, not against a server.

Every option can come from the environment: --max-streams is TOLLWIRE_MAX_STREAMS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from service.config import (
    DEFAULT_DATABASE,
    DEFAULT_DATABASE_WAIT_SECONDS,
    DEFAULT_GRACE_SECONDS,
    DEFAULT_LISTEN,
    DEFAULT_MAX_STREAMS,
    LOG_LEVELS,
    ConfigError,
    Settings,
    parse_listen,
)


def _option(name: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option that can come from the environment, and says so."""
    variable = "TOLLWIRE_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_default=True, show_envvar=True, **settings)


_database = _option(
    "--database",
    default=DEFAULT_DATABASE,
    metavar="URL",
    help="sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME.",
)


@click.command()
@_option(
    "--listen",
    default=str(DEFAULT_LISTEN),
    metavar="HOST:PORT",
    help="Where to serve; port 0: any.",
)
@_database
@_option("--workers", type=int, default=1, help="Processes that share the port.")
@_option(
    "--max-streams",
    type=int,
    default=DEFAULT_MAX_STREAMS,
    help="Streaming requests that each worker serves at one time.",
)
@_option(
    "--grace-seconds",
    type=float,
    default=DEFAULT_GRACE_SECONDS,
    help="How long requests in flight may go on after SIGTERM.",
)
@_option(
    "--failure-retention-days",
    type=int,
    default=0,
    help="How long records that uploads could not record are kept; 0: for ever.",
)
@_option(
    "--database-wait-seconds",
    type=float,
    default=DEFAULT_DATABASE_WAIT_SECONDS,
    help="How long the database may take, or be away, before requests fail.",
)
@_option(
    "--log-level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="INFO",
    help="Of the log on stderr.",
)
def serve(listen: str, **settings: Any) -> None:
    """Serve. An empty database is set up first; one of an older release is refused (migrate).

    Prints one line when it serves. SIGTERM stops it after what is in flight.
    """
    try:
        checked = Settings(listen=parse_listen(listen), **settings)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    # Here, so that the client commands start without loading the server.
    from service import app

    sys.exit(app.serve(checked))


@click.command()
@_database
def migrate(database: str) -> None:
    """Bring a database to the schema of this release. Stop all servers and make a backup first."""
    try:
        Settings(database=database)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    from service import app

    sys.exit(app.upgrade_database(database))
