"""What is done to a database or a machine beside its servers, each by one command.

Like the server, put together here from its parts (service.app). Nothing here serves.
"""

from __future__ import annotations

import sys
from pathlib import Path

from service import doctor, logs
from service.app import MENDABLE, failed
from service.config import Listen, Settings
from service.credentials import Credentials
from service.doctor import Finding
from service.rpc.error_map import cause_of
from service.rpc.ports import CannotListen, probe
from service.storage import backup, migrate
from service.storage.backup import BackupError
from service.storage.engine import Database
from service.tokens import AdminExists, Tokens

_MENDABLE = (*MENDABLE, AdminExists, BackupError)


def upgrade_database(url: str) -> int:
    """Bring a database to the schema of this release, and say on standard output what was done. The
    exit code: 0, or 1 after one line on standard error that says why it cannot be."""
    logs.set_up("WARNING", "console", full_numbers=False)
    try:
        database = Database(url)
        try:
            before, after = migrate.upgrade(database)
        finally:
            database.close()
    except _MENDABLE as error:
        return failed(error)
    done = "already there" if before == after else f"it was {before or 'empty'} before"
    print(f"tollwire: the database has schema {after}; {done}")
    return 0


def examine(settings: Settings) -> list[Finding]:
    """What is wrong with what a server with these settings needs: see ``tollwire doctor``."""

    def port_trouble(listen: Listen) -> str:
        try:
            probe(listen)
        except CannotListen as error:
            return str(error)
        return ""

    return list(doctor.examine(settings, port_trouble, cause_of))


def first_token(url: str, name: str) -> int:
    """Print the first administrator's token, straight from the database: this once, and only where
    there is none. The exit code: 0, or 1 after one line on standard error that says why not."""
    logs.set_up("WARNING", "console", full_numbers=False)
    try:
        database = Database(url)
        try:
            migrate.prepare(database)
            token, text = Tokens(database, Credentials(database)).create_first(name)
        finally:
            database.close()
    except _MENDABLE as error:
        return failed(error)
    sys.stderr.write(f"tollwire: token {token.id} ({token.name}), shown this once:\n")
    print(text)
    return 0


def back_up_database(url: str, target: Path) -> int:
    """Copy an SQLite database that may be in use, and say on standard output where it is now. The
    exit code: 0, or 1 after one line on standard error that says why it cannot be."""
    try:
        size_bytes = backup.copy(url, target)
    except _MENDABLE as error:
        return failed(error)
    print(f"tollwire: the database was copied to {target} ({size_bytes:,} bytes)")
    return 0
