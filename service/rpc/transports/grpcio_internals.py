"""The private and experimental parts of grpcio that the server uses. No other module uses any.

tests/rpc/test_grpcio_internals.py tests each of them on a running server; a failure names what a
new grpcio has changed. pyproject.toml limits grpcio to the releases that were tested.

Besides the functions below, the server relies on this behaviour: grpc calls the interceptors
and then ``submit`` of the pool in one thread (rpc/pools.py), and a handler that is registered with
a stream of requests is called before any request is read (rpc/transports/grpcio.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, TypeVar, cast

import grpc

# Private modules, which have no type hints.
_server: Any = import_module("grpc._server")
_cygrpc: Any = import_module("grpc._cython.cygrpc")

# The logger of grpc's compiled part.
_DECODER = "grpc._cython.cygrpc"

Behavior = TypeVar("Behavior", bound=Callable[..., Any])


def silence_decoder() -> None:
    """Let grpc write no line for a header value that is not UTF-8. It would write a traceback for
    each, before any check of the client. A line that is sampled costs more than a silent logger."""
    logging.getLogger(_DECODER).setLevel(logging.CRITICAL + 1)


def run_in_pool(behavior: Callable[..., Any], pool: ThreadPoolExecutor) -> None:
    """grpc submits the RPCs of this handler to ``pool`` instead of the server's own pool."""
    behavior.experimental_thread_pool = pool  # type: ignore[attr-defined]


class _Now:
    """A future that is done."""

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        callback(self)


class _GrpcThread(ThreadPoolExecutor):
    """Runs everything at once in the thread of grpc that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        fn(*args, **kwargs)
        return _Now()


_GRPC_THREAD = _GrpcThread(1)


def run_in_grpc_thread(behavior: Callable[..., Any]) -> None:
    """grpc calls this handler in its own thread, so the handler must not wait."""
    run_in_pool(behavior, _GRPC_THREAD)


def sends_responses(behavior: Behavior) -> Behavior:
    """grpc calls the handler with a third argument, which sends one response, and with None ends
    the RPC. Any thread may call it. Without this mark a handler returns an iterator."""
    behavior.experimental_non_blocking = True  # type: ignore[attr-defined]
    return behavior


def end_with_response(context: grpc.ServicerContext, response: bytes) -> None:
    """End an RPC whose handler has the mark of ``sends_responses`` with its only response, in one
    operation and without a wait. Any thread may call it."""
    private = cast(Any, context)
    _server._status(private._rpc_event, private._state, response)


def read_message(context: grpc.ServicerContext, arrived: Callable[[bytes | None], object]) -> bool:
    """Call ``arrived`` with the next message of the RPC once it is there; None if the client has
    sent its last one or has left. No thread waits: grpc's own thread calls it, so it must not wait
    and must not raise. False, and no call, if the RPC has ended already."""
    private = cast(Any, context)
    state, call = private._state, private._rpc_event.call
    token = _server._RECEIVE_MESSAGE_TOKEN

    def receive(event: Any) -> Any:
        message = event.batch_operations[0].message()
        with state.condition:
            if message is None and state.client is _server._OPEN:
                state.client = _server._CLOSED
            ended = _server._possibly_finish_call(state, token)
        arrived(message)
        return ended

    with state.condition:
        if not _server._is_rpc_state_active(state):
            return False
        call.start_server_batch((_cygrpc.ReceiveMessageOperation(0),), receive)
        state.due.add(token)
    return True


def break_off(context: grpc.ServicerContext, code: int, message: str) -> None:
    """End an RPC with this status at once, before responses that its client has not read. Any
    thread may call it. Nothing happens if the RPC has ended."""
    cast(Any, context)._rpc_event.call.cancel(code, message.encode())


def register(
    server: grpc.Server, service_name: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
) -> None:
    """Register the handlers of a service by method name. grpc's core then dispatches by method."""
    server.add_registered_method_handlers(service_name, dict(handlers))


def certificate_identities(context: grpc.ServicerContext) -> Mapping[str, Sequence[bytes]]:
    """The properties of the client's connection. Each has a list of values, which the type hints
    of grpc do not show."""
    return cast(Mapping[str, Sequence[bytes]], context.auth_context())


def reloading_credentials(
    first: grpc.ServerCertificateConfiguration,
    next_configuration: Callable[[], grpc.ServerCertificateConfiguration | None],
    *,
    require_client_certificates: bool,
) -> grpc.ServerCredentials:
    """Credentials that call ``next_configuration`` before each handshake, under a lock of grpc.
    None, which the type hints of grpc do not show, keeps the last configuration."""
    return grpc.dynamic_ssl_server_credentials(
        first,
        next_configuration,  # type: ignore[arg-type]
        require_client_authentication=require_client_certificates,
    )
