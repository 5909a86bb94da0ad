"""Deletes failed records of uploads that are older than the retention time, from a thread.

Nothing else is deleted automatically: CDRs, rates and the totals of uploads stay.
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
# The interval between deletions.
PAUSE_SECONDS = 3600.0
# The pause after a failed deletion.
RETRY_SECONDS = 10.0
# The limit of one transaction: others wait for it no longer than for a chunk of an upload.
DELETED_AT_ONCE = 1000
# The pause between transactions, for other writers: SQLite has one writer at a time.
_PART_PAUSE_SECONDS = 0.02
# A running deletion is short, unless the database does not answer.
_CLOSE_SECONDS = 3.0

_LOG = logging.getLogger("tollwire.retention")


def kept_since_ns(retention_days: int, now_ns: int) -> int:
    """The time from which failed records are kept. ``retention_days`` 0: all are kept."""
    return max(0, now_ns - retention_days * _DAY_NS) if retention_days else 0


class FailureRetention:
    """Deletes failed records that are too old, at its start and then every hour. Every worker may
    have one: each skips records that another is deleting."""

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
        """Start the thread, unless failed records are kept without a limit."""
        if self._retention_days:
            self._thread.start()

    def close(self) -> None:
        """Stop. A database that does not answer delays this by a few seconds at most."""
        self._thread.close()

    def delete_old(self) -> int:
        """Delete the records that are too old now, in small transactions. Returns their number."""
        before_ns = kept_since_ns(self._retention_days, self._clock_ns())
        deleted = 0
        while not self._thread.stop.is_set():
            # Without a limit on the size of the records: an aborted deletion would never complete.
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
                _LOG.warning("cannot delete old failed records now (%s); will retry", error.reason)
            except Exception:
                # No error may end this thread or stop uploads.
                _LOG.exception("cannot delete old failed records; will retry")
            else:
                pause_seconds = self._pause_seconds
                if deleted:
                    _LOG.info(
                        "deleted %d failed records that were older than the retention time", deleted
                    )
