"""The maintenance commands, which run without a server: migrate, doctor, first token, backup."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tollwire.service.accounts.credentials import Credentials
from tollwire.service.accounts.tokens import AdminExists, Tokens
from tollwire.service.domain.errors import CannotListen
from tollwire.service.observability import logs
from tollwire.service.process import doctor
from tollwire.service.process.composition import entry_signer
from tollwire.service.process.console import EXPECTED_ERRORS, report_failure
from tollwire.service.process.doctor import Finding
from tollwire.service.process.ports import probe
from tollwire.service.rpc.error_map import cause_of
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.service.storage import backup, examination
from tollwire.service.storage.backup import BackupError
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import migrate


class NoDatabase(Exception):
    """The database does not exist or has another schema; the text says what to run."""


_EXPECTED_ERRORS = (*EXPECTED_ERRORS, AdminExists, BackupError, NoDatabase)


def upgrade_database(url: str, session_url: str | None = None) -> int:
    """Migrate a database to the schema of this release, and print the result. ``session_url``: its
    URL without a connection pooler. Returns the exit code: 0, or 1 after one line on standard
    error."""
    logs.set_up("WARNING", "console", full_numbers=False)
    try:
        with _opened(session_url or url) as database:
            before, after = migrate.upgrade(database)
    except _EXPECTED_ERRORS as error:
        return report_failure(error)
    done = "it was up to date" if before == after else f"it had {before or 'no schema'} before"
    print(f"tollwire: the database has schema {after}; {done}")
    return 0


@contextmanager
def _opened(
    url: str, sign_ledger_entry: Callable[[bytes], bytes] | None = None
) -> Iterator[Database]:
    """The database, for one command. DatabaseRefused if a retry cannot help."""
    database = Database(url, sign_ledger_entry=sign_ledger_entry)
    try:
        with database.refusals_named():
            yield database
    finally:
        database.close()


_SET_UP = (
    "tollwire tokens first creates no database: run tollwire migrate, or start tollwire serve, with"
    " the same --database first"
)


def _check_that_the_file_exists(url: str) -> None:
    file = examination.sqlite_file(url)
    if file is not None and not file.exists():
        raise NoDatabase(f"--database: the file {file} does not exist; {_SET_UP}")


def _check_that_it_is_set_up(database: Database) -> None:
    found, needed = migrate.state(database)
    if found is None:
        raise NoDatabase(f"--database: the database at {database.where} is empty; {_SET_UP}")
    if found != needed:
        raise NoDatabase(
            f"--database: the database has schema {found}, but this release needs {needed}; make a"
            " backup, stop all servers and run: tollwire migrate"
        )


def examine(settings: Settings) -> list[Finding]:
    """Check what a server with these settings needs: ``tollwire doctor``."""

    def port_trouble(listen: Listen) -> str:
        try:
            probe(listen)
        except CannotListen as error:
            return str(error)
        return ""

    def own_server(listen: Listen) -> bool | None:
        # Not imported at the top of the module: loading the library is slow.
        from tollwire.service.rpc import port_probe

        is_grpc = listen == settings.listen
        found = (
            port_probe.probe_grpc_port(settings)
            if is_grpc
            else port_probe.probe_metrics_port(listen)
        )
        if found is port_probe.PortStatus.OTHER:
            return None
        return found is port_probe.PortStatus.SERVING

    return list(doctor.examine(settings, port_trouble, cause_of, own_server))


def first_token(settings: Settings, name: str) -> int:
    """Create the first administrator's token in the database and print it; only if there is none.
    Does not create or migrate the database. Returns the exit code: 0, or 1 after one line on
    standard error."""
    logs.set_up("WARNING", "console", full_numbers=False)
    try:
        _check_that_the_file_exists(settings.database)
        with _opened(settings.database, entry_signer(settings)) as database:
            _check_that_it_is_set_up(database)
            token, text = Tokens(database, Credentials(database)).create_first(name)
    except _EXPECTED_ERRORS as error:
        return report_failure(error)
    sys.stderr.write(f"tollwire: token {token.id} ({token.name}), shown this once:\n")
    print(text)
    return 0


def back_up_database(settings: Settings, target: Path) -> int:
    """Copy an SQLite database, also while it is in use, to a file or to a new file in a folder.
    Records the backup and prints its path. Returns the exit code: 0, or 1 after one line on
    standard error."""
    if target.is_dir():
        target = target / f"tollwire-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.db"
    try:
        size_bytes = backup.copy(settings.database, target)
    except _EXPECTED_ERRORS as error:
        return report_failure(error)
    print(f"tollwire: the database was copied to {target} ({size_bytes:,} bytes)")
    record = settings.backup_record
    if record is not None:
        try:
            record.write_text(f"{datetime.now(UTC).isoformat()} {target}\n", "utf-8")
        except OSError as error:
            return report_failure(
                BackupError(
                    f"the backup is complete, but {record} cannot be written ({error.strerror}), so"
                    " the metrics do not show it; correct --backup-record-file"
                )
            )
    return 0
