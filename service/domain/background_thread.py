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
        self._close_seconds = close_seconds
        self._thread = threading.Thread(target=work, args=(self.stop,), name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, if it was started, and wait for its end."""
        self.stop.set()
        if self._thread.ident is not None:
            self._thread.join(self._close_seconds)
