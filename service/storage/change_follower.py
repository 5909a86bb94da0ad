"""Keeps what a worker holds in memory equal to what is committed in the database.

Does not depend on what is held: its owner returns the number of the last change that it has read,
and reads the new ones. How a change is detected: tollwire.service.storage.changes.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable

from tollwire.service.domain.background_thread import BackgroundThread
from tollwire.service.storage.changes import ChangeWatch, Clock
from tollwire.service.storage.engine import Database

# The pause between attempts while the database is unavailable.
_RETRY_SECONDS = 0.5
_CLOSE_SECONDS = 5.0


def _nothing() -> None:
    pass


class ChangeFollower:
    """A thread that calls ``refresh`` whenever ``clock`` has moved past ``known_seq``. ``what``
    names the changes in the log: "changes of rates"."""

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
        self._thread = BackgroundThread(clock.table, self._follow, close_seconds=_CLOSE_SECONDS)
        # The thread waits for the first one, which is readable when the other one is closed.
        self._ends: tuple[socket.socket, socket.socket] | None = None
        # Called after each look that has failed.
        self.on_failed_look: Callable[[], None] = _nothing
        # The last time at which no change was missing.
        self._knew_all_at = time.monotonic()

    def start(self) -> None:
        self._ends = socket.socketpair()
        self._knew_all_at = time.monotonic()
        self._thread.start()

    def lag_seconds(self) -> float:
        """How old the state in memory can be: the time since no change was missing."""
        return time.monotonic() - self._knew_all_at

    def close(self) -> None:
        """Stop the thread. A database that does not answer delays this by seconds at most."""
        self._thread.stop.set()
        if self._ends is None:
            return
        waiting, other = self._ends
        other.close()
        self._thread.close()
        waiting.close()

    def _follow(self, stop: threading.Event) -> None:
        assert self._ends is not None, "it is started"
        closing = self._ends[0]
        watch: ChangeWatch | None = None
        failing = False
        while not stop.is_set():
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
                watch.wait(closing)
            except Exception:
                # No error may end this thread; the worker goes on with the state that it has.
                if not failing:
                    self._log.warning("cannot follow the %s for now", self._what, exc_info=True)
                failing = True
                if watch is not None:
                    watch.close()
                    watch = None
                self.on_failed_look()
                stop.wait(_RETRY_SECONDS)
        if watch is not None:
            watch.close()
