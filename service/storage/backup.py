"""A copy of an SQLite database, made while servers write to it.

Copying the file does not do: what was committed last is in the file beside it, and what is written
meanwhile tears the copy. SQLite's own backup reads as any reader does, in one transaction: the copy
has everything that was committed when it began and nothing later, and nobody waits for it. It is on
the disk, whole, before it gets its name.

PostgreSQL brings tools of its own for this (docs/operations.md).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from tollwire.service.storage.refusals import parsed as parsed_url

_URI = "file:"


class BackupError(Exception):
    """No copy was made; the text says why."""


def copy(url: str, target: Path) -> int:
    """Copies the SQLite database at ``url`` to a file that is not there yet; returns its size in
    bytes. BackupError where that cannot be, and then nothing is left behind."""
    parsed = parsed_url(url)
    if parsed.get_backend_name() != "sqlite":
        raise BackupError(
            "only an SQLite database is backed up by this command; use pg_dump or pg_basebackup"
        )
    if target.exists():
        raise BackupError(f"{target} is there already, and a backup is never written over")
    partial = target.with_name(f"{target.name}.partial")
    try:
        # Readable by its owner alone: it holds numbers that were called.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise BackupError(
            f"{partial} is there: another backup to {target} is being made, or broke off; remove it"
        ) from None
    except OSError as error:
        raise BackupError(f"cannot write {partial}: {error.strerror}") from None
    try:
        _copy_pages(str(parsed.database), partial)
        partial.rename(target)
        _sync_folder(target.parent)
    except sqlite3.Error as error:
        raise BackupError(f"{parsed.database} cannot be copied to {target}: {error}") from None
    except OSError as error:
        raise BackupError(f"cannot write {target}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def _copy_pages(source: str, partial: Path) -> None:
    # Only what is there: SQLite would make an empty database of a name that is mistyped.
    uri = source if source.startswith(_URI) else f"{Path(source).absolute().as_uri()}?mode=rw"
    if not source.startswith(_URI) and not Path(source).exists():
        raise BackupError(f"--database: the file {source} does not exist; correct the path")
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True)) as origin,
        contextlib.closing(sqlite3.connect(partial)) as backup,
    ):
        # All in one step. In several, each write of a server between two would begin it anew.
        origin.backup(backup, pages=-1)
        # One file, without a log beside it; a server that is given it goes back to WAL.
        backup.execute("PRAGMA journal_mode = DELETE")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
