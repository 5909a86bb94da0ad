"""What every RPC passes on its way in and out, whatever it asks.

On the way in: who asks, whether they may, whether there is room. On the way out: what became of it.
Each of these is a part that is handed in; none looks at the request's message, and all of it comes
before the message is read. What a part refuses leaves through the error map like any failure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import grpc

from tollwire.service.domain.errors import Exhausted, Reason, TollwireError, shutting_down
from tollwire.service.domain.request import LOCAL, Caller, Request, handling
from tollwire.service.observability import instruments, request_ids
from tollwire.service.rpc.pools import Kind, Place, present_place

Context = grpc.ServicerContext

_LOG = logging.getLogger("tollwire.rpc")

# What is asked without end, by services and by those that watch them.
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


# The codes that operators want to hear of.
_WATCHED = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)


def _countdown(context: Context) -> Callable[[], float]:
    """How long the client will wait, by a clock that nobody sets: grpc compares the deadline with
    the time of day, and where that is set forward every client would be thought to be gone."""
    until = time.monotonic() + context.time_remaining()
    return lambda: max(0.0, until - time.monotonic())


class Visit:
    """One RPC between its beginning and its end."""

    __slots__ = (
        "code",
        "context",
        "is_logged",
        "kind",
        "method",
        "reason",
        "request",
        "started_at",
    )

    def __init__(self, method: str, context: Context, kind: Kind = Kind.ORDINARY) -> None:
        """``method``: such as "CdrService/GetCdr"."""
        self.method = method
        self.kind = kind
        self.context = context
        self.request = Request(
            id=_request_id(context),
            remaining_seconds=_countdown(context),
            is_wanted=context.is_active,
        )
        self.started_at = time.perf_counter()
        self.code = grpc.StatusCode.OK
        self.reason = ""
        self.is_logged = False

    def fields(self) -> dict[str, str | int | float]:
        """What its line of the log says besides its text."""
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


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata():
        if key == request_ids.METADATA_KEY:
            return request_ids.taken(value)
    return request_ids.new()


class Room(Protocol):
    """Limits how much is in work at one time."""

    def take(self, visit: Visit) -> None:
        """Raises Exhausted where there is no room."""

    def give_back(self, visit: Visit) -> None:
        """Called once for each visit that ``take`` let in."""


# Told of each RPC once it has ended, with its code.
Observer = Callable[[Visit], None]


def anybody(visit: Visit) -> Caller:
    """Takes whoever asks for one who may do everything."""
    return LOCAL


def _stays(visit: Visit) -> None:
    """Whoever was let in stays."""


def log_end(visit: Visit) -> None:
    """The RPC's line of the log, unless it was refused with a line of its own. What may come
    thousands of times a second is only there where the log is to be that full."""
    if visit.is_logged:
        return
    level = logging.DEBUG if visit.method in _FREQUENT else logging.INFO
    if _LOG.isEnabledFor(level):
        _LOG.log(level, "%s: %s", visit.method, visit.code.name, extra={"fields": visit.fields()})


def expect(method: str) -> None:
    """That ``method`` may be asked for: counters that begin with their first failure would hide it
    from whoever looks at how they grow."""
    for code in _WATCHED:
        instruments.RPCS.add(0, method, code.name)


def count_end(visit: Visit) -> None:
    """Counts the RPC for the metrics."""
    instruments.RPCS.add(1, visit.method, visit.code.name)
    instruments.RPC_SECONDS.observe(time.perf_counter() - visit.started_at, visit.method)


class Entrance:
    """The way in and out of one server. Thread-safe, as its parts are."""

    def __init__(
        self,
        identify: Callable[[Visit], Caller] = anybody,
        stays: Callable[[Visit], None] = _stays,
        rooms: Sequence[Room] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        """``identify`` says who asks, and raises where they may not call this method; ``stays``
        raises where they may not any more, and is asked before each message of a stream."""
        self._identify = identify
        self.stays = stays
        self._rooms = tuple(rooms)
        self._observers = tuple(observers)

    @contextmanager
    def visit(self, visit: Visit) -> Iterator[None]:
        """The block is the RPC's work. Raises before it what keeps the RPC out."""
        visit.request.caller = self._identify(visit)
        place = present_place()
        if place is not Place.THREAD:
            raise _no_place(place, visit.kind)
        taken: list[Room] = []
        try:
            for room in self._rooms:
                room.take(visit)
                taken.append(room)
            with handling(visit.request):
                yield
        finally:
            for room in reversed(taken):
                room.give_back(visit)

    def ended(self, visit: Visit) -> None:
        """Tells the observers."""
        for observe in self._observers:
            observe(visit)


def _no_place(place: Place, kind: Kind) -> TollwireError:
    if place is Place.CLOSED:
        return shutting_down()
    if place is Place.NOT_FOR_CALLER:
        return share_taken(kind)
    return Exhausted(
        Reason.TOO_MANY_STREAMS if kind is Kind.STREAM else Reason.TOO_MANY_RPCS,
        f"the server has as many {kind.value} in work as it can carry; try again later",
    )


def share_taken(kind: Kind) -> Exhausted:
    """For a caller that has its share of the places already."""
    return Exhausted(
        Reason.SHARE_TAKEN,
        f"this caller has its share of the places for {kind.value} in work; try again later",
    )
