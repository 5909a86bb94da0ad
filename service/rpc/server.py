"""The gRPC server: its parts, start and stop.

grpc's own threads do the transport; handlers run in one pool for each kind of RPC (``pools``), so
that slow RPCs cannot take the threads of fast ones. The transport costs more than the handlers.
More processes increase the throughput and more threads do not: see process/workers.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tollwire.service.accounts.audit import AuditLog
from tollwire.service.accounts.tenants import Tenants
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.domain.errors import CannotListen
from tollwire.service.rating.calls import Calls
from tollwire.service.rating.rates import Rates
from tollwire.service.record.cdrs import Cdrs
from tollwire.service.record.chunk_limiter import ChunkLimiter
from tollwire.service.record.explanations import Explanations
from tollwire.service.record.feed import Feed
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.reversals import Reversals
from tollwire.service.record.uploads import Uploads
from tollwire.service.record.verification import Verification
from tollwire.service.reports.usage import Usage
from tollwire.service.rpc import health
from tollwire.service.rpc.access_service import AccessServicer
from tollwire.service.rpc.capacity import REFLECTION_STREAMS, Capacity
from tollwire.service.rpc.cdr_service import CdrServicer
from tollwire.service.rpc.connections import connection_options
from tollwire.service.rpc.endpoints import MAX_REQUEST_BYTES, Endpoint, endpoints
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.pools import RpcKind
from tollwire.service.rpc.rating_service import RatingServicer
from tollwire.service.rpc.reflection import Symbols
from tollwire.service.rpc.streams import Streams
from tollwire.service.rpc.tenant_service import TenantServicer
from tollwire.service.rpc.transports.grpcio import CallerReader, add_handlers, handlers_of
from tollwire.service.rpc.transports.memory_guard import MemoryGuard
from tollwire.service.settings.config import DEFAULT_DATABASE_WAIT_SECONDS
from tollwire.service.settings.parsing import Listen
from tollwire.v1 import (
    access_service_pb2,
    cdr_service_pb2,
    rating_service_pb2,
    tenant_service_pb2,
)

if TYPE_CHECKING:
    from tollwire.service.rpc.transports.native import NativeTransport

# A client of reflection sends one request after the other.
REFLECTION_WAIT_SECONDS = 10.0
# The limits of the health server. Probes connect again for each check.
HEALTH_RPCS = 8
HEALTH_CONNECTIONS = 256
HEALTH_CONNECTION_AGE_SECONDS = 60.0
# A watch occupies no thread, only memory.
HEALTH_WATCHES = 10_000

# The bytes that grpc buffers beyond the request that a stream reads. By default grpc increases this
# with the bandwidth, to several requests for each stream that waits for the database.
LOOKAHEAD_BYTES = 1024 * 1024
# A client may ping every 10 seconds, also without an RPC; grpc's default is 5 minutes.
MIN_PING_INTERVAL_MS = 10_000
# The server pings too: if a client disappears without closing, its stream must release its slot.
KEEPALIVE_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000

# The longest wait for clients that watch the health to disconnect, and then the time for refusing
# the others: a refused client retries after a tenth of a second.
DRAIN_SECONDS = 2.0
REFUSING_SECONDS = 1.0

# The time that a handler has to notice that its RPC was cancelled.
LAST_HANDLERS_SECONDS = 2.0

# Simultaneous RPCs of one connection; its client queues further RPCs. Each RPC that waits for a
# thread takes some memory.
MAX_RPCS_A_CONNECTION = 1_000

# The metadata of one request: names, values and 32 bytes for each. grpc's defaults refuse some
# above 8 KiB, and all above 16.
MAX_METADATA_BYTES = 8 * 1024
# Requests are not compressed: a small one could be unpacked to MAX_REQUEST_BYTES. A set of bits, of
# which the first is "identity".
COMPRESSION_ALGORITHMS = 1

# The growth of a worker, as a multiple of the limit of requests in work, which hold their memory
# several times: above it the RPCs end whose messages are being read, or with the native transport
# all connections.
MAX_GROWTH = 2

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.compression_enabled_algorithms_bitset", COMPRESSION_ALGORITHMS),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_RPCS_A_CONNECTION),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # Each ping also has this timeout, by default 60 seconds, and the longer one applies.
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
)

_SERVICES = {
    "rating": rating_service_pb2.DESCRIPTOR.services_by_name["RatingService"],
    "cdr": cdr_service_pb2.DESCRIPTOR.services_by_name["CdrService"],
    "tenant": tenant_service_pb2.DESCRIPTOR.services_by_name["TenantService"],
    "access": access_service_pb2.DESCRIPTOR.services_by_name["AccessService"],
}
_REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
# The v1 protocol has the same messages as v1alpha under another name.
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects that the servicers call."""

    tenants: Tenants
    rates: Rates
    calls: Calls
    cdrs: Cdrs
    uploads: Uploads
    usage: Usage
    reversals: Reversals
    verification: Verification
    explanations: Explanations
    ledger: Ledger
    feed: Feed
    tokens: Tokens
    audit_log: AuditLog


