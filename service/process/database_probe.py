"""Whether the database answers, asked again and again in a thread of its own.

Whoever wants to know is told of each change. One answer that does not come is enough for "away",
and one that does for "back": clients that go elsewhere lose nothing by it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tollwire.service.storage.engine import Database

_LOG = logging.getLogger("tollwire.database")

_ASK_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


class DatabasePresence:
    """``follow`` once the database has answered; ``close`` at the end."""

    def __init__(self, database: Database, ask_seconds: float = _ASK_SECONDS) -> None:
        self._database = database
        self._ask_seconds = ask_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.answers = True

    def follow(self, tell: Callable[[bool], None]) -> None:
        """Calls ``tell`` with each change, from another thread."""
        self._thread = threading.Thread(
            target=self._follow, args=(tell,), name="database", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """A database that does not answer delays it by seconds at most."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _follow(self, tell: Callable[[bool], None]) -> None:
        while not self._stop.wait(self._ask_seconds):
            failure = self._ask()
            answers = failure is None
            if answers != self.answers:
                self.answers = answers
                if failure is None:
                    _LOG.warning("the database answers again")
                else:
                    _LOG.warning("the database is away: %s", self._database.explained(failure))
                tell(answers)

    def _ask(self) -> Exception | None:
        try:
            self._database.ping()
        except Exception as error:
            # Whatever it is, this thread must not end.
            return error
        return None
