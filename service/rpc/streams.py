"""Streaming RPCs: their limit, and their end when the server stops.

A stream occupies a thread while it is open. So their number is limited, and one above the limit is
refused at once. A stream of requests may be open for days. When the server stops it ends between
two requests, with UNAVAILABLE, so that its client connects to another server and does not delay the
stop.

Another thread can end a stream whose own thread waits for the client (StreamCall.end).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from tollwire.service.domain.errors import Exhausted, Reason, Unavailable, shutting_down
from tollwire.service.rpc import error_map
from tollwire.service.rpc.call import ClientGone, StreamCall
from tollwire.service.rpc.capacity import RequestBytes

T = TypeVar("T")

# grpc sometimes reports a client that has disconnected as a normal end of its requests, and the
# cancellation a moment later (measured: within 20 ms). If the end of the requests means that the
# input is complete, the server waits for that time first. It sleeps in slices, so that grpc's
# thread can run.
SETTLE_SLICES = 10
SETTLE_SLICE_SECONDS = 0.01


class StreamOver(Exception):
    """The stream has ended: its client has disconnected, or the server stops and has sent the
    status. The handler must end too, and roll back what is not committed."""


class Stream:
    """One streaming RPC. The handler's thread calls ``receive``. The thread that stops the server
    may end the stream while the handler waits for the client."""

    def __init__(self, streams: Streams, call: StreamCall) -> None:
        self._streams = streams
        self._call = call
        self._lock = threading.Lock()
        self._idle = False
        self._ended = False
        self._held_bytes = 0
        self._gone = threading.Event()
        if not call.on_end(self._gone.set):
            self._gone.set()

    @property
    def over(self) -> bool:
        return self._ended or self._gone.is_set()

    def receive(self, *, end_counts: bool) -> bytes:
        """The next request. StopIteration at their end; with ``end_counts`` only after it is
        certain that the client has sent the end. StreamOver if the client has disconnected or the
        server stops.

        Releases the bytes of the previous request. Waits, and so slows the client down, while the
        requests in progress have reached the limit of bytes."""
        self.release_bytes()
        self._streams.request_bytes.wait_for_space(lambda: self.over or self._streams.stopping)
        with self._lock:
            if self._streams.stopping:
                self._end()
                raise StreamOver
            self._idle = True
        try:
            request = self._call.receive()
            if request is None:
                if end_counts:
                    self._settle()
                raise StopIteration
            self._held_bytes = self._streams.request_bytes.acquire(request)
            return request
        except ClientGone as error:
            raise StreamOver from error
        finally:
            self._leave_idle()

    def release_bytes(self) -> None:
        """Release the bytes of the last request: it is no longer in progress."""
        self._streams.request_bytes.release(self._held_bytes)
        self._held_bytes = 0

    def _leave_idle(self) -> None:
        with self._lock:
            self._idle = False
            if self._ended:
                # A request that arrives at the same moment is ignored: the client gets the status.
                raise StreamOver

    def _settle(self) -> None:
        for _ in range(SETTLE_SLICES):
            if self._gone.wait(SETTLE_SLICE_SECONDS):
                raise StreamOver

    def watch(self) -> None:
        """Mark the stream as one that only sends."""
        with self._lock:
            self._idle = True

    def send(self, response: bytes) -> None:
        """Send, unless the stream has ended. For streams marked with ``watch``."""
        with self._lock:
            if not self.over:
                self._call.send(response)

    def end_if_idle(self) -> None:
        with self._lock:
            if self._idle and not self._ended:
                self._end()

    def _end(self) -> None:
        """Send the client the status that the server stops. The caller holds the lock."""
        self._ended = True
        self._call.end(error_map.status(error_map.ERROR_TABLE[Unavailable], shutting_down()))


class Requests(Generic[T]):
    """The requests of one stream, decoded: an iterator.

    ``end_counts``: the end means that the input is complete, so the end must be certain. The reader
    may clear this when the stated number of elements has arrived.
    """

    def __init__(
        self,
        stream: Stream,
        decode: Callable[[bytes], T],
        *,
        end_counts: bool,
    ) -> None:
        self._stream = stream
        self._decode = decode
        self.end_counts = end_counts

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self._decode(self._stream.receive(end_counts=self.end_counts))


class Streams:
    """The open streams of one kind, at most ``limit`` of them. Thread-safe."""

    def __init__(self, limit: int, request_bytes: RequestBytes | None = None) -> None:
        self._limit = limit
        self.request_bytes = request_bytes or RequestBytes()
        self._lock = threading.Lock()
        self._open: set[Stream] = set()
        self.stopping = False

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def opened(self, call: StreamCall) -> Iterator[Stream]:
        """A stream that counts as open during the block. Exhausted if the limit is reached."""
        stream = self.open(call)
        try:
            yield stream
        finally:
            stream.release_bytes()
            self.close(stream)

    def open(self, call: StreamCall) -> Stream:
        with self._lock:
            if self.stopping:
                raise shutting_down()
            if len(self._open) >= self._limit:
                raise Exhausted(
                    Reason.TOO_MANY_STREAMS,
                    f"all {self._limit} streams are in use; try again later, or send"
                    " more in each message over fewer streams",
                )
            stream = Stream(self, call)
            self._open.add(stream)
            return stream

    def close(self, stream: Stream) -> None:
        with self._lock:
            self._open.discard(stream)

    def stop(self) -> None:
        """End the streams that wait for their clients; others end before their next request."""
        with self._lock:
            self.stopping = True
            waiting = list(self._open)
        for stream in waiting:
            stream.end_if_idle()
