"""Probes the database from a thread, and reports each change of whether it answers.

One failed probe means "away", one that succeeds "back": a client that goes to another server loses
nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tollwire.service.storage.engine import Database

_LOG = logging.getLogger("tollwire.database")

_PROBE_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


class DatabaseProbe:
    """``start`` it after the database has answered; ``close`` it at the end."""

    def __init__(self, database: Database, probe_seconds: float = _PROBE_SECONDS) -> None:
        self._database = database
        self._probe_seconds = probe_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.answers = True

    def start(self, on_change: Callable[[bool], None]) -> None:
        """Call ``on_change`` with each change, from another thread."""
        self._thread = threading.Thread(
            target=self._run, args=(on_change,), name="database", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """A database that does not answer delays this by a few seconds at most."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _run(self, on_change: Callable[[bool], None]) -> None:
        while not self._stop.wait(self._probe_seconds):
            failure = self._probe()
            answers = failure is None
            if answers != self.answers:
                self.answers = answers
                if failure is None:
                    _LOG.warning("the database answers again")
                else:
                    _LOG.warning("the database is away: %s", self._database.explained(failure))
                on_change(answers)

    def _probe(self) -> Exception | None:
        try:
            self._database.ping()
        except Exception as error:
            # No error may end this thread.
            return error
        return None
