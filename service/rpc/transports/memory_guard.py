"""Bounds the memory of requests that a transport reads before anything else can judge them.

The guard compares the memory that the process holds with the least that it has held. Above the
limit it gives up the requests that are being read: on grpcio it ends RPCs whose messages have not
arrived, which may have up to 32 MiB each, also for methods with smaller limits. On the native
transport a message can be without an end, or be unpacked to gigabytes: the guard closes all
connections. The transport cannot stop to unpack a message, so the process may grow while it closes:
above twice the limit the process ends. Its parent starts another worker
(service/process/workers.py). It grows by up to some 100 MiB in a tenth of a second, so the guard
looks more often while it grows.

The guard also returns memory to the system once large requests have passed: malloc would keep it.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import resource
import threading
import time
from collections.abc import Callable

from tollwire.service.domain.background_thread import BackgroundThread

# Between two looks. A client can send some 100 MiB in this time.
GUARD_SECONDS = 0.1
# While the process is idle: a wake-up costs a sleeping core more than the look itself.
IDLE_SECONDS = 0.3
IDLE_SHARE = 0.05  # of a core, at most
# While the process grows, and until it has not grown for GROWING_QUIET_SECONDS.
GROWING_SECONDS = 0.01
GROWING_BYTES = 4 * 2**20
GROWING_QUIET_SECONDS = 0.5
# While the connections are being closed.
CLOSING_SECONDS = 0.01
# The exit code of a worker that has used too much memory.
MEMORY_EXIT = 71
_PAGE_BYTES = resource.getpagesize()

# The large requests after which memory is returned, and the time without any of them before.
TRIM_BYTES = 8 * 2**20
TRIM_QUIET_SECONDS = 0.5

_LOG = logging.getLogger("tollwire.memory")


def end_process() -> None:
    """End this process at once. What is not committed is rolled back."""
    logging.shutdown()
    os._exit(MEMORY_EXIT)


class MemoryGuard:
    """Calls ``give_up``, which drops requests that are being read, when the process holds more than
    ``max_growth_bytes`` above the least that it has held, until that returns 0: nothing is dropped,
    or nothing is left, so the growth counts from then on. Calls ``end``, if given, when the process
    grows by twice as much meanwhile. ``passed_bytes`` returns the bytes of all
    large requests that have arrived so far."""

    def __init__(
        self,
        give_up: Callable[[], int],
        max_growth_bytes: int,
        end: Callable[[], None] | None = end_process,
        *,
        what: str = "closing all connections",
        passed_bytes: Callable[[], int] = int,
    ) -> None:
        self._give_up = give_up
        self._max_growth_bytes = max_growth_bytes
        self._end = end
        self._what = what
        self._passed_bytes = passed_bytes
        self._wake = threading.Event()
        self._looked_at = self._used = 0.0
        self._thread = BackgroundThread(
            "memory-guard", self._watch, close_seconds=10 * GUARD_SECONDS
        )

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """Look now, not only at the next interval. Any thread may call it."""
        self._wake.set()

    def close(self) -> None:
        self._thread.stop.set()
        self._wake.set()
        self._thread.close()

    def _watch(self, stop: threading.Event) -> None:
        before = resident_bytes()
        limit = before + self._max_growth_bytes
        trimmed = passed = 0
        passed_at = 0.0
        grown_at = -math.inf
        while not self._wait(stop, grown_at):
            found = resident_bytes()
            if found >= before + GROWING_BYTES:
                grown_at = time.monotonic()
            before = found
            # The limit counts from the least memory: requests hold more only for a time.
            limit = min(limit, found + self._max_growth_bytes)
            if found > limit:
                _LOG.warning("this process has grown to %d MiB: %s", found >> 20, self._what)
                if self._end is None:
                    is_over = not self._give_up()
                else:
                    is_over = True
                    self._watch_give_up(limit + self._max_growth_bytes, self._end)
                _return_free_memory()
                if is_over:
                    limit = resident_bytes() + self._max_growth_bytes
                continue
            now = time.monotonic()
            if passed != (passed := self._passed_bytes()):
                passed_at = now
            elif passed - trimmed >= TRIM_BYTES and now - passed_at >= TRIM_QUIET_SECONDS:
                trimmed = passed
                _return_free_memory()

    def _wait(self, stop: threading.Event, grown_at: float) -> bool:
        """Wait for the next look. True if there is none. ``grown_at``: when the process last
        grew."""
        now, used = time.monotonic(), time.process_time()
        is_idle = used - self._used <= IDLE_SHARE * (now - self._looked_at)
        self._looked_at, self._used = now, used
        if now < grown_at + GROWING_QUIET_SECONDS:
            seconds = GROWING_SECONDS
        else:
            seconds = IDLE_SECONDS if is_idle else GUARD_SECONDS
        self._wake.wait(seconds)
        self._wake.clear()
        return stop.is_set()

    def _watch_give_up(self, limit: int, end: Callable[[], None]) -> None:
        closing = threading.Thread(target=self._give_up, name="memory-give-up", daemon=True)
        closing.start()
        while closing.is_alive():
            closing.join(CLOSING_SECONDS)
            found = resident_bytes()
            if found > limit:
                _LOG.critical(
                    "this process has grown to %d MiB while it closes its connections: ending it",
                    found >> 20,
                )
                end()
                return


def resident_bytes() -> int:
    """The memory that this process holds."""
    # Several times a second in an idle server too: not through pathlib and a text file.
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
