"""The capacity of a server: the share of one caller, and the bytes of requests in memory.

``pools`` bounds the number of RPCs, ``streams`` the number of streams. Above any of these limits
the client gets RESOURCE_EXHAUSTED with a retry hint.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping

from tollwire.service.domain.errors import Exhausted, Reason
from tollwire.service.domain.request import Caller
from tollwire.service.rpc.pipeline import RpcContext, share_taken
from tollwire.service.rpc.pools import STREAM_KINDS, MessageDeadlines, Pools, RpcKind
from tollwire.service.settings.config import (
    DEFAULT_MAX_REQUEST_BYTES_IN_WORK,
    DEFAULT_MAX_RPCS,
    DEFAULT_MAX_STREAMS,
    DEFAULT_STREAM_WAIT_SECONDS,
)

# Requests up to this size are not counted: the number of RPCs bounds them. Most methods take no
# larger ones.
SMALL_BYTES = 256 * 1024
# grpcurl uses reflection before each of its calls: an operator must succeed when all other slots
# are taken.
REFLECTION_STREAMS = 4
_POLL_SECONDS = 0.1
# The longest wait for memory. In this time, messages that do not arrive give up the memory for ten
# times as many as can be read at one time.
MEMORY_WAIT_SECONDS = 10.0

# Chunks of uploads that a machine processes at one time: one waits for the database while the other
# is rated. More chunks would only take processor time from RateCall.
CHUNKS_AT_ONCE = 2

_LOG = logging.getLogger("tollwire.rpc")


def chunks_at_once(workers: int) -> int:
    """The number of chunks that each of ``workers`` workers processes at one time."""
    return max(1, CHUNKS_AT_ONCE // workers)


class Reservation:
    """Memory that an RPC needs before its message is read. Exactly one of its functions is called,
    in any thread, unless the reservation is withdrawn before."""

    __slots__ = ("caller", "granted", "refused", "size", "until")

    def __init__(
        self,
        caller: str | bytes,
        size: int,
        granted: Callable[[], object],
        refused: Callable[[Exception], object],
    ) -> None:
        """``granted``: the bytes are reserved. ``refused``: they were not free in time. Neither may
        wait."""
        self.caller = caller
        self.size = size
        self.granted = granted
        self.refused = refused
        self.until = time.monotonic() + MEMORY_WAIT_SECONDS


class RequestBytes:
    """The bytes of the requests that are being processed, up to ``most``. Thread-safe.

    The size of a request is known only after it was read. For a unary RPC the limit of its method
    is reserved before. RPCs that find no memory to reserve wait, without a thread: those of one
    caller in their order, the callers in rotation. Streams wait until the bytes are below the
    limit, and can exceed it together.
    """

    def __init__(self, most: int = 2**63, evict_slow: Callable[[], object] = int) -> None:
        """``evict_slow`` ends the RPCs with reserved memory whose messages do not arrive. It is
        called while others wait."""
        self._most = most
        self._evict_slow = evict_slow
        self._held = 0
        self._reserved = 0
        # By caller, the oldest first. The first caller is the next.
        self._waiting: dict[str | bytes, dict[Reservation, None]] = {}
        self._is_granting = False
        # The bytes of all large requests that have arrived; refused requests count too.
        self.passed = 0
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """The bytes of requests that have arrived, and those that are reserved for others."""
        with self._changed:
            return self._held + self._reserved

    @property
    def waiting(self) -> int:
        """The number of RPCs that wait for memory."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    def check(self, size: int = 0) -> None:
        """Exhausted if the limit is reached, or if a large request of ``size`` bytes would exceed
        it. A single request may exceed it. What is only reserved keeps no other requests out: their
        messages may never come."""
        held = self._held
        if held >= self._most or (held and size > SMALL_BYTES and held + size > self._most):
            raise _no_memory()

    def reserve(self, wanted: Reservation) -> bool:
        """Count its bytes as soon as they are free, and call ``granted``. False if it waits now.
        ``settle`` or ``cancel`` must be called once for what was granted."""
        with self._changed:
            self._waiting.setdefault(wanted.caller, {})[wanted] = None
        self._grant()
        if not self._waits(wanted):
            return True
        self._evict_slow()
        return False

    def withdraw(self, wanted: Reservation) -> bool:
        """End its wait. False if it does not wait any more."""
        with self._changed:
            return self._remove(wanted)

    def review(self) -> bool:
        """Refuse the RPCs that have waited too long, and end those that keep others waiting.
        Returns whether any waits still."""
        now = time.monotonic()
        with self._changed:
            waiting = [one for of_caller in self._waiting.values() for one in of_caller]
            late = [one for one in waiting if one.until <= now]
            for one in late:
                self._remove(one)
        for one in late:
            one.refused(_no_memory())
        if len(late) < len(waiting):
            self._evict_slow()
        return bool(self._waiting)

    def settle(self, reserved: int, request: bytes) -> int:
        """Count the request, which has arrived, instead of what was reserved for it. Returns the
        size for ``release``."""
        size = len(request)
        held = size if size > SMALL_BYTES else 0
        if reserved or held:
            with self._changed:
                self._reserved -= reserved
                self._held += held
                self.passed += held
        if reserved:
            self._grant()
        return held

    def cancel(self, reserved: int) -> None:
        """Give back what was reserved for a request that has not arrived."""
        if reserved:
            with self._changed:
                self._reserved -= reserved
            self._grant()

    def wait_for_space(self, is_over: Callable[[], bool]) -> None:
        """Wait until the bytes are below the limit, or until ``is_over``."""
        if self._held < self._most:
            return
        with self._changed:
            while self._held >= self._most and not is_over():
                self._changed.wait(_POLL_SECONDS)

    def acquire(self, request: bytes) -> int:
        """Count the request. Returns the size for ``release``."""
        return self.settle(0, request)

    def refuse(self, request: bytes) -> None:
        """Note a request that is too large for its method."""
        with self._changed:
            self.passed += len(request)

    def release(self, size: int) -> None:
        if size:
            with self._changed:
                self._held -= size
                self._changed.notify_all()
            self._grant()

    def _grant(self) -> None:
        """Grant what fits. One thread at a time, and in a loop: an RPC that has ended meanwhile
        gives its memory back at once."""
        with self._changed:
            if self._is_granting or not self._waiting:
                return
            self._is_granting = True
        while (wanted := self._take_next()) is not None:
            try:
                wanted.granted()
            except Exception:  # the others must not wait for ever
                _LOG.exception("an RPC has got memory and was not continued")

    def _take_next(self) -> Reservation | None:
        """The next one, if it fits; its bytes are counted. None ends the loop of ``_grant``."""
        with self._changed:
            caller, of_caller = next(iter(self._waiting.items()), ("", {}))
            wanted = next(iter(of_caller), None)
            held = self._held + self._reserved
            if wanted is None or (held and held + wanted.size > self._most):
                self._is_granting = False
                return None
            self._remove(wanted)
            if of_caller:
                # The caller's next one waits for one of each other caller.
                self._waiting[caller] = self._waiting.pop(caller)
            self._reserved += wanted.size
            return wanted

    def _waits(self, wanted: Reservation) -> bool:
        with self._changed:
            return wanted in self._waiting.get(wanted.caller, ())

    def _remove(self, wanted: Reservation) -> bool:
        of_caller = self._waiting.get(wanted.caller, {})
        if wanted not in of_caller:
            return False
        del of_caller[wanted]
        if not of_caller:
            del self._waiting[wanted.caller]
        return True


