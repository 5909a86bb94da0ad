"""A real gRPC server on a free port for the tests of service/rpc, and a client's view of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.endpoints import endpoints
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.pools import RpcKind
from tollwire.service.rpc.streams import Streams
from tollwire.service.rpc.transports.grpcio import add_endpoints

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
) -> Iterator[Running]:
    """A server with one service, wrapped as in production, and a client's channel to it."""
    capacity = capacity or Capacity(max_rpcs=max_streams + 4, max_streams=max_streams)
    server = grpc.server(capacity.pools[RpcKind.ORDINARY], options=[("grpc.so_reuseport", 0)])
    streams = Streams(max_streams, capacity.request_bytes)
    add_endpoints(
        server, endpoints(service, servicer, streams, pipeline or RpcPipeline(), capacity)
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with connected(address) as channel:
        try:
            yield Running(server, channel, streams, address)
        finally:
            streams.stop()
            server.stop(0).wait(DEADLINE_SECONDS)
            capacity.close()


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
