"""Limits the chunks that use the database at one time, and retries while it is unavailable.

A few chunks run at one time; the others wait for a slot as long as other chunks complete. A chunk
that the database could not commit releases its slot and is retried after increasing pauses. When
the time limit is reached the stream fails; the client got no response and sends the chunk again. An
attempt must be idempotent.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tollwire.service.domain.errors import Reason, Unavailable, unwanted

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
# The interval at which a chunk that waits for a slot checks that its client is still connected.
_CHECK_SECONDS = 0.25


class ChunkLimiter:
    """``slots``: the number of chunks at one time. ``patience_seconds``: the time for which a
    failed attempt is retried, and a chunk waits for a slot while no chunk completes.
    Thread-safe."""

    def __init__(self, slots: int, patience_seconds: float) -> None:
        self._free = threading.Semaphore(slots)
        self._patience_seconds = patience_seconds
        self._done = 0

    def run(self, attempt: Callable[[], T], is_wanted: Callable[[], bool]) -> T:
        """Return the result of ``attempt``, or raise its exception. Unavailable
        DATABASE_UNAVAILABLE after ``patience_seconds``, or when ``is_wanted`` returns False: the
        client no longer waits. Unwanted if that happens before the chunk has a slot."""
        until = time.monotonic() + self._patience_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                with self._slot(is_wanted):
                    return attempt()
            except Unavailable as error:
                if error.reason != Reason.DATABASE_UNAVAILABLE or not is_wanted():
                    raise
                left_seconds = until - time.monotonic()
                if left_seconds <= 0:
                    raise
            # Random pauses, so that the chunks do not all retry at the same moment.
            time.sleep(min(left_seconds, pause_seconds * random.uniform(0.5, 1)))
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    @contextmanager
    def _slot(self, is_wanted: Callable[[], bool]) -> Iterator[None]:
        seen = self._done
        until = time.monotonic() + self._patience_seconds
        while not self._free.acquire(timeout=_CHECK_SECONDS):
            if not is_wanted():
                raise unwanted()
            if self._done != seen:
                seen = self._done
                until = time.monotonic() + self._patience_seconds
            elif time.monotonic() > until:
                raise Unavailable(
                    Reason.DATABASE_UNAVAILABLE,
                    "the database completes no transactions; nothing was changed, try again later",
                )
        try:
            yield
            self._done += 1
        finally:
            self._free.release()
