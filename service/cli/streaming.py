"""The sending half of a stream of requests, fed from the thread that also reads the answers.

gRPC takes a stream's requests from an iterator, in a thread of its own. Reading files there would
put their errors where nobody can catch them, and leave a dead stream's thread holding the file; so
that thread only empties a queue.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Call(Protocol):
    """What is asked of an RPC in flight."""

    def is_active(self) -> bool: ...


_POLL_SECONDS = 0.2


class RequestQueue(Generic[T]):
    """Requests on their way into one RPC. ``size`` bounds those that gRPC has not taken yet."""

    def __init__(self, size: int) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(size)

    def __iter__(self) -> Iterator[T]:
        while (request := self._queue.get()) is not None:
            yield request

    def send(self, request: T, call: Call) -> bool:
        """Waits for room; False where the RPC ended meanwhile, and the request went nowhere."""
        while call.is_active():
            try:
                self._queue.put(request, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def close(self, call: Call) -> None:
        """No more requests. Tells the server so, unless the RPC is cancelled or over."""
        while True:
            try:
                self._queue.put(None, timeout=_POLL_SECONDS)
                return
            except queue.Full:
                if not call.is_active():
                    self._queue.get_nowait()  # nobody will take it; make room for the end
