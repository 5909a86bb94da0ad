"""The sending half of a stream of requests, fed from the thread that also reads the answers.

gRPC takes a stream's requests from an iterator, in a thread of its own. Reading files there would
lose their errors, and leave the thread of a dead stream holding the file; so
that thread only empties a queue.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Call(Protocol):
    """The methods of an RPC in progress that are used here."""

    def is_active(self) -> bool: ...


_POLL_SECONDS = 0.2


class RequestQueue(Generic[T]):
    """A queue of requests for one RPC. ``size`` limits those that gRPC has not taken yet."""

    def __init__(self, size: int) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(size)

    def __iter__(self) -> Iterator[T]:
        while (request := self._queue.get()) is not None:
            yield request

    def send(self, request: T, call: Call) -> bool:
        """Waits for free space; False if the RPC has ended and the request was not sent."""
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
                    self._queue.get_nowait()  # the RPC has ended: make space for the end
