"""The native transport: unary RPCs in batches; all other RPCs go on to grpcio.

The front (native_front.py) reads requests outside of the interpreter's lock. One thread takes the
requests that wait, all at once. RPCs of a method with a Batch run together in this thread, or as
one group of a commit; the others run in the pools, as on grpcio. Streaming RPCs and reflection go
through the front to grpcio on a Unix socket of this process.

The front has no limit for the bytes of requests that it has not passed on yet: memory_guard.py
bounds them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from tollwire.service.rpc import error_map
from tollwire.service.rpc.batches import AdmittedRpc, admitted
from tollwire.service.rpc.call import Metadata
from tollwire.service.rpc.capacity import RequestBytes
from tollwire.service.rpc.endpoints import Endpoint, success_trailers
from tollwire.service.rpc.pipeline import RpcContext
from tollwire.service.rpc.status import Failure, StatusCode
from tollwire.service.rpc.transports.memory_guard import MemoryGuard
from tollwire.service.rpc.transports.native_front import LEFT, Details, Event, Front
from tollwire.service.settings.parsing import Listen

# The requests that are taken at one time. Those above the slots of their pool are refused.
MAX_EVENTS = 4096
_POLL_SECONDS = 0.01
# The front drops what it has not sent when it closes, and does not tell what that is. It sends
# within some milliseconds; on a busy machine its thread waits longer for a processor.
FLUSH_SECONDS = 0.2

_AUTHORIZATION = "authorization"
_DETAILS_KEY = "grpc-status-details-bin"

_LOG = logging.getLogger("tollwire.native")


class NativeCall:
    """A unary RPC of a front, as an RpcCall."""

    __slots__ = ("_id", "_is_gone", "_open", "_peer", "_until", "metadata")

    def __init__(self, call_id: int, details: Details, opened: _Open) -> None:
        self._id = call_id
        self._open = opened
        self.metadata, self._peer, seconds = details
        self._until = None if seconds is None else time.monotonic() + seconds
        self._is_gone = False

    def remaining_seconds(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def is_wanted(self) -> bool:
        return not (self._is_gone or self._open.is_closed)

    def peer(self) -> str:
        return self._peer

    def identities(self) -> Iterator[str]:
        return iter(())

    def respond(self, rpc: RpcContext, outcome: bytes | Failure) -> None:
        """Send the outcome to the client, unless it has left."""
        if isinstance(outcome, Failure):
            self.fail(outcome)
            return
        self._open.calls.pop(self._id, None)
        trailers = success_trailers(rpc)
        if trailers:
            self._open.front.respond(self._id, outcome, None, trailers)
        else:
            self._open.front.respond(self._id, outcome)

    def fail(self, failure: Failure) -> None:
        """Send a status to the client, unless it has left."""
        self._open.calls.pop(self._id, None)
        metadata: tuple[tuple[str, str | bytes], ...] = failure.trailers
        if failure.details:
            metadata = ((_DETAILS_KEY, failure.details), *metadata)
        self._open.front.fail(self._id, failure.code.value, failure.message, metadata)

    def leave(self) -> None:
        """The client has left, or the deadline has passed."""
        self._is_gone = True


class _Open:
    """A front from its opening to its end, and its RPCs that are not answered yet, by id."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.calls: dict[int, NativeCall] = {}
        self.is_closed = False

    def close(self) -> None:
        """Close all connections. The handlers of their RPCs stop because their clients are gone."""
        self.is_closed = True
        self.front.close()
        self.calls.clear()


