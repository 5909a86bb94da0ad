"""Reports when the database becomes available or unavailable.

While the database answers, the thread that follows the changes of rates looks at it each second and
when something happens on its connection, so nothing else needs to. If such a look fails, this
thread probes the database; while it is unavailable, once a second.

One failed probe means unavailable, one successful probe available: a client that switches to
another server loses nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tollwire.service.domain.background_thread import BackgroundThread
from tollwire.service.storage.engine import Database

_LOG = logging.getLogger("tollwire.database")

_PROBE_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


class DatabaseProbe:
    """Call ``start`` after the database has answered, and ``close`` at the end."""

    def __init__(
        self,
        database: Database,
        on_change: Callable[[bool], None],
        probe_seconds: float = _PROBE_SECONDS,
    ) -> None:
        """``on_change`` is called with each change, from the thread. ``probe_seconds``: the pause
        between two probes while the database is unavailable."""
        self._database = database
        self._on_change = on_change
        self._probe_seconds = probe_seconds
        self._has_failed = threading.Event()
        self._thread = BackgroundThread("database", self._run, close_seconds=_CLOSE_SECONDS)
        self.answers = True

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Probe now, because the database did not answer to something. Any thread may call it."""
        self._has_failed.set()

    def close(self) -> None:
        """Stop the thread. A database that does not answer delays this by a few seconds at most."""
        self._thread.stop.set()
        self._has_failed.set()
        self._thread.close()

    def _run(self, stop: threading.Event) -> None:
        while True:
            if self.answers:
                self._has_failed.wait()
                self._has_failed.clear()
            else:
                stop.wait(self._probe_seconds)
            if stop.is_set():
                return
            self._update(self._probe())

    def _update(self, failure: Exception | None) -> None:
        answers = failure is None
        if answers == self.answers:
            return
        self.answers = answers
        if failure is None:
            _LOG.warning("the database answers again")
        else:
            _LOG.warning("the database is unavailable: %s", self._database.explained(failure))
        self._on_change(answers)

    def _probe(self) -> Exception | None:
        try:
            self._database.ping()
        except Exception as error:
            # An error must not end this thread.
            return error
        return None
