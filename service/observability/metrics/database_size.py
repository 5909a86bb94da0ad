"""The size of the database, the free space on its disk, and the time of the last backup: for the
metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tollwire.service.domain.thread_context import Work
from tollwire.service.observability.metrics.background import BackgroundQuery
from tollwire.service.storage import examination
from tollwire.service.storage.engine import Database

REFRESH_SECONDS = 60.0

_LOG = logging.getLogger("tollwire.database")


@dataclass(frozen=True, slots=True)
class Size:
    """``bytes_by_part``: "main", and on SQLite "wal" for the log beside the file.
    ``disk_free_bytes``: None if the database is on another machine."""

    bytes_by_part: Mapping[str, int]
    disk_free_bytes: int | None = None


class DatabaseSize:
    """The size of one database. Thread-safe."""

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._url = url
        self._background = BackgroundQuery(
            self._query, "the database's size", _LOG, REFRESH_SECONDS
        )

    def latest(self) -> Size | None:
        """The last result; None before the first. Does not wait."""
        return self._background.latest()

    def _query(self) -> Size:
        file = examination.sqlite_file(self._url)
        if file is not None:
            return Size(examination.file_sizes(file), examination.free_bytes(file))
        with self._database.read(work=Work.LOOK) as connection:
            return Size({"main": examination.postgresql_bytes(connection)})


def last_backup_seconds(record: Path) -> float:
    """The end of the last backup, in seconds since 1970: the modification time of the file that
    records it; 0 if there was none."""
    try:
        return record.stat().st_mtime
    except OSError:
        return 0.0
