"""A thread that works until it is closed. Must not depend on the work."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundThread:
    """Runs ``work`` in a daemon thread from ``start`` to ``close``.

    ``work`` gets the event ``stop``, waits only with ``stop.wait``, and returns soon after it is
    set.
    """

    def __init__(
        self, name: str, work: Callable[[threading.Event], None], *, close_seconds: float
    ) -> None:
        """``close_seconds``: the longest time that ``close`` waits for the thread."""
        self.stop = threading.Event()
        self._name = name
        self._work = work
        self._close_seconds = close_seconds
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        # Created only now: in a process that was forked meanwhile, it would count as ended.
        thread = threading.Thread(
            target=self._work, args=(self.stop,), name=self._name, daemon=True
        )
        thread.start()
        self._thread = thread

    def close(self) -> None:
        """Stop the thread, if it was started, and wait for its end."""
        self.stop.set()
        if self._thread is not None:
            self._thread.join(self._close_seconds)
