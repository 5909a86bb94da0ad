"""The grpcio transport: every kind of RPC, and TLS.

grpcio would answer a message that cannot be decoded with INTERNAL, and an exception with UNKNOWN.
So handlers are registered on bytes, and the endpoints decode and map the errors. Each handler is
wrapped once, at registration: a grpc.ServerInterceptor would run again for each RPC.

All handlers are registered with streams of requests, which look the same on the wire: grpcio then
calls them at once, while it would read the message of a unary RPC first. So an RPC that is not
admitted is refused before anything is read.
"""

from __future__ import annotations

import time
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from tollwire.service.domain.thread_context import Slot, current_slot, set_authorization
from tollwire.service.rpc.batches import AdmittedRpc
from tollwire.service.rpc.call import ClientGone, Metadata, Trailers
from tollwire.service.rpc.endpoints import Endpoint, success_trailers
from tollwire.service.rpc.pipeline import RpcContext
from tollwire.service.rpc.status import Failure, StatusCode
from tollwire.service.rpc.transports import grpcio_internals

# Sends one response; None ends the RPC with the status that is set on its context.
Send = Callable[[bytes | None], None]

_AUTHORIZATION = "authorization"
_DETAILS_KEY = "grpc-status-details-bin"
_CODES = {code: grpc.StatusCode[code.name] for code in StatusCode}


def add_endpoints(server: grpc.Server, endpoints: Iterable[Endpoint]) -> None:
    """Register the endpoints with the server."""
    grpcio_internals.silence_decoder()
    handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for endpoint in endpoints:
        if not endpoint.is_unary:
            handler = _streaming(endpoint)
        elif endpoint.ends_later:
            handler = _ending_later(endpoint)
        else:
            handler = _unary(endpoint)
        handlers.setdefault(endpoint.service_name, {})[endpoint.method_name] = handler
    for service_name, of_service in handlers.items():
        grpcio_internals.register(server, service_name, of_service)


class CallerReader(grpc.ServerInterceptor):
    """Gives the pools the authorization header of each RPC, to limit callers before their RPCs wait
    in a queue. The header is not verified here; the pipeline does that later."""

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        metadata = handler_call_details.invocation_metadata
        set_authorization(next((value for key, value in metadata if key == _AUTHORIZATION), ""))
        return continuation(handler_call_details)


class GrpcioCall:
    """A StreamCall on grpcio's context."""

    __slots__ = ("_context", "_requests", "_send", "_until", "is_wanted", "metadata")

    def __init__(
        self, context: grpc.ServicerContext, requests: Iterator[bytes], send: Send | None = None
    ) -> None:
        self._context = context
        self._requests = requests
        self._send = send
        # grpcio compares the deadline with the time of day: all deadlines would pass if the clock
        # were set forward.
        self._until = time.monotonic() + context.time_remaining()
        self.is_wanted = context.is_active
        self.metadata: Metadata = context.invocation_metadata()

    def remaining_seconds(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def identities(self) -> Iterator[str]:
        """URIs, DNS names; without both, the common name."""
        shown = grpcio_internals.certificate_identities(self._context)
        found = False
        for kind in ("peer_uri", "peer_dns"):
            for name in shown.get(kind, ()):
                found = True
                yield name.decode("utf-8", "replace")
        if not found:
            for name in shown.get("x509_common_name", ()):
                yield name.decode("utf-8", "replace")

    def receive(self) -> bytes | None:
        try:
            return next(self._requests, None)
        except grpc.RpcError as error:
            raise ClientGone from error

    def send(self, response: bytes) -> None:
        assert self._send is not None
        self._send(response)

    def end(self, failure: Failure | None, trailers: Trailers = ()) -> None:
        assert self._send is not None
        if failure is not None:
            status = _status(failure)
            self._context.set_code(status.code)
            self._context.set_details(status.details)
            self._context.set_trailing_metadata(status.trailing_metadata)
        elif trailers:
            self._context.set_trailing_metadata(trailers)
        self._send(None)

    def respond(self, rpc: RpcContext, outcome: bytes | Failure) -> None:
        """End a unary RPC. Any thread may call it."""
        if isinstance(outcome, Failure):
            self.end(outcome)
            return
        trailers = success_trailers(rpc)
        if trailers:
            self._context.set_trailing_metadata(trailers)
        grpcio_internals.end_with_response(self._context, outcome)

    def on_end(self, callback: Callable[[], None]) -> bool:
        return self._context.add_callback(callback)

    def cancel(self) -> None:
        self._context.cancel()


class _Status(namedtuple("_Status", ("code", "details", "trailing_metadata")), grpc.Status):
    pass


def _status(failure: Failure) -> _Status:
    trailers: tuple[tuple[str, str | bytes], ...] = failure.trailers
    if failure.details:
        trailers = ((_DETAILS_KEY, failure.details), *trailers)
    return _Status(_CODES[failure.code], failure.message, trailers)


def _unary(endpoint: Endpoint) -> grpc.RpcMethodHandler[Any, Any]:
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        call = GrpcioCall(context, requests)
        rpc = endpoint.begin(call)
        outcome = endpoint.answer(rpc, lambda: endpoint.message(call))
        if isinstance(outcome, Failure):
            context.abort_with_status(_status(outcome))
        trailers = success_trailers(rpc)
        if trailers:
            context.set_trailing_metadata(trailers)
        return outcome

    grpcio_internals.run_in_pool(handle, endpoint.pool)
    return grpc.stream_unary_rpc_method_handler(handle)


def _ending_later(endpoint: Endpoint) -> grpc.RpcMethodHandler[Any, Any]:
    """For RPCs that wait for other RPCs without a thread. On the wire a unary RPC is a stream of
    one message."""
    batch = endpoint.batch
    assert batch is not None

    @grpcio_internals.sends_responses
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext, send: Send) -> None:
        call = GrpcioCall(context, requests, send)
        rpc = endpoint.begin(call)
        if current_slot() is not Slot.GRANTED:
            call.respond(rpc, endpoint.answer(rpc, lambda: endpoint.message(call)))
            return
        one = AdmittedRpc(endpoint, rpc, endpoint.pool.keep_slot(), call.respond, may_wait=True)
        if one.enter(lambda: endpoint.message(call)):
            try:
                batch([one])
            except Exception as error:
                one.fail_with_batch(error)

    grpcio_internals.run_in_pool(handle, endpoint.pool)
    return grpc.stream_stream_rpc_method_handler(handle)


def _streaming(endpoint: Endpoint) -> grpc.RpcMethodHandler[Any, Any]:
    @grpcio_internals.sends_responses
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext, send: Send) -> None:
        endpoint.run_stream(GrpcioCall(context, requests, send))

    grpcio_internals.run_in_pool(handle, endpoint.pool)
    return grpc.stream_stream_rpc_method_handler(handle)
