"""The threads of handlers: one pool of threads for each kind of RPC.

grpc submits each RPC to a pool, and a plain pool queues RPCs without a limit. grpc's own limit
(``maximum_concurrent_rpcs``) refuses at once, but without a reason and without a retry hint. A
``Pool`` has a fixed number of slots. An RPC without a free slot runs at once in grpc's own thread
and is marked as an RPC without a slot; the pipeline refuses it before anything is read.

Each kind has its own pool, so that slow RPCs cannot take the threads of fast ones. One table in
this module assigns the methods to the kinds.

An RPC with one message has a slot while its message is awaited, but no thread: arrivals.py. When
all slots are taken, a new RPC gets the slot of the one that has waited longest, so clients that
send no message keep nobody out. ``MessageDeadlines`` cancels an RPC whose message does not arrive
in time, and its thread reviews the RPCs that wait for memory.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import Any

from google.protobuf.descriptor import MethodDescriptor

from tollwire.service.domain.background_thread import BackgroundThread
from tollwire.service.domain.thread_context import Slot, current_authorization, without_slot
from tollwire.service.rpc.call import StreamCall

# Rating from memory uses only the processor, so more threads would only compete for it. Further
# calls wait in the pool's queue for some milliseconds.
RATING_THREADS = 16
BATCH_THREADS = 8
# Their duration grows with the size of the tables, and they hold a database connection.
LONG_SHARE = 8
# Probes call a few times a minute. Everybody may call: the slots are many, because a client that
# sends no message keeps one until others need it.
HEALTH_THREADS = 8
HEALTH_SLOTS = 1_000
REFLECTION_THREADS = 8

# The time limit for the arrival of a message: 32 MiB at 10 Mbit/s.
ARRIVAL_SECONDS = 30.0
# Health needs no token, and its message has only a few bytes.
HEALTH_ARRIVAL_SECONDS = 2.0
_SWEEP_SECONDS = 0.25
# A message that takes longer gives its memory up if another RPC waits for some.
PATIENCE_SECONDS = 1.0
# A message that takes longer to arrive may be a large one. A small one is sent with its RPC.
LARGE_SECONDS = 0.1
# A client that is still active sends an RPC within this time.
QUIET_SECONDS = 0.1


_LOG = logging.getLogger("tollwire.rpc")


class RpcKind(Enum):
    """The kind of an RPC, which chooses its pool. The value is its name in messages."""

    RATING = "calls to rate"
    BATCH = "batches to rate"
    ORDINARY = "requests"
    LONG = "requests that may read whole tables"
    RATING_STREAM = "streams of calls to rate"
    INGEST_STREAM = "uploads and imports"
    READING_STREAM = "exports and other streams of responses"
    HEALTH = "health checks"
    REFLECTION = "reflection streams"

    # Each RPC is looked up by its kind several times. The method of Enum runs Python code.
    __hash__ = object.__hash__


_KINDS = {
    "RatingService/RateCall": RpcKind.RATING,
    "RatingService/StreamRateCalls": RpcKind.RATING_STREAM,
    "RatingService/BatchRateCalls": RpcKind.BATCH,
    "RatingService/ListRates": RpcKind.LONG,
    "CdrService/ExplainCdr": RpcKind.LONG,
    "CdrService/ListCdrs": RpcKind.LONG,
    "CdrService/ListUploadFailures": RpcKind.LONG,
    "CdrService/RateUnrated": RpcKind.LONG,
    "CdrService/ReverseUpload": RpcKind.LONG,
    "CdrService/SummarizeUsage": RpcKind.LONG,
}
# Unread exports must not block uploads, nor calls to rate either.
STREAM_KINDS = (RpcKind.RATING_STREAM, RpcKind.INGEST_STREAM, RpcKind.READING_STREAM)
_SERVICE_KINDS = {"Health": RpcKind.HEALTH, "ServerReflection": RpcKind.REFLECTION}

_ALWAYS = frozenset({RpcKind.HEALTH})


def kind_of(method: MethodDescriptor) -> RpcKind:
    service = method.containing_service.name
    if service in _SERVICE_KINDS:
        return _SERVICE_KINDS[service]
    kind = _KINDS.get(f"{service}/{method.name}")
    if kind is not None:
        return kind
    if method.client_streaming:
        return RpcKind.INGEST_STREAM
    return RpcKind.READING_STREAM if method.server_streaming else RpcKind.ORDINARY


class Awaited:
    """An RPC whose message is awaited. ``evict`` ends it, and releases its slot. ``has_memory``:
    memory is reserved for the message."""

    __slots__ = ("caller", "evict", "has_memory", "started_at")

    def __init__(
        self, caller: str | bytes, evict: Callable[[], object], *, has_memory: bool = False
    ) -> None:
        self.caller = caller
        self.evict = evict
        self.has_memory = has_memory
        self.started_at = time.monotonic()


class Pool(ThreadPoolExecutor):
    """At most ``slots`` RPCs at one time, of which ``threads`` run. One caller with an
    authorization header has at most ``share`` of the slots.

    It is a ThreadPoolExecutor because grpc takes nothing else, and runs its work itself: futures,
    with a lock and a condition for each, would take 8 µs of each RPC.
    """

    def __init__(self, name: str, threads: int, slots: int, share: float = 1.0) -> None:
        super().__init__(threads)
        self._name = name
        self._max_threads = threads
        self._own_threads: list[threading.Thread] = []
        self._tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        # One entry for each thread that is idle. Once all threads exist, it may have more.
        self._idle: deque[None] = deque()
        self._is_shut = False
        self.slots = slots
        self._slots_of_one = max(1, int(slots * share))
        self._taken_by: Counter[str | bytes] = Counter()
        # By caller, the oldest first.
        self._awaited: dict[str | bytes, dict[Awaited, None]] = {}
        self.is_closed = False
        # When the last RPC arrived, by time.monotonic().
        self.last_arrival_at = -math.inf
        self._lock = threading.Lock()
        self._taken = 0

    @property
    def taken(self) -> int:
        """The number of RPCs at this moment."""
        return self._taken

    def acquire(self, caller: str | bytes) -> Slot:
        """Take a slot, if one is free for the caller with this authorization header, or is taken by
        an RPC whose message is awaited. ``release`` must be called once for each slot that was
        granted."""
        self.last_arrival_at = time.monotonic()
        slot = self._acquire(caller)
        if slot is Slot.ALL_TAKEN and self.evict_awaited():
            return self._acquire(caller)
        if slot is Slot.SHARE_TAKEN and self.evict_awaited(caller):
            return self._acquire(caller)
        return slot

    def _acquire(self, caller: str | bytes) -> Slot:
        with self._lock:
            slot = self._slot_for(caller)
            if slot is Slot.GRANTED:
                self._taken += 1
                if caller:
                    self._taken_by[caller] += 1
        return slot

    def await_message(self, awaited: Awaited) -> None:
        """The RPC has a slot, and waits for its message."""
        with self._lock:
            self._awaited.setdefault(awaited.caller, {})[awaited] = None

    def end_wait(self, awaited: Awaited) -> bool:
        """The wait is over. False if the RPC was evicted before: then it has ended."""
        with self._lock:
            return self._remove(awaited)

    def evict_awaited(self, caller: str | bytes | None = None) -> bool:
        """End the RPC that has waited longest for its message, of ``caller``, or of the caller with
        the most such RPCs. False if there is none."""
        return self._evict(self._most_awaited() if caller is None else caller)

    def evict_older(self, started_at: float, *, with_memory: bool = False) -> int:
        """End all RPCs that wait for their message since before ``started_at``; ``with_memory``:
        only those that have memory reserved for it. Returns their number."""
        with self._lock:
            older = [
                awaited
                for of_caller in self._awaited.values()
                for awaited in of_caller
                if awaited.started_at <= started_at and (awaited.has_memory or not with_memory)
            ]
            for awaited in older:
                self._remove(awaited)
        for awaited in older:
            awaited.evict()
        return len(older)

    def _most_awaited(self) -> str | bytes:
        with self._lock:
            return max(self._awaited, key=lambda one: len(self._awaited[one]), default="")

    def _evict(self, caller: str | bytes) -> bool:
        with self._lock:
            awaited = next(iter(self._awaited.get(caller, ())), None)
            if awaited is None:
                return False
            self._remove(awaited)
        awaited.evict()
        return True

    def _remove(self, awaited: Awaited) -> bool:
        of_caller = self._awaited.get(awaited.caller)
        if of_caller is None or awaited not in of_caller:
            return False
        del of_caller[awaited]
        if not of_caller:
            del self._awaited[awaited.caller]
        return True

    def release(self, caller: str | bytes) -> None:
        """Free a slot of this caller."""
        with self._lock:
            self._taken -= 1
            if caller:
                self._taken_by[caller] -= 1
                if not self._taken_by[caller]:
                    del self._taken_by[caller]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run ``fn`` in one of the threads; if no slot is free or the pool is closed, run it in
        this thread, without a slot. The result has no value; grpc uses add_done_callback only."""
        caller = current_authorization()
        slot = self.acquire(caller)
        if slot is Slot.GRANTED:
            done = _Done()
            self.run_granted(partial(self._run, done, caller, fn, args, kwargs))
            return done
        refused: Future[Any] = Future()
        with without_slot(slot):
            refused.set_result(fn(*args, **kwargs))
        return refused

    def run_granted(self, work: Callable[[], object]) -> None:
        """Run ``work``, which has a slot and releases it, in one of the threads."""
        if self._is_shut:
            raise RuntimeError("the pool is shut down")
        try:
            self._idle.pop()
        except IndexError:
            self._add_thread()
        self._tasks.put(work)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after all work that was submitted."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        with self._lock:
            self._is_shut = True
        for _ in self._own_threads:
            self._tasks.put(None)
        if wait:
            for thread in self._own_threads:
                thread.join()

    def _add_thread(self) -> None:
        with self._lock:
            if self._is_shut or len(self._own_threads) >= self._max_threads:
                return
            name = f"{self._name}_{len(self._own_threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._own_threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:  # grpc and the endpoints let none through
                _LOG.exception("a handler has failed")
            # Nothing of the RPC stays in memory while the thread waits.
            del task
            self._idle.append(None)

    def _slot_for(self, caller: str | bytes) -> Slot:
        if self.is_closed:
            return Slot.CLOSED
        if self._taken >= self.slots:
            return Slot.ALL_TAKEN
        if caller and self._taken_by[caller] >= self._slots_of_one:
            return Slot.SHARE_TAKEN
        return Slot.GRANTED

    def _run(
        self, done: _Done, caller: str | bytes, fn: Callable[..., Any], args: Any, kwargs: Any
    ) -> None:
        try:
            fn(*args, **kwargs)
        finally:
            self.release(caller)
            done.set()


