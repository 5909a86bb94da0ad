"""The capacity of a server: the share of one caller, and the bytes of requests in memory.

``pools`` bounds the number of RPCs, ``streams`` the number of streams. Above any of these limits
the client gets RESOURCE_EXHAUSTED with a retry hint.
"""

from __future__ import annotations

import threading
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

# Chunks of uploads that a machine processes at one time: one waits for the database while the other
# is rated. More chunks would only take processor time from RateCall.
CHUNKS_AT_ONCE = 2


def chunks_at_once(workers: int) -> int:
    """The number of chunks that each of ``workers`` workers processes at one time."""
    return max(1, CHUNKS_AT_ONCE // workers)


class RequestBytes:
    """The bytes of the requests that are being processed, up to ``most``. Thread-safe.

    The size of a request is known only after it was read. For a unary RPC the limit of its method
    is reserved before. Streams wait until the bytes are below the limit, and can exceed it
    together.
    """

    def __init__(self, most: int = 2**63) -> None:
        self._most = most
        self._held = 0
        self._reserved = 0
        # The bytes of all large requests that have arrived, also of those that were refused.
        self.passed = 0
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """The bytes of requests that have arrived, and those that are reserved for others."""
        return self._held + self._reserved

    def check(self) -> None:
        """Called before a request is read. Exhausted if the limit is reached."""
        if self._held >= self._most:
            raise _no_memory()

    def reserve(self, size: int) -> int:
        """Count ``size`` bytes before they are read. A single request may exceed the limit. Returns
        the argument for ``settle`` or ``cancel``. Exhausted if the limit is reached. What is only
        reserved does not keep small requests and streams out: their messages may never come."""
        if size <= SMALL_BYTES:
            self.check()
            return 0
        with self._changed:
            held = self._held + self._reserved
            if held and held + size > self._most:
                raise _no_memory()
            self._reserved += size
        return size

    def settle(self, reserved: int, request: bytes) -> int:
        """Count the request, which has arrived, instead of what was reserved for it. Returns the
        size for ``release``."""
        self.cancel(reserved)
        return self.acquire(request)

    def cancel(self, reserved: int) -> None:
        """Give back what was reserved for a request that has not arrived."""
        if reserved:
            with self._changed:
                self._reserved -= reserved

    def wait_for_space(self, is_over: Callable[[], bool]) -> None:
        """Wait until the bytes are below the limit, or until ``is_over``."""
        if self._held < self._most:
            return
        with self._changed:
            while self._held >= self._most and not is_over():
                self._changed.wait(_POLL_SECONDS)

    def acquire(self, request: bytes) -> int:
        """Count the request. Returns the size for ``release``."""
        size = len(request)
        if size <= SMALL_BYTES:
            return 0
        with self._changed:
            self._held += size
            self.passed += size
        return size

    def refuse(self, request: bytes) -> None:
        """Note a request that is too large for its method."""
        with self._changed:
            self.passed += len(request)

    def release(self, size: int) -> None:
        if size:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


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
        self.message_deadlines = MessageDeadlines()
        self.request_bytes = RequestBytes(max_request_bytes)

    def shares(self) -> Shares:
        """The limit of each caller's share of the slots."""
        kinds = (RpcKind.RATING, RpcKind.BATCH, RpcKind.ORDINARY, RpcKind.LONG)
        slots = {kind: self.pools[kind].slots for kind in kinds}
        slots |= dict.fromkeys(STREAM_KINDS, self.max_streams)
        return Shares(self.share, slots | {RpcKind.REFLECTION: REFLECTION_STREAMS})

    def close(self) -> None:
        self.message_deadlines.close()
        self.pools.close()
