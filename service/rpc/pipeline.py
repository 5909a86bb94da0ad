"""The steps before and after the handler of every RPC, on every transport.

Before: authentication, authorisation, admission (is there capacity for this RPC?). After: log line,
metrics, trace. The composition root passes in each step. No step reads the request's message. If a
step refuses the RPC, the error map converts its exception like any other. A transport presents each
RPC as an RpcCall (call.py); must not depend on a transport.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from tollwire.service.domain.errors import Exhausted, Reason, TollwireError, shutting_down
from tollwire.service.domain.request import LOCAL, Caller, Request
from tollwire.service.domain.thread_context import Slot, current_slot, set_current_request
from tollwire.service.observability import instruments, request_ids
from tollwire.service.rpc.call import RpcCall
from tollwire.service.rpc.pools import STREAM_KINDS, RpcKind
from tollwire.service.rpc.status import StatusCode

_LOG = logging.getLogger("tollwire.rpc")

# Methods that clients call at high rates.
_FREQUENT = frozenset(
    {
        *(
            f"RatingService/{method}"
            for method in ("RateCall", "BatchRateCalls", "StreamRateCalls")
        ),
        *(f"Health/{method}" for method in ("Check", "List", "Watch")),
        "ServerReflection/ServerReflectionInfo",
    }
)


# The codes for which each method has a counter from the start.
_COUNTED = (
    StatusCode.OK,
    StatusCode.UNKNOWN,
    StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.UNAUTHENTICATED,
    StatusCode.PERMISSION_DENIED,
)


class RpcContext:
    """The context of one RPC, from its start to its end."""

    __slots__ = (
        "call",
        "code",
        "is_logged",
        "kind",
        "limits_acquired",
        "method",
        "reason",
        "request",
        "started_at",
    )

    def __init__(self, method: str, call: RpcCall, kind: RpcKind = RpcKind.ORDINARY) -> None:
        """``method``: for example "CdrService/GetCdr"."""
        self.method = method
        self.kind = kind
        self.call = call
        self.request = Request(
            id=_request_id(call),
            remaining_seconds=call.remaining_seconds,
            is_wanted=call.is_wanted,
        )
        self.started_at = time.perf_counter()
        self.code = StatusCode.OK
        self.reason = ""
        self.is_logged = False
        self.limits_acquired = 0

    def fields(self) -> dict[str, str | int | float]:
        """The fields of its log line."""
        request = self.request
        fields: dict[str, str | int | float] = {
            "method": self.method,
            "ms": round((time.perf_counter() - self.started_at) * 1000, 1),
            "request_id": request.id,
        }
        if self.reason:
            fields["reason"] = self.reason
        if request.tenant_id > 0:
            fields["tenant_id"] = request.tenant_id
        if request.caller.token_id:
            fields["caller"] = request.caller.name
        return fields


def _request_id(call: RpcCall) -> str:
    for key, value in call.metadata:
        if key == request_ids.METADATA_KEY:
            return request_ids.taken(value)
    return request_ids.new()


class AdmissionLimit(Protocol):
    """A limit on the RPCs that run at one time."""

    def acquire(self, rpc: RpcContext) -> None:
        """Count the RPC. Exhausted if the limit is reached."""

    def release(self, rpc: RpcContext) -> None:
        """Called exactly once for each RPC that ``acquire`` admitted."""


# An observer is called with each RPC after its end.
Observer = Callable[[RpcContext], None]


def anybody(rpc: RpcContext) -> Caller:
    """Every caller is LOCAL, which may call everything."""
    return LOCAL


def _check_nothing(rpc: RpcContext) -> None:
    """Does nothing: the caller stays admitted."""


def log_end(rpc: RpcContext) -> None:
    """Write the RPC's log line, unless its refusal has written one. Methods that are called at high
    rates are logged at DEBUG only."""
    if rpc.is_logged:
        return
    level = logging.DEBUG if rpc.method in _FREQUENT else logging.INFO
    if _LOG.isEnabledFor(level):
        _LOG.log(level, "%s: %s", rpc.method, rpc.code.name, extra={"fields": rpc.fields()})


def expect(method: str) -> None:
    """Create the counters of ``method`` at 0. A counter that begins with the first failure hides
    that failure from queries for its increase."""
    for code in _COUNTED:
        instruments.RPCS.add(0, method, code.name)


def count_end(rpc: RpcContext) -> None:
    """Count the RPC in the metrics."""
    instruments.RPCS.add(1, rpc.method, rpc.code.name)
    instruments.RPC_SECONDS.observe(time.perf_counter() - rpc.started_at, rpc.method)


class RpcPipeline:
    """The pipeline of one server. Thread-safe if its parts are."""

    def __init__(
        self,
        identify: Callable[[RpcContext], Caller] = anybody,
        check_again: Callable[[RpcContext], None] = _check_nothing,
        limits: Sequence[AdmissionLimit] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        """``identify`` returns the caller, and raises if the caller may not call this method.
        ``check_again`` runs before each message of a stream, and raises if the caller may no longer
        call it. ``limits`` are acquired in their order."""
        self._identify = identify
        self.check_again = check_again
        self._limits = tuple(limits)
        self._observers = tuple(observers)

    def add_observer(self, observer: Observer) -> None:
        """Before the first RPC."""
        self._observers = (*self._observers, observer)

    def identify(self, rpc: RpcContext) -> None:
        """Find the caller. Raises if the caller may not call this method."""
        rpc.request.caller = self._identify(rpc)

    def enter(self, rpc: RpcContext, slot: Slot = Slot.GRANTED) -> None:
        """Admit the RPC. Raises if it is refused; ``leave`` must be called in either case."""
        self.identify(rpc)
        if slot is not Slot.GRANTED:
            raise _no_slot(slot, rpc.kind)
        for limit in self._limits:
            limit.acquire(rpc)
            rpc.limits_acquired += 1

    def leave(self, rpc: RpcContext) -> None:
        """Release what ``enter`` has acquired."""
        while rpc.limits_acquired:
            rpc.limits_acquired -= 1
            self._limits[rpc.limits_acquired].release(rpc)

    @contextmanager
    def admit(self, rpc: RpcContext) -> Iterator[None]:
        """Run the block as the RPC's work, between ``enter`` and ``leave``."""
        try:
            self.enter(rpc, current_slot())
            set_current_request(rpc.request)
            yield
        finally:
            set_current_request(None)
            self.leave(rpc)

    def ended(self, rpc: RpcContext) -> None:
        """Call the observers."""
        for observe in self._observers:
            observe(rpc)


def _no_slot(slot: Slot, kind: RpcKind) -> TollwireError:
    if slot is Slot.CLOSED:
        return shutting_down()
    if slot is Slot.SHARE_TAKEN:
        return share_taken(kind)
    return Exhausted(
        Reason.TOO_MANY_STREAMS if kind in STREAM_KINDS else Reason.TOO_MANY_RPCS,
        f"the server is at its limit of {kind.value}; try again later",
    )


def share_taken(kind: RpcKind) -> Exhausted:
    """The error for a caller that uses its whole share of the slots."""
    return Exhausted(
        Reason.SHARE_TAKEN,
        f"this caller uses its full share of the capacity for {kind.value}; try again later",
    )
