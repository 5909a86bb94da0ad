"""Streaming RPCs: their limit, and their end when the server stops.

A stream occupies a thread while it is open. So their number is limited, and one above the limit is
refused at once. A stream of requests may be open for days. When the server stops it ends between
two requests, with UNAVAILABLE, so that its client connects to another server and does not delay the
stop.

Another thread can end a stream whose own thread waits for the client (StreamCall.end). It does so
too when the wait takes too long: a client that sends nothing, or reads nothing, would keep its slot
for ever (ClientWaits).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from tollwire.service.domain.background_thread import BackgroundThread
from tollwire.service.domain.errors import (
    Exhausted,
    Reason,
    TollwireError,
    Unavailable,
    shutting_down,
)
from tollwire.service.rpc import error_map
from tollwire.service.rpc.call import ClientGone, StreamCall
from tollwire.service.rpc.capacity import RequestBytes
from tollwire.service.rpc.pools import RpcKind
from tollwire.service.settings.config import DEFAULT_STREAM_WAIT_SECONDS

T = TypeVar("T")

_LOG = logging.getLogger("tollwire.rpc")

# grpc sometimes reports a client that has disconnected as a normal end of its requests, and the
# cancellation a moment later (measured: within 20 ms). If the end of the requests means that the
# input is complete, the server waits for that time first. It sleeps in slices, so that grpc's
# thread can run.
SETTLE_SLICES = 10
SETTLE_SLICE_SECONDS = 0.01
# The longest wait for the thread of ClientWaits, which may be ending streams.
SWEEP_CLOSE_SECONDS = 2.0


class StreamOver(Exception):
    """The stream has ended: its client has disconnected, or the server stops and has sent the
    status. The handler must end too, and roll back what is not committed."""


class Stream:
    """One streaming RPC. The handler's thread calls ``receive``. The thread that stops the server
    may end the stream while the handler waits for the client."""

    def __init__(self, streams: Streams, call: StreamCall, kind: RpcKind) -> None:
        self.kind = kind
        # Why the server has ended the stream before its handler; None: its client has left, or the
        # server stops.
        self.fault: TollwireError | None = None
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
            with self._streams.client_waits.wait(self, self._end_as_idle):
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

    def respond(self, response: bytes) -> None:
        """Send a response in the handler's thread."""
        with self._streams.client_waits.wait(self, self._break_off):
            self._call.send(response)

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
        self._end_with(shutting_down())

    def _end_with(self, error: Unavailable) -> None:
        self._ended = True
        self._call.end(error_map.status(error_map.ERROR_TABLE[Unavailable], error))

    def _end_as_idle(self, seconds: float) -> None:
        """The client has sent no request for ``seconds``."""
        with self._lock:
            if self._idle and not self._ended:
                self.fault = error = stream_idle(seconds)
                self._end_with(error)

    def _break_off(self, seconds: float) -> None:
        """The client has not read a response for ``seconds``."""
        with self._lock:
            if not self._ended:
                self.fault = error = response_not_read(seconds)
                self._ended = True
                self._call.break_off(error_map.status(error_map.ERROR_TABLE[Exhausted], error))


def stream_idle(seconds: float) -> Unavailable:
    return Unavailable(
        Reason.STREAM_IDLE,
        f"the client has sent no request for {seconds:g} s, so the server has ended the stream;"
        " responses remain valid, open a new stream to continue",
    )


def response_not_read(seconds: float) -> Exhausted:
    # The client gets this text only, without the reason beside it.
    return Exhausted(
        Reason.RESPONSE_NOT_READ,
        f"RESPONSE_NOT_READ: the client has not read a response for {seconds:g} s, so the server"
        " has ended the stream",
    )


class ClientWaits:
    """Limits the time for which streams wait for their clients. Thread-safe. The thread starts with
    the first wait."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: dict[Stream, tuple[float, Callable[[float], None]]] = {}
        self._lock = threading.Lock()
        self._is_started = False
        self._thread = BackgroundThread(
            "client-waits", self._sweep, close_seconds=SWEEP_CLOSE_SECONDS
        )

    @contextmanager
    def wait(self, stream: Stream, end: Callable[[float], None]) -> Iterator[None]:
        """The block waits for the client of ``stream``. ``end`` is called, with the seconds, if it
        takes too long."""
        if not self._is_started:
            self._start()
        self._waits[stream] = (time.monotonic() + self._seconds, end)
        try:
            yield
        finally:
            del self._waits[stream]

    def _start(self) -> None:
        with self._lock:
            if not self._is_started and not self._thread.stop.is_set():
                self._is_started = True
                self._thread.start()

    def _sweep(self, stop: threading.Event) -> None:
        while not stop.wait(min(1.0, self._seconds / 4)):
            now = time.monotonic()
            for until, end in list(self._waits.values()):
                if now > until:
                    try:
                        end(self._seconds)
                    except Exception:  # the limit of the other streams must stay
                        _LOG.exception("a stream that waits for its client was not ended")

    def close(self) -> None:
        self._thread.close()


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
    """The open streams, at most ``limit`` of each kind. Thread-safe. Call ``stop`` at the end."""

    def __init__(
        self,
        limit: int,
        request_bytes: RequestBytes | None = None,
        wait_seconds: float = DEFAULT_STREAM_WAIT_SECONDS,
    ) -> None:
        """``wait_seconds``: the longest wait for a client to send a request, or to read a
        response."""
        self._limit = limit
        self.client_waits = ClientWaits(wait_seconds)
        self.request_bytes = request_bytes or RequestBytes()
        self._lock = threading.Lock()
        self._open: set[Stream] = set()
        self._open_of_kind: Counter[RpcKind] = Counter()
        self.stopping = False

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def opened(self, call: StreamCall, kind: RpcKind) -> Iterator[Stream]:
        """A stream that counts as open during the block. Exhausted if the limit is reached."""
        stream = self.open(call, kind)
        try:
            yield stream
        finally:
            stream.release_bytes()
            self.close(stream)

    def open(self, call: StreamCall, kind: RpcKind) -> Stream:
        with self._lock:
            if self.stopping:
                raise shutting_down()
            if self._open_of_kind[kind] >= self._limit:
                raise Exhausted(
                    Reason.TOO_MANY_STREAMS,
                    f"all {self._limit} slots for {kind.value} are in use; try again later, or send"
                    " more in each message over fewer streams",
                )
            stream = Stream(self, call, kind)
            self._open.add(stream)
            self._open_of_kind[kind] += 1
            return stream

    def close(self, stream: Stream) -> None:
        with self._lock:
            if stream in self._open:
                self._open.remove(stream)
                self._open_of_kind[stream.kind] -= 1

    def stop(self) -> None:
        """End the streams that wait for their clients; others end before their next request."""
        with self._lock:
            self.stopping = True
            waiting = list(self._open)
        for stream in waiting:
            stream.end_if_idle()
        self.client_waits.close()
