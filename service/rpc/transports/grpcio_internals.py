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

# A private module, which has no type hints.
_end: Callable[[Any, Any, bytes], None] = import_module("grpc._server")._status

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


def sends_responses(behavior: Behavior) -> Behavior:
    """grpc calls the handler with a third argument, which sends one response, and with None ends
    the RPC. Any thread may call it. Without this mark a handler returns an iterator."""
    behavior.experimental_non_blocking = True  # type: ignore[attr-defined]
    return behavior


def end_with_response(context: grpc.ServicerContext, response: bytes) -> None:
    """End an RPC whose handler has the mark of ``sends_responses`` with its only response, in one
    operation and without a wait. Any thread may call it."""
    private = cast(Any, context)
    _end(private._rpc_event, private._state, response)


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
