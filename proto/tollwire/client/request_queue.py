"""The queue of requests of a stream, filled by the thread that also reads the responses.

gRPC reads a stream's requests from an iterator, in its own thread. If the iterator read files or a
database, it would run in a thread that its owner does not expect, and after a broken stream the
thread would keep the file open. So the iterator only reads from a queue.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class ActiveRpc(Protocol):
    """The part of a running RPC that is used here."""

    def is_active(self) -> bool: ...


_POLL_SECONDS = 0.2


class RequestQueue(Generic[T]):
    """A queue of requests for one RPC. ``size``: the limit of requests that gRPC has not read, for
    ``send``; 0 for none, where the sender itself waits for responses."""

    def __init__(self, size: int = 0) -> None:
        self._size = size
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._read = queue.SimpleQueue[None]()
        for _ in range(size):
            self._read.put(None)

    def __iter__(self) -> Iterator[T]:
        while (request := self._queue.get()) is not None:
            if self._size:
                self._read.put(None)
            yield request

    def put(self, request: T) -> None:
        """Add a request without waiting."""
        self._queue.put(request)

    def send(self, request: T, call: ActiveRpc) -> bool:
        """Wait for free space. Returns False if the RPC has ended; then the request is not sent."""
        while call.is_active():
            try:
                self._read.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            self._queue.put(request)
            return True
        return False

    def end(self) -> None:
        """End the stream of requests. A second end does nothing."""
        self._queue.put(None)
