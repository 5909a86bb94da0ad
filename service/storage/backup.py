"""Copies an SQLite database while servers write to it.

A copy of the file alone is wrong: the newest commits are in the log beside it, and writes meanwhile
corrupt the copy. SQLite's own backup reads in one transaction, like any reader: the copy has all
commits before its start and none after it, and no writer waits. The copy gets its name only when it
is complete and on the disk.

PostgreSQL has tools of its own for this (docs/operations.md).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from tollwire.service.storage.refusals import parsed as parsed_url

_URI = "file:"


class BackupError(Exception):
    """No copy was made; the text says why and what to do."""


def copy(url: str, target: Path) -> int:
    """Copies the SQLite database at ``url`` to a file that does not exist; returns the size in
    bytes. BackupError if that fails; no file is left then."""
    parsed = parsed_url(url)
    if parsed.get_backend_name() != "sqlite":
        raise BackupError(
            "only an SQLite database is backed up by this command; use pg_dump or pg_basebackup"
        )
    if target.exists():
        raise BackupError(f"{target} is there already, and a backup is never written over")
    partial = target.with_name(f"{target.name}.partial")
    try:
        # Readable by its owner alone: it has personal data.
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
    # mode=rw: SQLite would create an empty database for a mistyped name.
    uri = source if source.startswith(_URI) else f"{Path(source).absolute().as_uri()}?mode=rw"
    if not source.startswith(_URI) and not Path(source).exists():
        raise BackupError(f"--database: the file {source} does not exist; correct the path")
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True)) as origin,
        contextlib.closing(sqlite3.connect(partial)) as backup,
    ):
        # One step: with several, each write of a server between two steps restarts the copy.
        origin.backup(backup, pages=-1)
        # One file without a log beside it; a server that opens it switches to WAL.
        backup.execute("PRAGMA journal_mode = DELETE")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
