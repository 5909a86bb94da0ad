"""RPCs with one message, until the message is there: each has a slot, and no thread.

A transport that receives RPCs before their messages starts them here, in a thread of its own that
must not wait. The caller is identified and the memory for the message is reserved first; so an RPC
that is refused is refused before its message is read. An RPC that finds no memory to reserve waits
for it, also without a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from tollwire.service.domain.errors import Exhausted, Reason, unwanted
from tollwire.service.domain.thread_context import Slot
from tollwire.service.rpc.batches import AdmittedRpc, Respond
from tollwire.service.rpc.call import StreamCall
from tollwire.service.rpc.capacity import SMALL_BYTES, Reservation
from tollwire.service.rpc.endpoints import Endpoint, malformed_request
from tollwire.service.rpc.failures import failure_of
from tollwire.service.rpc.pipeline import RpcContext
from tollwire.service.rpc.pools import Awaited
from tollwire.service.rpc.status import Failure

_LOG = logging.getLogger("tollwire.rpc")


def start_unary(
    endpoint: Endpoint, call: StreamCall, caller: str | bytes, respond: Respond
) -> None:
    """Start a unary RPC, of the caller with this authorization header. ``respond`` ends it."""
    slot = endpoint.pool.acquire(caller)
    rpc = endpoint.begin(call)
    if slot is not Slot.GRANTED:
        respond(rpc, endpoint.refusal(rpc, slot))
        return
    one = AdmittedRpc(endpoint, rpc, caller, respond)
    if not one.enter():
        return
    endpoint.message_deadlines.start(call, endpoint.kind)
    take = partial(_run, endpoint, call, one)
    if endpoint.max_request_bytes <= SMALL_BYTES:
        _await(endpoint, call, caller, take, one.finish)
    else:
        _await_memory(endpoint, call, caller, take, one)


def _run(endpoint: Endpoint, call: StreamCall, one: AdmittedRpc, request: bytes | None) -> None:
    if request is None:
        one.finish(malformed_request() if call.is_wanted() else unwanted())
    elif one.take(request):
        if endpoint.ends_later:
            # Not in a thread of the pool: most of these RPCs need none.
            _run_batch(endpoint, one)
        else:
            one.run_alone()


def _run_batch(endpoint: Endpoint, one: AdmittedRpc) -> None:
    assert endpoint.batch is not None
    try:
        endpoint.batch([one])
    except Exception as error:
        one.fail_with_batch(error)


def start_stream(endpoint: Endpoint, call: StreamCall, caller: str | bytes) -> None:
    """Start an RPC with one message and a stream of responses."""
    slot = endpoint.pool.acquire(caller)
    rpc = endpoint.begin(call)
    if slot is not Slot.GRANTED:
        call.end(endpoint.refusal(rpc, slot))
        return
    end = partial(_end_stream, endpoint, call, caller, rpc)
    try:
        endpoint.pipeline.identify(rpc)
        endpoint.request_bytes.check()
    except Exception as error:
        end(error)
        return
    endpoint.message_deadlines.start(call, endpoint.kind)
    _await(endpoint, call, caller, partial(_run_stream, endpoint, call, caller), end)


def _run_stream(
    endpoint: Endpoint, call: StreamCall, caller: str | bytes, request: bytes | None
) -> None:
    def run() -> None:
        try:
            endpoint.run_stream(call)
        finally:
            endpoint.pool.release(caller)

    call.put_back(request)
    endpoint.pool.run_granted(run)


def _end_stream(
    endpoint: Endpoint,
    call: StreamCall,
    caller: str | bytes,
    rpc: RpcContext,
    error: Exception,
) -> None:
    endpoint.pool.release(caller)
    failure: Failure = failure_of(rpc, error)
    endpoint.pipeline.ended(rpc)
    call.end(failure)


def _await_memory(
    endpoint: Endpoint,
    call: StreamCall,
    caller: str | bytes,
    take: Callable[[bytes | None], None],
    one: AdmittedRpc,
) -> None:
    """As ``_await``, once the memory for the largest message is reserved."""

    def granted() -> None:
        one.grant(endpoint.max_request_bytes)
        _await(endpoint, call, caller, take, one.finish, has_memory=True)

    def refused(error: Exception) -> None:
        endpoint.message_deadlines.stop(call)
        one.finish(error)

    def left() -> None:
        if endpoint.request_bytes.withdraw(wanted):
            refused(unwanted())

    wanted = Reservation(caller, endpoint.max_request_bytes, granted, refused)
    if not endpoint.request_bytes.reserve(wanted) and not call.on_end(left):
        left()


def _await(
    endpoint: Endpoint,
    call: StreamCall,
    caller: str | bytes,
    take: Callable[[bytes | None], None],
    refuse: Callable[[Exception], None],
    *,
    has_memory: bool = False,
) -> None:
    """Call ``take`` with the message, unless the RPC has ended before; ``refuse`` ends it. The time
    limit of the message has been started; ``has_memory``: memory is reserved for it."""

    def evict() -> None:
        endpoint.message_deadlines.stop(call)
        refuse(_evicted())

    def arrived(request: bytes | None) -> None:
        if not endpoint.pool.end_wait(awaited):
            return
        endpoint.message_deadlines.stop(call)
        try:
            take(request)
        except Exception as error:  # the pools are shut down
            _LOG.debug("%s: not run", endpoint.name, exc_info=True)
            refuse(error)

    awaited = Awaited(caller, evict, has_memory=has_memory)
    endpoint.pool.await_message(awaited)
    if not call.receive_later(arrived):
        arrived(None)


def _evicted() -> Exhausted:
    return Exhausted(
        Reason.TOO_MANY_RPCS,
        "the request had not arrived when another one needed its place; try again later",
    )
