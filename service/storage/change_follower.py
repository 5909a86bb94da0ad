"""Keeping what a worker holds in memory equal to what is committed in the database.

Knows neither what is held nor how it is read: whoever holds it says how far they know the changes,
and reads what is new. How a change is seen: tollwire.service.storage.changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tollwire.service.storage.changes import ChangeWatch, Clock
from tollwire.service.storage.engine import Database

# While the database is away, asking many times a second would only add to its trouble.
_RETRY_SECONDS = 0.5
_CLOSE_SECONDS = 5.0


class Follower:
    """A thread that calls ``refresh`` whenever ``clock`` has moved past ``known_seq``. ``what`` is
    followed, in the words of the log: "changes of rates"."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        what: str,
        log: logging.Logger,
        known_seq: Callable[[], int],
        refresh: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._what = what
        self._log = log
        self._known_seq = known_seq
        self._refresh = refresh
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # When it was last known that nothing is missing.
        self._knew_all_at = time.monotonic()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._follow, name=self._clock.table, daemon=True)
        self._thread.start()

    def lag_seconds(self) -> float:
        """For how long changes may have been missed: since it was last known that none was."""
        return time.monotonic() - self._knew_all_at

    def close(self) -> None:
        """Stop to follow. A database that does not answer delays it by seconds at most."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _follow(self) -> None:
        watch: ChangeWatch | None = None
        failing = False
        while not self._stop.is_set():
            try:
                if watch is None:
                    watch = ChangeWatch(self._database, self._clock)
                asked_at = time.monotonic()
                if watch.has_moved(self._known_seq()):
                    self._refresh()
                self._knew_all_at = asked_at
                if failing:
                    self._log.warning("following the %s again", self._what)
                failing = False
                watch.wait(self._stop, watch.poll_seconds)
            except Exception:
                # Whatever it is, the worker goes on with what it has, and this thread must not end.
                if not failing:
                    self._log.warning("cannot follow the %s for now", self._what, exc_info=True)
                failing = True
                if watch is not None:
                    watch.close()
                    watch = None
                self._stop.wait(_RETRY_SECONDS)
        if watch is not None:
            watch.close()
