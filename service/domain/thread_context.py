"""What a thread works on: the request, the kind of database work, and the RPC's slot.

One object for each thread holds it, so that no function on the way has to pass it on::

    grpc's thread                 the pool's thread
    CallerReader                  RpcPipeline.admit        Database.read, Database.write
      |  authorization              |  request               |  work, ignores_client
      v                             v                        v
    Pool.submit                   scopes, audit, logs      storage/limits, storage/dialects
      |  slot (refused RPCs only)
      v
    RpcPipeline.admit

    value           set by                                     read by
    authorization   rpc/pools.py CallerReader                  rpc/pools.py Pool
    slot            rpc/pools.py Pool                          rpc/pipeline.py
    request         rpc/pipeline.py, process/database_wait.py  subjects, logs, storage/limits.py
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

from tollwire.service.domain.request import Request


class Work(Enum):
    """Kinds of database work. The value multiplies the usual wait: the time that one answer of the
    database may take."""

    # Whether a pooled connection is alive. A new one takes less.
    PING = 0.2
    # The changes of decks. A call whose tenant is not in memory waits for it.
    LOOK = 0.5
    # A few rows by their keys, a chunk of calls, a change of a rate.
    ORDINARY = 1.0
    # What may read whole tables: lists that search, exports, summaries, imports, verification,
    # decks at the start.
    LONG = 60.0
    # One statement may rewrite a whole table, and nothing else runs meanwhile.
    MIGRATION = 8640.0


class Slot(Enum):
    """Whether an RPC has a slot, and if not, why."""

    GRANTED = 0
    ALL_TAKEN = 1
    # The server stops.
    CLOSED = 2
    # Slots are free, but the caller uses its whole share.
    SHARE_TAKEN = 3


class _ThreadContext(threading.local):
    request = Request()
    work = Work.ORDINARY
    ignores_client = False
    slot = Slot.GRANTED
    authorization: str | bytes = ""


_THREAD = _ThreadContext()


def current_request() -> Request:
    """The request that this thread works on."""
    return _THREAD.request


@contextmanager
def handling(request: Request) -> Iterator[None]:
    """The block works on this request."""
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
    """The block does this kind of work."""
    before = _THREAD.work
    _THREAD.work = work
    try:
        yield
    finally:
        _THREAD.work = before


def ignores_client() -> bool:
    """Whether this thread works on although its client may be gone."""
    return _THREAD.ignores_client


@contextmanager
def regardless() -> Iterator[None]:
    """The block runs to its end although the client may be gone."""
    before = _THREAD.ignores_client
    _THREAD.ignores_client = True
    try:
        yield
    finally:
        _THREAD.ignores_client = before


def current_slot() -> Slot:
    """Whether the RPC that this thread runs has a slot."""
    return _THREAD.slot


@contextmanager
def without_slot(slot: Slot) -> Iterator[None]:
    """The block refuses an RPC that has no slot, for this reason."""
    _THREAD.slot = slot
    try:
        yield
    finally:
        _THREAD.slot = Slot.GRANTED


def current_authorization() -> str | bytes:
    """The authorization header, not verified, of the RPC that grpc passes to a pool now."""
    return _THREAD.authorization


def set_authorization(header: str | bytes) -> None:
    """grpc passes an RPC with this header to a pool next, in this thread."""
    _THREAD.authorization = header