class RpcServer:
    """One process's server. ``bind``, ``start``, then ``stop``, each once. Before ``bind`` it has
    no thread and does not use grpc: the process may be forked."""

    def __init__(
        self,
        subjects: Subjects,
        *,
        capacity: Capacity,
        pipeline: RpcPipeline,
        connections: Sequence[tuple[str, int]] = (),
        share_port: bool = False,
        database_wait_seconds: float = DEFAULT_DATABASE_WAIT_SECONDS,
        is_native: bool = False,
    ) -> None:
        """``capacity``: the limits of the server; ``stop`` closes it. ``connections``: the options
        of connections. ``share_port``: other processes listen on the same port. ``is_native``:
        clients reach the native transport, and grpcio through it."""
        self._capacity = capacity
        self._share_port = share_port
        self._is_native = is_native
        self._native: NativeTransport | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._streams = Streams(
            capacity.max_streams, capacity.request_bytes, capacity.stream_wait_seconds
        )
        self._reflections = Streams(
            REFLECTION_STREAMS, capacity.request_bytes, REFLECTION_WAIT_SECONDS
        )
        self._watches = Streams(HEALTH_WATCHES, capacity.request_bytes)
        self._options = (*OPTIONS, *connections, ("grpc.so_reuseport", int(share_port)))
        self._server: grpc.Server | None = None  # until ``bind``
        self._guard = MemoryGuard(
            capacity.pools.give_up_messages,
            MAX_GROWTH * capacity.max_request_bytes,
            end=None,
            what="ending the requests whose messages have not arrived",
            passed_bytes=lambda: capacity.request_bytes.passed,
        )
        names = [service.full_name for service in _SERVICES.values()]
        self._health = health.HealthServicer(names, set(names) - {_SERVICES["rating"].full_name})
        self._endpoints = tuple(
            self._make_endpoints(subjects, names, pipeline, database_wait_seconds)
        )
        self._handlers = handlers_of(self._endpoints)
        self._pipeline = pipeline
        # Of the health server, which shares none with other clients.
        self._health_capacity: Capacity | None = None
        self._health_server: grpc.Server | None = None
        self._health_watches = Streams(HEALTH_WATCHES)

    def _make_endpoints(
        self,
        subjects: Subjects,
        names: list[str],
        pipeline: RpcPipeline,
        database_wait_seconds: float,
    ) -> Iterator[Endpoint]:
        rating = RatingServicer(subjects.calls, subjects.rates)
        cdr = CdrServicer(
            cdrs=subjects.cdrs,
            uploads=subjects.uploads,
            usage=subjects.usage,
            reversals=subjects.reversals,
            verification=subjects.verification,
            explanations=subjects.explanations,
            ledger=subjects.ledger,
            feed=subjects.feed,
            chunk_limiter=ChunkLimiter(self._capacity.chunks, database_wait_seconds),
        )
        tenant = TenantServicer(subjects.tenants)
        access = AccessServicer(subjects.tokens, subjects.audit_log)
        for service, servicer, streams in (
            (_SERVICES["rating"], rating, self._streams),
            (_SERVICES["cdr"], cdr, self._streams),
            (_SERVICES["tenant"], tenant, self._streams),
            (_SERVICES["access"], access, self._streams),
            (health.SERVICE, self._health, self._watches),
        ):
            yield from endpoints(service, servicer, streams, pipeline, self._capacity)
        reflected = reflection.ReflectionServicer(
            [*names, health.SERVICE.full_name, _REFLECTION.full_name], Symbols()
        )
        for name in (_REFLECTION.full_name, _REFLECTION_V1):
            yield from endpoints(
                _REFLECTION, reflected, self._reflections, pipeline, self._capacity, name=name
            )

    def bind(self, listen: Listen, credentials: grpc.ServerCredentials | None = None) -> Listen:
        """Bind the port; 0 picks a free one. Returns the address. Without credentials the server
        uses plain text."""
        self._server = server = grpc.server(
            self._capacity.pools[RpcKind.ORDINARY],
            interceptors=[CallerReader()] if self._capacity.share < 1 else [],
            options=self._options,
        )
        add_handlers(server, self._handlers)
        if self._is_native:
            return self._bind_native(server, listen)
        try:
            if credentials is None:
                port = server.add_insecure_port(str(listen))
            else:
                port = server.add_secure_port(str(listen), credentials)
            return Listen(listen.host, port)
        except RuntimeError as error:
            why = "the port is in use"
            if credentials is not None:
                why += ", or grpc cannot use a certificate in the chain (GRPC_VERBOSITY=DEBUG)"
            raise CannotListen(f"cannot listen on {listen}: {why}") from error

    def bind_health(self, listen: Listen) -> Listen:
        """Bind a second port, in plain text, that answers health checks only. It has threads,
        slots and connections of its own, so clients of the other port cannot keep probes out."""
        self._health_capacity = capacity = Capacity(HEALTH_RPCS, max_streams=1)
        self._health_server = server = grpc.server(
            capacity.pools[RpcKind.ORDINARY],
            options=(
                *OPTIONS,
                *connection_options(HEALTH_CONNECTIONS, HEALTH_CONNECTION_AGE_SECONDS),
                ("grpc.so_reuseport", int(self._share_port)),
            ),
        )
        methods = endpoints(
            health.SERVICE, self._health, self._health_watches, self._pipeline, capacity
        )
        add_handlers(server, handlers_of(methods))
        try:
            return Listen(listen.host, server.add_insecure_port(str(listen)))
        except RuntimeError as error:
            raise CannotListen(f"--health-listen: cannot listen on {listen}: in use") from error

    def _bind_native(self, server: grpc.Server, listen: Listen) -> Listen:
        # Imported only if it is used.
        from tollwire.service.rpc.transports import native, native_front

        # Only this user can enter the folder.
        self._folder = TemporaryDirectory(prefix="tollwire-")
        path = f"{self._folder.name}/grpc.sock"
        server.add_insecure_port(f"unix:{path}")
        self._native = native.NativeTransport(
            [endpoint for endpoint in self._endpoints if endpoint.is_unary],
            listen,
            partial(
                native_front.open_front,
                share_port=self._share_port,
                max_rpcs_a_connection=MAX_RPCS_A_CONNECTION,
                max_metadata_bytes=MAX_METADATA_BYTES,
                keepalive_ms=KEEPALIVE_MS,
                keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
            ),
            fallback_path=path,
            max_growth_bytes=MAX_GROWTH * self._capacity.max_request_bytes,
            request_bytes=self._capacity.request_bytes,
            distinguishes_callers=self._capacity.share < 1,
        )
        return self._native.listen

    def start(self) -> None:
        """Start to answer requests; the health becomes SERVING."""
        assert self._server is not None, "it is bound"
        self._server.start()
        if self._native is not None:
            self._native.start()
        else:
            self._guard.start()
        self._health.serve()
        if self._health_server is not None:
            self._health_server.start()

    def serving(self) -> dict[str, bool]:
        """Whether each service is SERVING, by its name; "server" is the server as a whole."""
        return {
            name.rpartition(".")[2] or "server": on for name, on in self._health.serving().items()
        }

    def database_answers(self, answers: bool) -> None:
        """Update the health of the services that need the database."""
        self._health.database_answers(answers)

    def _drain(self, grace_seconds: float) -> None:
        """Move clients to other servers before grpc stops: grpc would cancel RPCs that have arrived
        and have no handler yet, and clients retry only UNAVAILABLE. First wait for clients that
        watch the health; then refuse the RPCs of the others with UNAVAILABLE."""
        self._health.stop()
        self._health.wait_until_notified()
        self._capacity.pools.await_quiet(min(DRAIN_SECONDS, grace_seconds))
        self._capacity.pools.refuse()
        self._capacity.pools.await_quiet(min(REFUSING_SECONDS, grace_seconds))

    def stop(self, grace_seconds: float) -> bool:
        """Report NOT_SERVING, refuse new RPCs, let RPCs in flight finish for ``grace_seconds``,
        then cancel them. Streams of requests end before their next request. Returns whether all
        handlers have ended: a handler that does not check for cancellation may continue."""
        assert self._server is not None, "it is bound"
        self._drain(grace_seconds)
        until = time.monotonic() + grace_seconds
        stopped = self._server.stop(grace_seconds)
        self._streams.stop()
        self._reflections.stop()
        self._watches.stop()
        stopped.wait()
        if self._native is not None:
            # After grpcio, whose streams end through its front.
            self._native.stop(max(0.0, until - time.monotonic()))
        else:
            self._guard.close()
        self._health_watches.stop()
        if self._health_server is not None and self._health_capacity is not None:
            self._health_server.stop(0).wait()
            self._health_capacity.close()
        if self._folder is not None:
            self._folder.cleanup()
        closing = threading.Thread(target=self._capacity.close, daemon=True)
        closing.start()
        closing.join(LAST_HANDLERS_SECONDS)
        return not closing.is_alive()
