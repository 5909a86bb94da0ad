"""How long the failed records of uploads are kept, and the thread that deletes older ones.

Nothing else is ever deleted by itself: CDRs, rates and the uploads' totals stay.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tollwire.service.domain.background_thread import BackgroundThread
from tollwire.service.domain.errors import TollwireError
from tollwire.service.domain.thread_context import Work
from tollwire.service.storage import upload_failures
from tollwire.service.storage.engine import Database

_DAY_NS = 86_400 * 10**9
# Between two looks for what is too old.
PAUSE_SECONDS = 3600.0
# After one that failed.
RETRY_SECONDS = 10.0
# In one transaction: others wait for it no longer than for a chunk of an upload.
DELETED_AT_ONCE = 1000
# And then it is their turn: SQLite has one writer at a time.
_PART_PAUSE_SECONDS = 0.02
# A deletion that is under way is short, unless the database does not answer.
_CLOSE_SECONDS = 3.0

_LOG = logging.getLogger("tollwire.retention")


def kept_since_ns(retention_days: int, now_ns: int) -> int:
    """Failed records from then on are kept. ``retention_days`` 0: all are."""
    return max(0, now_ns - retention_days * _DAY_NS) if retention_days else 0


class FailureRetention:
    """Deletes failed records that are too old: when it starts, and then every hour. Every worker
    may have one; they pass by what another is just deleting."""

    def __init__(
        self,
        database: Database,
        retention_days: int,
        clock_ns: Callable[[], int] = time.time_ns,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._retention_days = retention_days
        self._clock_ns = clock_ns
        self._pause_seconds = pause_seconds
        self._thread = BackgroundThread("retention", self._run, close_seconds=_CLOSE_SECONDS)

    def start(self) -> None:
        """Nothing to do where failed records are kept for ever."""
        if self._retention_days:
            self._thread.start()

    def close(self) -> None:
        """Stop. A database that does not answer delays it by seconds at most."""
        self._thread.close()

    def delete_old(self) -> int:
        """Delete what is too old now, in small transactions; returns how much that was."""
        before_ns = kept_since_ns(self._retention_days, self._clock_ns())
        deleted = 0
        while not self._thread.stop.is_set():
            # However long the records are: what is given up here is never finished.
            with self._database.write(work=Work.LONG) as connection:
                part = upload_failures.delete_before(connection, before_ns, DELETED_AT_ONCE)
            deleted += part
            if part < DELETED_AT_ONCE:
                break
            self._thread.stop.wait(_PART_PAUSE_SECONDS)
        return deleted

    def _run(self, stop: threading.Event) -> None:
        pause_seconds = 0.0
        while not stop.wait(pause_seconds):
            pause_seconds = min(self._pause_seconds, RETRY_SECONDS)
            try:
                deleted = self.delete_old()
            except TollwireError as error:
                _LOG.warning("old failed records cannot be deleted now (%s); later", error.reason)
            except Exception:
                # Whatever it is, uploads go on, and this thread must not end.
                _LOG.exception("old failed records cannot be deleted; later")
            else:
                pause_seconds = self._pause_seconds
                if deleted:
                    _LOG.info("deleted %d failed records that were too old", deleted)