class _Done:
    """What grpc uses of a future."""

    __slots__ = ("_callbacks", "_is_set")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], object]] = []
        self._is_set = False

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)
        if self._is_set:
            self._call()

    def set(self) -> None:
        self._is_set = True
        self._call()

    def _call(self) -> None:
        while True:
            try:
                callback = self._callbacks.pop()  # one thread takes each
            except IndexError:
                return
            callback(self)


class Pools:
    """The pools of one server, by kind. Call ``close`` after the last RPC."""

    def __init__(self, max_rpcs: int, max_streams: int, share: float = 1.0) -> None:
        """``share``: the part of the slots for unary RPCs of a kind that one caller can use."""
        long = max(1, max_rpcs // LONG_SHARE)
        # More threads than slots for streams: a stream without a slot needs a thread to be refused
        # in, and a stream that ends frees its slot a moment before its thread.
        streams = 2 * max_streams + 2
        self._pools: Mapping[RpcKind, Pool] = {
            RpcKind.RATING: Pool("rating", min(RATING_THREADS, max_rpcs), max_rpcs, share),
            RpcKind.BATCH: Pool("batch", min(BATCH_THREADS, max_rpcs), max_rpcs, share),
            # These RPCs mostly wait for the database.
            RpcKind.ORDINARY: Pool("rpc", max_rpcs, max_rpcs, share),
            RpcKind.LONG: Pool("long", long, long, share),
            RpcKind.RATING_STREAM: Pool("rating-stream", streams, streams),
            RpcKind.INGEST_STREAM: Pool("ingest-stream", streams, streams),
            RpcKind.READING_STREAM: Pool("reading-stream", streams, streams),
            RpcKind.HEALTH: Pool("health", HEALTH_THREADS, HEALTH_SLOTS),
            RpcKind.REFLECTION: Pool("reflection", REFLECTION_THREADS, REFLECTION_THREADS),
        }

    def __getitem__(self, kind: RpcKind) -> Pool:
        return self._pools[kind]

    def give_up_messages(self) -> int:
        """End all RPCs whose message is awaited for LARGE_SECONDS. Returns their number."""
        until = time.monotonic() - LARGE_SECONDS
        return sum(pool.evict_older(until) for pool in self._pools.values())

    def evict_slow(self) -> None:
        """End all RPCs that keep memory for a message that is awaited for PATIENCE_SECONDS."""
        until = time.monotonic() - PATIENCE_SECONDS
        for pool in self._pools.values():
            pool.evict_older(until, with_memory=True)

    def await_quiet(self, seconds: float) -> None:
        """Wait until no RPC but health checks arrives for QUIET_SECONDS; at most ``seconds``."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            quiet_at = self._last_arrival_at() + QUIET_SECONDS
            if now >= quiet_at:
                return
            time.sleep(min(quiet_at, until) - now)

    def _last_arrival_at(self) -> float:
        return max(
            pool.last_arrival_at for kind, pool in self._pools.items() if kind not in _ALWAYS
        )

    def refuse(self) -> None:
        """Refuse all further RPCs but health checks."""
        for kind, pool in self._pools.items():
            pool.is_closed = kind not in _ALWAYS

    def close(self) -> None:
        """Wait until all handlers end."""
        for pool in self._pools.values():
            pool.shutdown()


class MessageDeadlines:
    """Cancels RPCs whose message does not arrive in time. Thread-safe. The thread starts with the
    first RPC. Call ``close`` at the end."""

    def __init__(
        self,
        seconds: float = ARRIVAL_SECONDS,
        health_seconds: float = HEALTH_ARRIVAL_SECONDS,
        review: Callable[[], bool] = bool,
    ) -> None:
        """``review`` is called at least once in PATIENCE_SECONDS, and every _SWEEP_SECONDS while it
        returns True: RPCs wait for the memory of others."""
        self._review = review
        self._seconds = dict.fromkeys(RpcKind, seconds) | {RpcKind.HEALTH: health_seconds}
        self._until: dict[StreamCall, float] = {}
        self._lock = threading.Lock()
        self._is_started = False
        self._thread = BackgroundThread(
            "message-deadlines", self._sweep, close_seconds=_SWEEP_SECONDS
        )

    def start(self, call: StreamCall, kind: RpcKind) -> None:
        """Start the time limit of the kind; when it passes, the RPC is cancelled."""
        if not self._is_started:
            self._start()
        self._until[call] = time.monotonic() + self._seconds[kind]

    def stop(self, call: StreamCall) -> None:
        """End the time limit: the message has arrived, or the RPC has failed."""
        del self._until[call]

    def close(self) -> None:
        with self._lock:
            self._is_started = True
        self._thread.close()

    def _start(self) -> None:
        with self._lock:
            if not self._is_started:
                self._is_started = True
                self._thread.start()

    def _sweep(self, stop: threading.Event) -> None:
        # A time limit that starts during a sleep ends after it.
        shortest = min(PATIENCE_SECONDS, *self._seconds.values())
        next_at = time.monotonic() + shortest
        while not stop.wait(max(_SWEEP_SECONDS, next_at - time.monotonic())):
            now = time.monotonic()
            next_at = now if self._is_waited_for() else now + shortest
            for call, until in self._until.copy().items():
                if now > until:
                    call.cancel()
                else:
                    next_at = min(next_at, until)

    def _is_waited_for(self) -> bool:
        try:
            return self._review()
        except Exception:  # the time limits of the other RPCs must stay
            _LOG.exception("the RPCs that wait for memory were not reviewed")
            return True