def _no_memory() -> Exhausted:
    return Exhausted(
        Reason.TOO_MANY_BYTES,
        "the requests in progress use all memory for requests; try again later",
    )


class Shares:
    """Limits each customer to a share of the slots of each kind. Thread-safe.

    All tokens of the same tenants are one customer. A token for all tenants is one of its own: it
    belongs to a service of the operator. Callers without a token are not limited: they cannot be
    distinguished.

    A customer may take one more slot while it has fewer than ``share / (1 - share)`` times the free
    ones; with the share 0.5, fewer than are free. Alone it gets its share of all slots; beside
    others less, so that slots stay free for those that come later. A customer without any slot gets
    one while any is free.
    """

    def __init__(self, share: float, slots: Mapping[RpcKind, int]) -> None:
        """``share`` is above 0 and at most 1 (no limit)."""
        self._slots = dict(slots)
        self._most = {kind: max(1, int(share * number)) for kind, number in slots.items()}
        self._limits = share < 1
        self._ratio = share / (1 - share) if share < 1 else 0.0
        self._lock = threading.Lock()
        self._taken: Counter[tuple[RpcKind, Hashable]] = Counter()
        self._taken_by_all: Counter[RpcKind] = Counter()

    def acquire(self, rpc: RpcContext) -> None:
        caller = rpc.request.caller
        most = self._most.get(rpc.kind)
        if not self._limits or not caller.token_id or most is None:
            return
        key = (rpc.kind, _owner(caller))
        with self._lock:
            taken = self._taken[key]
            free = self._slots[rpc.kind] - self._taken_by_all[rpc.kind]
            if not taken or (taken < most and taken < self._ratio * free):
                self._taken[key] += 1
                self._taken_by_all[rpc.kind] += 1
                return
        raise share_taken(rpc.kind)

    def release(self, rpc: RpcContext) -> None:
        caller = rpc.request.caller
        if not self._limits or not caller.token_id or rpc.kind not in self._most:
            return
        key = (rpc.kind, _owner(caller))
        with self._lock:
            self._taken[key] -= 1
            self._taken_by_all[rpc.kind] -= 1
            if not self._taken[key]:
                del self._taken[key]


