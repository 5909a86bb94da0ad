"""The progress of a server's workers in following rate changes, in memory that they share.

The supervisor creates the memory, with one number for each worker, and clears the number of a
worker that has ended. A worker that changes rates waits here until the others have loaded the
change. Must not depend on rates or the database: it handles only increasing numbers.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable
from typing import IO

# The environment variable of a worker: its index, and the descriptor of the shared memory.
VARIABLE = "TOLLWIRE_WORKER_PROGRESS"

_NUMBER_BYTES = 8
_POLL_SECONDS = 0.002


def shared(workers: int) -> IO[bytes]:
    """Memory for this number of workers: a file without a name, deleted when the last process
    closes it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed by the caller
    file.truncate(workers * _NUMBER_BYTES)
    return file


class Progress:
    """The numbers that the workers have reached; 0: the worker does not serve. Thread-safe: only
    one process writes a number, in one store."""

    def __init__(self, descriptor: int, index: int = -1) -> None:
        """``index``: the worker's index; -1: this process is not a worker."""
        self._numbers = memoryview(mmap.mmap(descriptor, 0)).cast("q")
        self._index = index
        # Workers that did not catch up during a wait, with the numbers they had reached: they may
        # hang.
        self._stuck: dict[int, int] = {}

    def report(self, number: int) -> None:
        """This worker has reached ``number`` (0 or more)."""
        self._numbers[self._index] = number + 1

    def clear(self, index: int) -> None:
        """The worker has ended."""
        self._numbers[index] = 0

    def wait(self, number: int, seconds: float, is_wanted: Callable[[], bool]) -> bool:
        """Wait until every worker that serves has reached ``number``, at most ``seconds``, and only
        while ``is_wanted``. After a worker did not catch up, later calls do not wait for it until
        its number changes. Returns whether all workers have reached the number."""
        until = time.monotonic() + seconds
        while behind := self._behind(number + 1):
            moving = {index: at for index, at in behind.items() if self._stuck.get(index) != at}
            if not moving:
                return False
            if time.monotonic() >= until or not is_wanted():
                self._stuck |= moving
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _behind(self, number: int) -> dict[int, int]:
        return {
            index: at
            for index, at in enumerate(self._numbers)
            if index != self._index and 0 < at < number
        }


def of_this_worker() -> Progress | None:
    """The shared memory that the supervisor has passed to this worker; None if there is none."""
    given = os.environ.pop(VARIABLE, "")
    if not given:
        return None
    index, _, descriptor = given.partition(":")
    return Progress(int(descriptor), int(index))
