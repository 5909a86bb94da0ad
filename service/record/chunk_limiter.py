"""Turns at the database for streams of chunks, and patience with a database that is away.

A few work at one time; the others wait for their turn, for as long as it goes on. A chunk that the
database could not take is tried again after growing pauses, its turn given up meanwhile, until the
patience is at an end: its stream then fails, and its sender, who was not answered, sends it again.
What is tried must be such that it may be tried again although it was done.
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
# How often who waits for a turn looks whether the client still does.
_LOOK_SECONDS = 0.25


class Turns:
    """``places`` turns at one time, and ``patience_seconds`` for what fails, or for a turn while
    nobody gets on. Thread-safe."""

    def __init__(self, places: int, patience_seconds: float) -> None:
        self._free = threading.Semaphore(places)
        self._patience_seconds = patience_seconds
        self._done = 0

    def work(self, attempt: Callable[[], T], is_wanted: Callable[[], bool]) -> T:
        """What ``attempt`` returns or raises. Unavailable DATABASE_UNAVAILABLE only after patience,
        or once ``is_wanted`` says that nobody waits for it any more; Unwanted where that is so
        before its turn comes."""
        until = time.monotonic() + self._patience_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                with self._turn(is_wanted):
                    return attempt()
            except Unavailable as error:
                if error.reason != Reason.DATABASE_UNAVAILABLE or not is_wanted():
                    raise
                left_seconds = until - time.monotonic()
                if left_seconds <= 0:
                    raise
            # Not all at the same moment, when it comes back.
            time.sleep(min(left_seconds, pause_seconds * random.uniform(0.5, 1)))
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    @contextmanager
    def _turn(self, is_wanted: Callable[[], bool]) -> Iterator[None]:
        seen = self._done
        until = time.monotonic() + self._patience_seconds
        while not self._free.acquire(timeout=_LOOK_SECONDS):
            if not is_wanted():
                raise unwanted()
            if self._done != seen:
                seen = self._done
                until = time.monotonic() + self._patience_seconds
            elif time.monotonic() > until:
                raise Unavailable(
                    Reason.DATABASE_UNAVAILABLE,
                    "the database takes nothing from anybody; nothing was changed, try again later",
                )
        try:
            yield
            self._done += 1
        finally:
            self._free.release()