def _owner(caller: Caller) -> Hashable:
    tenant_ids = caller.scope.tenant_ids
    return caller.token_id if tenant_ids is None else tenant_ids


class Capacity:
    """The limits of one server. Call ``close`` after the last RPC."""

    def __init__(
        self,
        max_rpcs: int = DEFAULT_MAX_RPCS,
        max_streams: int = DEFAULT_MAX_STREAMS,
        max_request_bytes: int = DEFAULT_MAX_REQUEST_BYTES_IN_WORK,
        share: float = 1.0,
        chunks: int = CHUNKS_AT_ONCE,
        stream_wait_seconds: float = DEFAULT_STREAM_WAIT_SECONDS,
    ) -> None:
        """``share``: the part of all slots that one caller with a token can use. ``chunks``: the
        number of chunks of uploads that are processed at one time; each is in memory several
        times. ``stream_wait_seconds``: the longest wait of a stream for its client."""
        self.stream_wait_seconds = stream_wait_seconds
        self.share = share
        self.max_streams = max_streams
        self.max_request_bytes = max_request_bytes
        self.chunks = chunks
        self.pools = Pools(max_rpcs, max_streams, share)
        self.request_bytes = RequestBytes(max_request_bytes, self.pools.evict_slow)
        self.message_deadlines = MessageDeadlines(review=self.request_bytes.review)

    def shares(self) -> Shares:
        """The limit of each caller's share of the slots."""
        kinds = (RpcKind.RATING, RpcKind.BATCH, RpcKind.ORDINARY, RpcKind.LONG)
        slots = {kind: self.pools[kind].slots for kind in kinds}
        slots |= dict.fromkeys(STREAM_KINDS, self.max_streams)
        return Shares(self.share, slots | {RpcKind.REFLECTION: REFLECTION_STREAMS})

    def close(self) -> None:
        self.message_deadlines.close()
        self.pools.close()
