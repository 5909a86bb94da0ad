"""What a thread works on: the request, the kind of database work, and the RPC's slot.

Each thread has one object with these values, so that functions do not have to pass them on::

    grpc's thread                 the pool's thread
    CallerReader                  AdmittedRpc              Database.read, Database.write
      |  authorization              |  request               |  work, ignores_client
      v                             v                        v
    Pool.submit, arrivals         scopes, audit, logs      storage/limits, storage/dialects
      |  slot (refused streams only)
      v
    RpcPipeline.enter

    value           set by                                     read by
    authorization   rpc/transports/grpcio.py CallerReader      rpc/pools.py, rpc/transports
    slot            rpc/pools.py Pool                          rpc/pipeline.py
    request         rpc/pipeline.py, batches.py, database_wait.py subjects, logs, storage/limits.py
    work            storage/engine.py, storage/changes.py      storage/limits.py, storage/dialects
    ignores_client  storage/engine.py, storage/dialects        storage/limits.py

A thread of the service itself has the defaults: no client, the caller LOCAL, ordinary work. Must
not depend on gRPC, on tokens or on tables.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from tollwire.service.domain.errors import Reason, TollwireError, TooLate, unwanted
from tollwire.service.domain.request import Request


class Work(Enum):
    """Kinds of database work. The value is a factor for the time limit of one statement."""

    # A check whether a pooled connection is alive. Opening a new one is faster than waiting.
    PING = 0.2
    # A query for the changes of decks. A call whose tenant is not in memory waits for it.
    LOOK = 0.5
    # A few rows by their keys, a chunk of calls, a change of a rate.
    ORDINARY = 1.0
    # Work that may read whole tables: searches, exports, summaries, imports, verification, loading
    # decks at the start.
    LONG = 60.0
    # A migration: one statement may rewrite a whole table, and nothing else runs meanwhile.
    MIGRATION = 8640.0


class Slot(Enum):
    """Whether an RPC has a slot, and if not, the reason."""

    GRANTED = 0
    ALL_TAKEN = 1
    # The server stops.
    CLOSED = 2
    # Slots are free, but the caller uses its whole share.
    SHARE_TAKEN = 3


# The request that the service's own threads share.
_NO_REQUEST = Request()


class _ThreadContext(threading.local):
    request = _NO_REQUEST
    work = Work.ORDINARY
    ignores_client = False
    slot = Slot.GRANTED
    authorization: str | bytes = ""


_THREAD = _ThreadContext()


def current_request() -> Request:
    """The request that this thread works on."""
    return _THREAD.request


def set_current_request(request: Request | None) -> None:
    """This thread works on ``request`` from now on; None: on no client's request."""
    _THREAD.request = _NO_REQUEST if request is None else request


@contextmanager
def handling(request: Request) -> Iterator[None]:
    """This thread works on ``request`` during the block."""
    before = _THREAD.request
    _THREAD.request = request
    try:
        yield
    finally:
        _THREAD.request = before


def current_work() -> Work:
    """The kind of database work that this thread does."""
    return _THREAD.work


@contextmanager
def doing(work: Work) -> Iterator[None]:
    """This thread does this kind of database work during the block."""
    before = _THREAD.work
    _THREAD.work = work
    try:
        yield
    finally:
        _THREAD.work = before


def ignores_client() -> bool:
    """Whether this thread continues after its client has disconnected."""
    return _THREAD.ignores_client


@contextmanager
def regardless() -> Iterator[None]:
    """The block runs to its end, also after its client has disconnected."""
    before = _THREAD.ignores_client
    _THREAD.ignores_client = True
    try:
        yield
    finally:
        _THREAD.ignores_client = before


def over() -> TollwireError | None:
    """The failure that ends the present request; None while its client waits."""
    if ignores_client():
        return None
    request = current_request()
    remaining = request.remaining_seconds()
    if remaining is not None and remaining <= 0:
        return TooLate(
            Reason.DEADLINE_EXCEEDED,
            "the client's deadline has passed; what was not committed by then is taken back",
        )
    return None if request.is_wanted() else unwanted()


def stop_if_over() -> None:
    """TooLate or Unwanted if the client of the present request no longer waits."""
    failure = over()
    if failure is not None:
        raise failure


def current_slot() -> Slot:
    """Whether the RPC that this thread runs has a slot."""
    return _THREAD.slot


@contextmanager
def without_slot(slot: Slot) -> Iterator[None]:
    """The RPC of this thread has no slot, for this reason, during the block."""
    _THREAD.slot = slot
    try:
        yield
    finally:
        _THREAD.slot = Slot.GRANTED


def current_authorization() -> str | bytes:
    """The authorization header, not verified, of the RPC that grpc passes to a pool next."""
    return _THREAD.authorization


def set_authorization(header: str | bytes) -> None:
    """Set the authorization header of the RPC that grpc passes to a pool next, in this thread."""
    _THREAD.authorization = header
