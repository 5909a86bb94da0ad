"""Bounds the memory of a worker whose transport does not bound the requests that it reads.

A client can send a message without an end, or a small one that is unpacked to gigabytes. The guard
compares the memory that the process holds with what it held at its start. Above the limit it closes
all connections, which frees the unfinished requests. The transport cannot stop to unpack a message,
so the process may grow while it closes: above twice the limit the process ends. Its parent starts
another worker (service/process/workers.py).
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import threading
from collections.abc import Callable

from tollwire.service.domain.background_thread import BackgroundThread

# Between two looks. A client can send some 100 MiB in this time.
GUARD_SECONDS = 0.1
# While the connections are being closed.
CLOSING_SECONDS = 0.02
# The exit code of a worker that has used too much memory.
MEMORY_EXIT = 71
_PAGE_BYTES = resource.getpagesize()

_LOG = logging.getLogger("tollwire.native")


def end_process() -> None:
    """End this process at once. What is not committed is rolled back."""
    logging.shutdown()
    os._exit(MEMORY_EXIT)


class MemoryGuard:
    """Calls ``reopen``, which closes all connections, when the process has grown by more than
    ``max_growth_bytes`` since the start or the last ``reopen``; and ``end`` when it grows by twice
    as much."""

    def __init__(
        self,
        reopen: Callable[[], None],
        max_growth_bytes: int,
        end: Callable[[], None] = end_process,
    ) -> None:
        self._reopen = reopen
        self._max_growth_bytes = max_growth_bytes
        self._end = end
        self._thread = BackgroundThread(
            "native-memory", self._watch, close_seconds=10 * GUARD_SECONDS
        )

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._thread.close()

    def _watch(self, stop: threading.Event) -> None:
        limit = resident_bytes() + self._max_growth_bytes
        while not stop.wait(GUARD_SECONDS):
            found = resident_bytes()
            if found <= limit:
                continue
            _LOG.warning("this process has grown to %d MiB: closing all connections", found >> 20)
            self._close_connections(limit + self._max_growth_bytes)
            _return_free_memory()
            limit = resident_bytes() + self._max_growth_bytes

    def _close_connections(self, limit: int) -> None:
        closing = threading.Thread(target=self._reopen, name="native-reopen", daemon=True)
        closing.start()
        while closing.is_alive():
            closing.join(CLOSING_SECONDS)
            found = resident_bytes()
            if found > limit:
                _LOG.critical(
                    "this process has grown to %d MiB while it closes its connections: ending it",
                    found >> 20,
                )
                self._end()
                return


def resident_bytes() -> int:
    """The memory that this process holds."""
    # Ten times a second in an idle server too: not through pathlib and a text file.
    file = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        return int(os.read(file, 100).split()[1]) * _PAGE_BYTES
    finally:
        os.close(file)


def _return_free_memory() -> None:
    """Return what malloc has kept to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)
