"""How much of a server one caller may have, and how many bytes of requests may be in work.

The number of RPCs is bounded by their threads (``pools``) and their places (``streams``). Above
any of these limits a client is refused with RESOURCE_EXHAUSTED, and told to try again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Mapping

from tollwire.service.domain.errors import Exhausted, Reason
from tollwire.service.domain.request import Caller
from tollwire.service.rpc.pipeline import Visit, share_taken
from tollwire.service.rpc.pools import Arrivals, Kind, Pools
from tollwire.service.settings.config import (
    DEFAULT_MAX_REQUEST_BYTES_IN_WORK,
    DEFAULT_MAX_RPCS,
    DEFAULT_MAX_STREAMS,
)

# So many of these fit into what a server has for its threads: not worth counting.
SMALL_BYTES = 4096
_LOOK_SECONDS = 0.1

# Chunks of uploads that a machine has in work: one waits for the database while the other is rated.
# More would only take the processors from RateCall.
CHUNKS_AT_ONCE = 2


def chunks_at_once(workers: int) -> int:
    """How many of them each of so many workers has."""
    return max(1, CHUNKS_AT_ONCE // workers)


class RequestBytes:
    """The bytes of the requests in work, up to ``most``. Thread-safe.

    How large a request is shows only once it is there; so what is in work may pass the limit by
    those that were read at the same moment.
    """

    def __init__(self, most: int = 2**63) -> None:
        self._most = most
        self._held = 0
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        return self._held

    def check(self) -> None:
        """Before a request is read. Exhausted where there is no room."""
        if self._held >= self._most:
            raise Exhausted(
                Reason.TOO_MANY_BYTES,
                "the requests in work fill the memory that there is for them; try again later",
            )

    def await_room(self, is_over: Callable[[], bool]) -> None:
        """Until there is room for the next request of a stream, or ``is_over``."""
        if self._held < self._most:
            return
        with self._changed:
            while self._held >= self._most and not is_over():
                self._changed.wait(_LOOK_SECONDS)

    def hold(self, request: bytes) -> int:
        """Counts the request. What to give back."""
        size = len(request)
        if size <= SMALL_BYTES:
            return 0
        with self._changed:
            self._held += size
        return size

    def let_go(self, size: int) -> None:
        if size:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


class Shares:
    """No caller with a token has more than a share of the places of any kind. Thread-safe.

    Tokens of one and the same tenant count together. Callers without a token cannot be told apart.
    """

    def __init__(self, share: float, places: Mapping[Kind, int]) -> None:
        """``share`` is above 0, and at most 1: all."""
        self._most = {kind: max(1, int(share * number)) for kind, number in places.items()}
        self._limits = share < 1
        self._lock = threading.Lock()
        self._taken: Counter[tuple[Kind, Hashable]] = Counter()

    def take(self, visit: Visit) -> None:
        caller = visit.request.caller
        most = self._most.get(visit.kind)
        if not self._limits or not caller.token_id or most is None:
            return
        key = (visit.kind, _who(caller))
        with self._lock:
            if self._taken[key] < most:
                self._taken[key] += 1
                return
        raise share_taken(visit.kind)

    def give_back(self, visit: Visit) -> None:
        caller = visit.request.caller
        if not self._limits or not caller.token_id or visit.kind not in self._most:
            return
        key = (visit.kind, _who(caller))
        with self._lock:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]


def _who(caller: Caller) -> Hashable:
    tenant_ids = caller.scope.tenant_ids
    if tenant_ids is not None and len(tenant_ids) == 1:
        return tenant_ids
    return caller.token_id


class Capacity:
    """What one server takes on at one time. ``close`` it once no RPC comes any more."""

    def __init__(
        self,
        max_rpcs: int = DEFAULT_MAX_RPCS,
        max_streams: int = DEFAULT_MAX_STREAMS,
        max_request_bytes: int = DEFAULT_MAX_REQUEST_BYTES_IN_WORK,
        share: float = 1.0,
        chunks: int = CHUNKS_AT_ONCE,
    ) -> None:
        """``share`` is the part of all places that one caller with a token may have. ``chunks`` of
        uploads are in work at one time, each in memory several times over."""
        self.share = share
        self.max_streams = max_streams
        self.chunks = chunks
        self.pools = Pools(max_rpcs, max_streams, share)
        self.arrivals = Arrivals()
        self.request_bytes = RequestBytes(max_request_bytes)

    def shares(self) -> Shares:
        """The room that gives each caller a share of the places for its tenants' work."""
        kinds = (Kind.RATING, Kind.BATCH, Kind.ORDINARY, Kind.LONG)
        places = {kind: self.pools[kind].places for kind in kinds}
        return Shares(self.share, places | {Kind.STREAM: self.max_streams})

    def close(self) -> None:
        self.arrivals.close()
        self.pools.close()
