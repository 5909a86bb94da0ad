"""Unary RPCs that a transport has received together and that run together.

Each RPC is admitted on its own, and ends on its own: with its own response, error, log line and
trailers. Only the work in between is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from tollwire.service.domain.thread_context import Slot, handling
from tollwire.service.rpc.capacity import RequestBytes
from tollwire.service.rpc.failures import failure_of
from tollwire.service.rpc.pipeline import RpcContext, RpcPipeline
from tollwire.service.rpc.pools import Pool
from tollwire.service.rpc.status import Failure, Refused, StatusCode

# Sends the outcome of an RPC to its client.
Respond = Callable[[RpcContext, bytes | Failure], object]


class UnaryEndpoint(Protocol):
    """What this module uses of an Endpoint (endpoints.py)."""

    pool: Pool
    pipeline: RpcPipeline
    request_bytes: RequestBytes
    max_request_bytes: int

    def respond(self, rpc: RpcContext, request: bytes) -> bytes: ...

    def refusal(self, rpc: RpcContext, slot: Slot) -> Failure: ...


class AdmittedRpc:
    """A unary RPC that is admitted. It must be ended by ``finish``, or passed on by ``run_alone``;
    both may be called in any thread."""

    __slots__ = (
        *("_authorization", "_endpoint", "_held", "_is_passed_on", "_reserved", "_respond"),
        *("request", "rpc"),
    )

    def __init__(
        self,
        endpoint: UnaryEndpoint,
        rpc: RpcContext,
        authorization: str | bytes,
        respond: Respond,
    ) -> None:
        self.rpc = rpc
        self.request = b""
        self._endpoint = endpoint
        self._authorization = authorization
        self._respond = respond
        self._held = 0
        self._reserved = 0
        self._is_passed_on = False

    def enter(self, size: int = 0) -> bool:
        """Admit the RPC, which has a slot, if there is memory for its request of ``size`` bytes; 0:
        it has not arrived. If the RPC is refused, finish it and return False."""
        endpoint = self._endpoint
        try:
            endpoint.pipeline.enter(self.rpc)
            endpoint.request_bytes.check(size)
        except Exception as error:
            self.finish(error)
            return False
        return True

    def grant(self, size: int) -> None:
        """Memory for a request of up to ``size`` bytes is reserved."""
        self._reserved = size

    def take(self, request: bytes) -> bool:
        """Take the request. If it is too large, finish the RPC and return False."""
        endpoint = self._endpoint
        if len(request) > endpoint.max_request_bytes:
            endpoint.request_bytes.refuse(request)
            self.finish(Refused(too_large(len(request), endpoint.max_request_bytes)))
            return False
        self._held = endpoint.request_bytes.settle(self._reserved, request)
        self._reserved = 0
        self.request = request
        return True

    def finish(self, outcome: bytes | Exception) -> None:
        """End the RPC with its response or with an error."""
        self._is_passed_on = True
        endpoint, rpc = self._endpoint, self.rpc
        endpoint.request_bytes.cancel(self._reserved)
        endpoint.request_bytes.release(self._held)
        endpoint.pipeline.leave(rpc)
        endpoint.pool.release(self._authorization)
        answer = failure_of(rpc, outcome) if isinstance(outcome, Exception) else outcome
        endpoint.pipeline.ended(rpc)
        self._respond(rpc, answer)

    def run_alone(self) -> None:
        """Run the RPC in a thread of its pool."""
        self._is_passed_on = True
        self.run_in_pool(self._run)

    def fail_with_batch(self, error: Exception) -> None:
        """End the RPC because its Batch has failed, unless it is passed on already."""
        if not self._is_passed_on:
            self.finish(error)

    def run_in_pool(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread of the RPC's pool, which has one for each admitted RPC."""
        self._endpoint.pool.run_granted(work)

    def _run(self) -> None:
        try:
            with handling(self.rpc.request):
                response = self._endpoint.respond(self.rpc, self.request)
        except Exception as error:
            self.finish(error)
        else:
            self.finish(response)


# Runs RPCs of one method that were received together. Runs in a thread of the transport, so it must
# not wait.
Batch: TypeAlias = Callable[[Sequence[AdmittedRpc]], None]


def admitted(
    endpoint: UnaryEndpoint,
    rpc: RpcContext,
    request: bytes,
    authorization: str | bytes,
    respond: Respond,
) -> AdmittedRpc | None:
    """The RPC, admitted; None if it was refused and its client has the reason."""
    slot = endpoint.pool.acquire(authorization)
    if slot is not Slot.GRANTED:
        respond(rpc, endpoint.refusal(rpc, slot))
        return None
    one = AdmittedRpc(endpoint, rpc, authorization, respond)
    return one if one.enter(len(request)) and one.take(request) else None


def too_large(size: int, most: int) -> Failure:
    """The end of an RPC whose request is too large, with grpcio's code and text."""
    return Failure(
        StatusCode.RESOURCE_EXHAUSTED,
        f"SERVER: Received message larger than max ({size} vs. {most})",
    )
