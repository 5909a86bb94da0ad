"""Concurrent calls of one process share RPCs: ``Client.rate`` and ``Client.record``.

While a group of calls is on its way, further calls wait; they are the next group, and leave as soon
as the one before has its response. Nothing waits for a group to fill: a call that is alone is sent
at once. Each group is sent by one of the threads that wait for it, so there is no other thread.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from tollwire.v1.types_pb2 import Call

T = TypeVar("T")

# A message of this many calls of this size stays below the server's limits: further calls form the
# next group, and a larger call is sent on its own.
GROUP_CALLS = 1_000
LARGE_CALL_BYTES = 2_048


class _Entry(Generic[T]):
    """A call that waits for its result. ``leads``: its thread sends the next group."""

    __slots__ = ("call", "error", "leads", "ready", "results")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.ready = threading.Lock()
        self.ready.acquire()
        self.leads = False
        self.results: list[T] = []  # one, if there is no error
        self.error: Exception | None = None


class Coalescer(Generic[T]):
    """Sends calls in groups. ``send`` returns one result for each call, in order, or raises an
    exception, which is then that of each call. At most one thread runs it at a time."""

    def __init__(self, send: Callable[[list[Call]], Sequence[T]]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: deque[_Entry[T]] = deque()
        self._is_busy = False

    def __call__(self, call: Call) -> T:
        """The result of this call. Any number of threads may call it."""
        while True:
            entry: _Entry[T] = _Entry(call)
            with self._lock:
                entry.leads = not self._is_busy
                self._is_busy = True
                if not entry.leads:
                    self._waiting.append(entry)
            try:
                if not entry.leads:
                    entry.ready.acquire()
                if entry.leads:
                    self._lead(entry)
            except BaseException:  # an interrupt: the others must not wait for this thread
                self._leave(entry)
                raise
            if entry.error is not None:
                # Many threads may get it, and each adds its traceback.
                raise copy.copy(entry.error)
            if entry.results:
                return entry.results[0]
            # The thread that sent the group was interrupted.

    def _lead(self, entry: _Entry[T]) -> None:
        """Send the group of the calls that wait, then let the next leader send the next."""
        with self._lock:
            size = min(len(self._waiting), GROUP_CALLS - 1)
            group = [entry, *(self._waiting.popleft() for _ in range(size))]
        try:
            results = self._send([one.call for one in group])
            for one, result in zip(group, results, strict=True):
                one.results.append(result)
        except Exception as error:
            for one in group:
                one.error = error
        finally:
            entry.leads = False
            self._pass_on()
            for one in group[1:]:
                one.ready.release()

    def _pass_on(self) -> None:
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            self._is_busy = following is not None
            if following is not None:
                following.leads = True
        if following is not None:
            following.ready.release()

    def _leave(self, entry: _Entry[T]) -> None:
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)
        if entry.leads:
            entry.leads = False
            self._pass_on()
