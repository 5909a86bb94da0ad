"""The threads that handlers run in: pools by kind of work, none of which lets anybody wait unseen.

grpc hands each RPC to a pool of threads, and what finds none there waits in line for as long as it
takes. Its own limit (``maximum_concurrent_rpcs``) refuses at once, but with a bare status, without
reason and without a hint when to try again. A ``Pool`` takes a bounded number of RPCs. For one
more XX before anything is read, which takes no longer than any other answer and waits for
nobody.

Kinds have pools of their own, so that what is slow cannot take the threads of what is fast. Which
method is of which kind stands here, in one table.

An RPC has its thread from when it comes, and must not keep it without sending its message:
``Arrivals`` sends such a client away.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

# Rating from memory is done by the processor alone, so more threads than these only take it from
# each other. What comes meanwhile waits in line, for some milliseconds.
RATING_THREADS = 16
BATCH_THREADS = 8
# These take the longer the larger the tables are, and hold a connection to the database meanwhile.
LONG_SHARE = 8
# Probes ask some times a minute.
HEALTH_THREADS = 32
REFLECTION_THREADS = 8

# How long a message may be under way: 32 MiB on a line of 10 Mbit/s.
ARRIVAL_SECONDS = 30.0
# Anybody may ask for the health, and with a few bytes.
HEALTH_ARRIVAL_SECONDS = 2.0
_SWEEP_SECONDS = 0.5
_SAID = "authorization"
# Clients that go on have sent something by then.
QUIET_SECONDS = 0.1


class Kind(Enum):
    """What an RPC is to the server's threads; the value is what it is called in messages."""

    RATING = "calls to rate"
    BATCH = "batches to rate"
    ORDINARY = "requests"
    LONG = "requests that may go through whole tables"
    STREAM = "streams"
    HEALTH = "questions for health"
    REFLECTION = "reflection streams"


_KINDS = {
    "RatingService/RateCall": Kind.RATING,
    "RatingService/BatchRateCalls": Kind.BATCH,
    "RatingService/ListRates": Kind.LONG,
    "CdrService/ExplainCdr": Kind.LONG,
    "CdrService/ListCdrs": Kind.LONG,
    "CdrService/ListUploadFailures": Kind.LONG,
    "CdrService/RateUnrated": Kind.LONG,
    "CdrService/ReverseUpload": Kind.LONG,
    "CdrService/SummarizeUsage": Kind.LONG,
}
_SERVICE_KINDS = {"Health": Kind.HEALTH, "ServerReflection": Kind.REFLECTION}

_ALWAYS = frozenset({Kind.HEALTH})


def kind_of(method: MethodDescriptor) -> Kind:
    service = method.containing_service.name
    if service in _SERVICE_KINDS:
        return _SERVICE_KINDS[service]
    if method.client_streaming or method.server_streaming:
        return Kind.STREAM
    return _KINDS.get(f"{service}/{method.name}", Kind.ORDINARY)


class Place(Enum):
    """What an RPC has found."""

    THREAD = 0
    # All are taken: it is only to be refused.
    NONE = 1
    # The server stops, and takes nobody in any more.
    CLOSED = 2
    # There are some, but the caller has its share of them.
    NOT_FOR_CALLER = 3


class _Present(threading.local):
    place = Place.THREAD
    # What the RPC that is being handed over says of its caller.
    authorization: str | bytes = ""


_PRESENT = _Present()


def present_place() -> Place:
    """What the RPC has found that this thread is at."""
    return _PRESENT.place


class Authorizations(grpc.ServerInterceptor):
    """Lets the pools see who says to be asking, before anything waits in line. What is said may be
    wrong: it serves to keep those apart who ask often, and is looked into by the entrance."""

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        _PRESENT.authorization = next(
            (value for key, value in handler_call_details.invocation_metadata if key == _SAID), ""
        )
        return continuation(handler_call_details)