class NativeTransport:
    """One listening port. ``start``, then ``stop``, each once."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        listen: Listen,
        open_front: Callable[[Listen, Sequence[str]], Front],
        *,
        fallback_path: str,
        max_growth_bytes: int,
        request_bytes: RequestBytes,
        distinguishes_callers: bool,
    ) -> None:
        """``endpoints``: the unary methods. ``open_front`` binds the port for their paths; port 0
        picks a free one. Other methods go to ``fallback_path``. ``max_growth_bytes``: see
        MemoryGuard. ``request_bytes`` counts the large requests. ``distinguishes_callers``: one
        caller may not use all slots."""
        self._endpoints = tuple(endpoints)
        self._max_request_bytes = max((one.max_request_bytes for one in endpoints), default=0)
        self._paths = [f"/{one.service_name}/{one.method_name}" for one in endpoints]
        self._open_front = open_front
        self._fallback_path = fallback_path
        self._distinguishes_callers = distinguishes_callers
        self._lock = threading.Lock()
        self._is_stopped = False
        self._current = _Open(open_front(listen, self._paths))
        self.listen = Listen(listen.host, self._current.front.bound_port)
        self._guard = MemoryGuard(
            self._reopen, max_growth_bytes, passed_bytes=lambda: request_bytes.passed
        )

    def start(self) -> None:
        self._run(self._current)
        self._guard.start()

    def stop(self, grace_seconds: float) -> None:
        """Wait until all RPCs are answered and their clients have the answers, at most
        ``grace_seconds``; then close the port."""
        until = time.monotonic() + grace_seconds
        while self._current.calls and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        time.sleep(max(0.0, min(FLUSH_SECONDS, until - time.monotonic())))
        self._guard.close()
        with self._lock:
            self._is_stopped = True
            self._current.close()

    def _run(self, opened: _Open) -> None:
        opened.front.set_fallback(self._fallback_path)
        opened.front.start()
        name = "native-requests"
        threading.Thread(target=self._receive, args=(opened,), name=name, daemon=True).start()

    def _reopen(self) -> int:
        """Close all connections, and accept new ones. Returns 0: nothing is left."""
        with self._lock:
            if self._is_stopped:
                return 0
            self._current.close()
            self._current = _Open(self._open_front(self.listen, self._paths))
            self._run(self._current)
        return 0

    def _receive(self, opened: _Open) -> None:
        count = MAX_EVENTS
        while (events := opened.front.recv_batch_details(count)) is not None:
            count = MAX_EVENTS
            if any(len(event[3] or b"") > self._max_request_bytes for event in events):
                # No client of Tollwire sends such a request. The front copies each that it passes
                # on: take the next ones one by one, and let the guard run in between.
                count = 1
                self._guard.look()
            try:
                self._take(opened, events)
            except Exception:
                _LOG.exception("a batch of requests was not taken")
            # Nothing of them stays in memory while the thread waits.
            del events

    def _take(self, opened: _Open, events: Sequence[Event]) -> None:
        batches: dict[Endpoint, list[AdmittedRpc]] = {}
        for kind, call_id, method, request, _, details in events:
            if kind == LEFT:
                left = opened.calls.pop(call_id, None)
                if left is not None:
                    left.leave()
                continue
            assert request is not None and details is not None
            call = opened.calls[call_id] = NativeCall(call_id, details, opened)
            endpoint = self._endpoints[method]
            try:
                one = self._start(endpoint, call, request)
            except Exception:
                _LOG.exception("%s: defect", endpoint.name)
                call.fail(Failure(StatusCode.INTERNAL, error_map.DEFECT_MESSAGE))
                continue
            if one is not None:
                batches.setdefault(endpoint, []).append(one)
        for endpoint, batch in batches.items():
            _run_together(endpoint, batch)

    def _start(self, endpoint: Endpoint, call: NativeCall, request: bytes) -> AdmittedRpc | None:
        """Start an RPC; or return it, if it runs together with others."""
        rpc = endpoint.begin(call)
        authorization = _authorization(call.metadata) if self._distinguishes_callers else ""
        one = admitted(endpoint, rpc, request, authorization, call.respond)
        if one is None or endpoint.batch is not None:
            return one
        one.run_alone()
        return None


def _run_together(endpoint: Endpoint, batch: Sequence[AdmittedRpc]) -> None:
    assert endpoint.batch is not None
    try:
        endpoint.batch(batch)
    except Exception as error:
        for one in batch:
            one.fail_with_batch(error)


def _authorization(metadata: Metadata) -> str | bytes:
    return next((value for key, value in metadata if key == _AUTHORIZATION), "")
