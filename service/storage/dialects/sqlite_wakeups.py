"""Tells that a process has written to the write-ahead log of an SQLite file, by inotify.

SQLite writes a commit to the log, syncs the log, and only then shows the commit to readers; nothing
tells of the last step. So a commit may show for a while after the last write
(``Wakeups.settle_seconds``).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.platform == "linux":
    from inotify_simple import INotify, flags

IS_SUPPORTED = sys.platform == "linux"

# Longer than a sync takes on all but the slowest disks. A later commit is found by polling.
_SETTLE_SECONDS = 0.25


class LogWrites:
    """The writes to the log of the file that ``driver`` has open. The connection must stay open:
    the last one to close deletes the log."""

    settle_seconds = _SETTLE_SECONDS

    def __init__(self, driver: Any) -> None:
        """OSError if there is no log, or if the system has no watch left."""
        # The first query of a connection makes the log.
        driver.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        ((file,),) = driver.execute(
            "SELECT file FROM pragma_database_list WHERE name = 'main'"
        ).fetchall()
        self._inotify = INotify(nonblocking=True)
        try:
            self._inotify.add_watch(f"{file}-wal", flags.MODIFY | flags.DELETE_SELF)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return int(self._inotify.fileno())

    def drain(self) -> bool:
        events = list(self._inotify.read(timeout=0))
        if any(event.mask & flags.IGNORED for event in events):
            raise OSError("the write-ahead log was deleted")
        return bool(events)

    def close(self) -> None:
        self._inotify.close()