class Pool(ThreadPoolExecutor):
    """At most ``places`` RPCs at one time, of which ``threads`` are in work; of one caller that
    says who it is at most ``share`` of the places."""

    def __init__(self, name: str, threads: int, places: int, share: float = 1.0) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.places = places
        self._places_of_one = max(1, int(places * share))
        self._taken_by: Counter[str | bytes] = Counter()
        self.is_closed = False
        # When the last RPC came, by time.monotonic().
        self.last_came_at = -math.inf
        self._lock = threading.Lock()
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many RPCs there are just now."""
        return self._taken

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs ``fn`` in one of the threads; here and at once, without a place, where all of them
        are taken or the pool is closed."""
        self.last_came_at = time.monotonic()
        who = _PRESENT.authorization
        with self._lock:
            place = self._place(who)
            if place is Place.THREAD:
                self._taken += 1
                if who:
                    self._taken_by[who] += 1
        if place is Place.THREAD:
            return super().submit(self._work, who, fn, args, kwargs)
        refused: Future[Any] = Future()
        _PRESENT.place = place
        try:
            refused.set_result(fn(*args, **kwargs))
        finally:
            _PRESENT.place = Place.THREAD
        return refused

    def _place(self, who: str | bytes) -> Place:
        if self.is_closed:
            return Place.CLOSED
        if self._taken >= self.places:
            return Place.NONE
        if who and self._taken_by[who] >= self._places_of_one:
            return Place.NOT_FOR_CALLER
        return Place.THREAD

    def _work(self, who: str | bytes, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            with self._lock:
                self._taken -= 1
                if who:
                    self._taken_by[who] -= 1
                    if not self._taken_by[who]:
                        del self._taken_by[who]


class Pools:
    """The pools of one server, by kind. Close them once no RPC comes any more."""

    def __init__(self, max_rpcs: int, max_streams: int, share: float = 1.0) -> None:
        """``share`` is the part of the places for unary RPCs of a kind that one caller may have."""
        long = max(1, max_rpcs // LONG_SHARE)
        # More than there are places for streams: who finds none must have a thread to hear it from,
        # and one that ends frees its place a moment before its thread.
        streams = 2 * max_streams + 2
        self._pools: Mapping[Kind, Pool] = {
            Kind.RATING: Pool("rating", min(RATING_THREADS, max_rpcs), max_rpcs, share),
            Kind.BATCH: Pool("batch", min(BATCH_THREADS, max_rpcs), max_rpcs, share),
            # These wait for the database more than they work.
            Kind.ORDINARY: Pool("rpc", max_rpcs, max_rpcs, share),
            Kind.LONG: Pool("long", long, long, share),
            Kind.STREAM: Pool("stream", streams, streams),
            Kind.HEALTH: Pool("health", HEALTH_THREADS, HEALTH_THREADS),
            Kind.REFLECTION: Pool("reflection", REFLECTION_THREADS, REFLECTION_THREADS),
        }

    def __getitem__(self, kind: Kind) -> Pool:
        return self._pools[kind]

    def await_quiet(self, seconds: float) -> None:
        """Until no RPC has come for a moment; at most so long. Health does not count."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            quiet_at = self._last_came_at() + QUIET_SECONDS
            if now >= quiet_at:
                return
            time.sleep(min(quiet_at, until) - now)

    def _last_came_at(self) -> float:
        return max(pool.last_came_at for kind, pool in self._pools.items() if kind not in _ALWAYS)

    def refuse(self) -> None:
        """From now on nobody is taken in, but who asks for the health."""
        for kind, pool in self._pools.items():
            pool.is_closed = kind not in _ALWAYS

    def close(self) -> None:
        """Waits for all handlers to end."""
        for pool in self._pools.values():
            pool.shutdown()


class Arrivals:
    """The RPCs whose thread waits for their one message. Thread-safe; ``close`` at the end."""

    def __init__(
        self, seconds: float = ARRIVAL_SECONDS, health_seconds: float = HEALTH_ARRIVAL_SECONDS
    ) -> None:
        self._seconds = dict.fromkeys(Kind, seconds) | {Kind.HEALTH: health_seconds}
        self._until: dict[grpc.ServicerContext, float] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._sweep, name="arrivals", daemon=True).start()

    def expect(self, context: grpc.ServicerContext, kind: Kind) -> None:
        """From now on the message may be under way for so long as its kind may; then the RPC is
        cancelled."""
        self._until[context] = time.monotonic() + self._seconds[kind]

    def came(self, context: grpc.ServicerContext) -> None:
        """Whatever it was: nothing more is waited for."""
        del self._until[context]

    def _sweep(self) -> None:
        while not self._closed.wait(_SWEEP_SECONDS):
            now = time.monotonic()
            for context, until in self._until.copy().items():
                if now > until:
                    context.cancel()

    def close(self) -> None:
        self._closed.set()
