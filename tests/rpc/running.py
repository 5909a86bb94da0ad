"""A real gRPC server on a free port for the tests of service/rpc, and a client's view of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.endpoints import Endpoint, endpoints
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.pools import RpcKind
from tollwire.service.rpc.server import (
    KEEPALIVE_MS,
    KEEPALIVE_TIMEOUT_MS,
    MAX_METADATA_BYTES,
    MAX_RPCS_A_CONNECTION,
)
from tollwire.service.rpc.streams import Streams
from tollwire.service.rpc.transports.grpcio import add_handlers, handlers_of
from tollwire.service.rpc.transports.native import NativeTransport
from tollwire.service.rpc.transports.native_front import open_front
from tollwire.service.settings.parsing import Listen

# The limit of every wait for something that should happen at once.
DEADLINE_SECONDS = 20


@dataclass
class Running:
    server: grpc.Server
    channel: grpc.Channel
    streams: Streams
    address: str


@contextmanager
def running(
    service: ServiceDescriptor,
    servicer: object,
    *,
    max_streams: int = 4,
    pipeline: RpcPipeline | None = None,
    capacity: Capacity | None = None,
    transport: str = "grpcio",
) -> Iterator[Running]:
    """A server with one service, wrapped as in production, and a client's channel to it."""
    capacity = capacity or Capacity(max_rpcs=max_streams + 4, max_streams=max_streams)
    server = grpc.server(capacity.pools[RpcKind.ORDINARY], options=[("grpc.so_reuseport", 0)])
    streams = Streams(max_streams, capacity.request_bytes, capacity.stream_wait_seconds)
    methods = endpoints(service, servicer, streams, pipeline or RpcPipeline(), capacity)
    add_handlers(server, handlers_of(methods))
    with ExitStack() as stack:
        if transport == "native":
            path = f"{stack.enter_context(TemporaryDirectory())}/grpc.sock"
            server.add_insecure_port(f"unix:{path}")
            native = native_transport(methods, path, capacity)
            address = str(native.listen)
            stack.callback(native.stop, 0)
        else:
            address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        if transport == "native":
            native.start()
        channel = stack.enter_context(connected(address))
        try:
            yield Running(server, channel, streams, address)
        finally:
            streams.stop()
            server.stop(0).wait(DEADLINE_SECONDS)
    capacity.close()


def native_transport(
    methods: Sequence[Endpoint], fallback_path: str, capacity: Capacity, **options: Any
) -> NativeTransport:
    """The native transport of the unary methods, on a free port."""
    return NativeTransport(
        [one for one in methods if one.is_unary],
        Listen("127.0.0.1", 0),
        partial(
            open_front,
            share_port=False,
            max_rpcs_a_connection=MAX_RPCS_A_CONNECTION,
            max_metadata_bytes=MAX_METADATA_BYTES,
            keepalive_ms=KEEPALIVE_MS,
            keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
        ),
        fallback_path=fallback_path,
        **{
            "max_growth_bytes": 2**40,
            "request_bytes": capacity.request_bytes,
            "distinguishes_callers": capacity.share < 1,
        }
        | options,
    )


@contextmanager
def connected(address: str) -> Iterator[grpc.Channel]:
    """A connection of its own."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


@dataclass
class Refusal:
    """An error as the client sees it."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[tuple[str, str]] = field(default_factory=list)
    retry_seconds: float | None = None

    @property
    def fields(self) -> list[str]:
        return [name for name, _ in self.violations]


def refusal(act: Callable[[], Any]) -> Refusal:
    """The server's refusal of ``act``; fails if there is none, or if it has no
    google.rpc.Status."""
    try:
        answer = act()
        if isinstance(answer, Iterator):
            answer = list(answer)
    except grpc.RpcError as error:
        return read_refusal(error)
    raise AssertionError(f"not refused: {answer!r}")


def read_refusal(error: grpc.RpcError) -> Refusal:
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error.code()} {error.details()}"
    found = Refusal(error.code(), error.details())
    for detail in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
        ):
            if detail.Is(kind.DESCRIPTOR):
                _read_detail(found, detail, kind())
    return found


def _read_detail(found: Refusal, detail: Any, message: Any) -> None:
    detail.Unpack(message)
    if isinstance(message, error_details_pb2.ErrorInfo):
        found.reason, found.domain = message.reason, message.domain
        found.metadata = dict(message.metadata)
    elif isinstance(message, error_details_pb2.BadRequest):
        found.violations = [(bad.field, bad.description) for bad in message.field_violations]
    else:
        found.retry_seconds = message.retry_delay.ToTimedelta().total_seconds()
