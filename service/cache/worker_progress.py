"""How far the workers of one server have followed the changes of rates, in memory that they share.

The process above the workers makes it, one number a worker, and takes back the number of a worker
that has died. A worker that changes rates waits here until the others rate with the change. Knows
neither rates nor the database: only numbers that rise.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable
from typing import IO

# What a worker finds its place by: its number and the descriptor of the shared memory.
VARIABLE = "TOLLWIRE_WORKER_PROGRESS"

_NUMBER_BYTES = 8
_POLL_SECONDS = 0.002


def shared(workers: int) -> IO[bytes]:
    """The memory for this many workers: a file without a name, gone with the last who has it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed by the caller
    file.truncate(workers * _NUMBER_BYTES)
    return file


class Progress:
    """Numbers that workers have reached; 0: the worker does not serve. Thread-safe: a number is
    written by one process, in one piece."""

    def __init__(self, descriptor: int, slot: int = -1) -> None:
        """``slot`` is the place of this process; -1: it has none."""
        self._numbers = memoryview(mmap.mmap(descriptor, 0)).cast("q")
        self._slot = slot
        # Workers that did not catch up within a wait, and what they had reached: they may hang.
        self._stuck: dict[int, int] = {}

    def report(self, number: int) -> None:
        """This worker has reached ``number`` (0 or more)."""
        self._numbers[self._slot] = number + 1

    def clear(self, slot: int) -> None:
        """The worker is gone."""
        self._numbers[slot] = 0

    def wait(self, number: int, seconds: float, is_wanted: Callable[[], bool]) -> bool:
        """Wait until every worker that serves has reached ``number``; at most so long, and while it
        is wanted. A worker that did not catch up is not waited for again before it moves.
        False where one has not reached it."""
        until = time.monotonic() + seconds
        while behind := self._behind(number + 1):
            moving = {slot: at for slot, at in behind.items() if self._stuck.get(slot) != at}
            if not moving:
                return False
            if time.monotonic() >= until or not is_wanted():
                self._stuck |= moving
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _behind(self, number: int) -> dict[int, int]:
        return {
            slot: at
            for slot, at in enumerate(self._numbers)
            if slot != self._slot and 0 < at < number
        }


def of_this_worker() -> Progress | None:
    """The memory that the process above has handed to this worker; None where it has not."""
    given = os.environ.pop(VARIABLE, "")
    if not given:
        return None
    slot, _, descriptor = given.partition(":")
    return Progress(int(descriptor), int(slot))
