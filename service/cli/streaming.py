"""The queue of requests of a stream, filled by the thread that also reads the responses.

gRPC reads a stream's requests from an iterator, in its own thread. If the iterator read files,
their errors would be lost, and after a broken stream the thread would keep the file open. So the
iterator only reads from a queue.
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
    """A queue of requests for one RPC. ``size``: the limit of requests that gRPC has not read."""

    def __init__(self, size: int) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(size)

    def __iter__(self) -> Iterator[T]:
        while (request := self._queue.get()) is not None:
            yield request

    def send(self, request: T, call: ActiveRpc) -> bool:
        """Wait for free space. Returns False if the RPC has ended; then the request is not sent."""
        while call.is_active():
            try:
                self._queue.put(request, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def close(self, call: ActiveRpc) -> None:
        """End the stream of requests, unless the RPC is cancelled or has ended."""
        while True:
            try:
                self._queue.put(None, timeout=_POLL_SECONDS)
                return
            except queue.Full:
                if not call.is_active():
                    self._queue.get_nowait()  # the RPC has ended: make space for the end
