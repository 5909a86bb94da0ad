"""The connection of a client command: the options that all of them share, and the stubs.

A command marked ``connected`` gets a ``Client`` as its first argument. A failed RPC inside it ends
the command with one line (failures.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.resources import files
from types import TracebackType
from typing import Any

import click
import grpc
from grpc_health.v1.health_pb2_grpc import HealthStub

from tollwire.service.cli.credentials import take_token, token_options, with_token
from tollwire.service.cli.failures import INTERRUPTED, Failure, failure_of
from tollwire.service.cli.shared_options import (
    SharedOption,
    options_before_the_command,
    take_earlier_options,
)
from tollwire.service.cli.transport import PLAIN_TEXT, Transport, take_transport, transport_options
from tollwire.v1.access_service_pb2_grpc import AccessServiceStub
from tollwire.v1.cdr_service_pb2_grpc import CdrServiceStub
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub
from tollwire.v1.tenant_service_pb2_grpc import TenantServiceStub

DEFAULT_SERVER = "127.0.0.1:50051"
DEFAULT_TIMEOUT_SECONDS = 60.0
# Messages of an export or of an upload's failures can be larger than gRPC's default of 4 MiB.
MAX_RECEIVED_BYTES = 64 * 1024 * 1024

# The retry policy: the service config that is published with the protos.
SERVICE_CONFIG = files("tollwire.v1").joinpath("service_config.json").read_text(encoding="utf-8")

CHANNEL_OPTIONS = [
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    # Do not use a web proxy: the address is that of the server itself.
    ("grpc.enable_http_proxy", 0),
    # By default gRPC waits up to two minutes before it reconnects to a restarted server.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


class Client:
    """The stubs on one channel. ``timeout`` bounds short RPCs; ``long_timeout`` those whose length
    depends on the data, and is None (no limit) unless the user set one. ``token`` is sent with each
    RPC; "": no token."""

    def __init__(
        self,
        server: str,
        timeout: float | None = None,
        as_json: bool = False,
        token: str = "",
        transport: Transport = PLAIN_TEXT,
    ) -> None:
        self.server = server
        self.timeout = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
        self.long_timeout = timeout
        self.as_json = as_json
        self._channel = transport.channel(server, CHANNEL_OPTIONS)
        channel = with_token(self._channel, token)
        self.tenants = TenantServiceStub(channel)
        self.rating = RatingServiceStub(channel)
        self.cdrs = CdrServiceStub(channel)
        self.access = AccessServiceStub(channel)
        # Health needs no token. The other channel avoids servers that are NOT_SERVING; this one
        # must reach them to check their health.
        self._health_channel = transport.channel(
            server, [*CHANNEL_OPTIONS, ("grpc.inhibit_health_checking", 1)]
        )
        self.health = HealthStub(self._health_channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()
        self._health_channel.close()


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Add --server, --timeout, --json and the options of TLS and tokens to a command. A failed RPC
    ends the command with one line."""

    @_server_options
    @click.option("--json", "as_json", is_flag=True, help="Print protobuf JSON, also for errors.")
    @functools.wraps(command)
    def with_client(*args: Any, **kwargs: Any) -> None:
        take_earlier_options(click.get_current_context(), kwargs)
        server: str = kwargs.pop("server")
        timeout: float | None = kwargs.pop("timeout")
        as_json: bool = kwargs.pop("as_json")
        transport = take_transport(kwargs)
        token = take_token(kwargs, server, encrypted=transport.is_encrypted)
        try:
            with Client(server, timeout, as_json, token, transport) as client:
                command(client, *args, **kwargs)
        except grpc.RpcError as error:
            raise failure_of(error, server) from None
        except KeyboardInterrupt:
            raise Failure("interrupted", INTERRUPTED) from None

    return with_client


def _server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the connection to a command."""

    server = click.option(
        "--server",
        cls=SharedOption,
        envvar="TOLLWIRE_SERVER",
        default=DEFAULT_SERVER,
        metavar="HOST:PORT",
        help=f"The address of the server. Default {DEFAULT_SERVER}.  [env: TOLLWIRE_SERVER]",
    )
    timeout = click.option(
        "--timeout",
        cls=SharedOption,
        envvar="TOLLWIRE_TIMEOUT",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help=f"The time to wait for a response. Default {DEFAULT_TIMEOUT_SECONDS:g}; no limit"
        " for imports, uploads, exports and usage.  [env: TOLLWIRE_TIMEOUT]",
    )
    return server(timeout(transport_options(token_options(command))))


CONNECTION_OPTIONS = options_before_the_command(_server_options)
