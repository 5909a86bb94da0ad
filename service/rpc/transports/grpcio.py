"""The grpcio transport: every kind of RPC, and TLS.

grpcio would answer a message that cannot be decoded with INTERNAL, and an exception with UNKNOWN.
So handlers are registered on bytes, and the endpoints decode and map the errors. Each handler is
wrapped once, at registration: a grpc.ServerInterceptor would run again for each RPC.

All handlers are registered with streams of requests and responses, which look the same on the wire:
grpcio then calls them at once, while it would read the message of a unary RPC first, in a thread.
Those of methods with one request run in grpc's own thread and do not wait: arrivals.py.
"""

from __future__ import annotations

import time
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import grpc

from tollwire.service.domain.thread_context import current_authorization, set_authorization
from tollwire.service.rpc.arrivals import start_stream, start_unary
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


# By the name of the service and of the method.
Handlers: TypeAlias = "Mapping[str, Mapping[str, grpc.RpcMethodHandler[Any, Any]]]"


def handlers_of(endpoints: Iterable[Endpoint]) -> Handlers:
    """The handlers of the endpoints. grpc is not in use yet: the process may be forked."""
    grpcio_internals.silence_decoder()
    handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for endpoint in endpoints:
        handler = _one_request(endpoint) if endpoint.has_one_request else _streaming(endpoint)
        handlers.setdefault(endpoint.service_name, {})[endpoint.method_name] = handler
    return handlers


def add_handlers(server: grpc.Server, handlers: Handlers) -> None:
    """Register the handlers with the server."""
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

    __slots__ = ("_context", "_put_back", "_requests", "_send", "_until", "is_wanted", "metadata")

    def __init__(
        self, context: grpc.ServicerContext, requests: Iterator[bytes], send: Send
    ) -> None:
        self._context = context
        self._put_back: list[bytes | None] = []
        self._requests = requests
        self._send = send
        # grpcio compares the deadline with the time of day: all deadlines would pass if the clock
        # were set forward.
        self._until = time.monotonic() + context.time_remaining()
        self.is_wanted = context.is_active
        self.metadata: Metadata = context.invocation_metadata()

    def remaining_seconds(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def peer(self) -> str:
        return self._context.peer()

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

    def receive_later(self, arrived: Callable[[bytes | None], object]) -> bool:
        return grpcio_internals.read_message(self._context, arrived)

    def put_back(self, request: bytes | None) -> None:
        self._put_back.append(request)

    def receive(self) -> bytes | None:
        if self._put_back:
            return self._put_back.pop()
        try:
            return next(self._requests, None)
        except grpc.RpcError as error:
            raise ClientGone from error

    def send(self, response: bytes) -> None:
        self._send(response)

    def end(self, failure: Failure | None, trailers: Trailers = ()) -> None:
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

    def break_off(self, failure: Failure) -> None:
        grpcio_internals.break_off(self._context, failure.code.value, failure.message)


class _Status(namedtuple("_Status", ("code", "details", "trailing_metadata")), grpc.Status):
    pass


def _status(failure: Failure) -> _Status:
    trailers: tuple[tuple[str, str | bytes], ...] = failure.trailers
    if failure.details:
        trailers = ((_DETAILS_KEY, failure.details), *trailers)
    return _Status(_CODES[failure.code], failure.message, trailers)


def _one_request(endpoint: Endpoint) -> grpc.RpcMethodHandler[Any, Any]:
    @grpcio_internals.sends_responses
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext, send: Send) -> None:
        call = GrpcioCall(context, requests, send)
        if endpoint.is_unary:
            start_unary(endpoint, call, current_authorization(), call.respond)
        else:
            start_stream(endpoint, call, current_authorization())

    grpcio_internals.run_in_grpc_thread(handle)
    return grpc.stream_stream_rpc_method_handler(handle)


def _streaming(endpoint: Endpoint) -> grpc.RpcMethodHandler[Any, Any]:
    @grpcio_internals.sends_responses
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext, send: Send) -> None:
        endpoint.run_stream(GrpcioCall(context, requests, send))

    grpcio_internals.run_in_pool(handle, endpoint.pool)
    return grpc.stream_stream_rpc_method_handler(handle)
