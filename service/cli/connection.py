"""The connection of a client command: the options that all of them share, and the client.

A command marked ``connected`` gets a ``Client`` as its first argument. A failed RPC inside it ends
the command with one line (failures.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
import grpc
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from grpc_health.v1.health_pb2_grpc import HealthStub

from tollwire import client as library
from tollwire.client.connection import DEFAULT_SERVER, DEFAULT_TIMEOUT_SECONDS
from tollwire.client.errors import error_of
from tollwire.service.cli.credentials import token_options
from tollwire.service.cli.failures import DEFECT, INTERRUPTED, Failure, failure_of
from tollwire.service.cli.shared_options import (
    SharedOption,
    options_before_the_command,
    take_earlier_options,
)
from tollwire.service.cli.transport import check_files, transport_options

_CONNECTION = (
    *("server", "tls", "ca_file", "cert_file", "key_file", "server_name"),
    *("token", "token_file", "insecure"),
)


class Client(library.Client):
    """The client of a command. ``as_json``: the command prints JSON. Its options have read the
    environment already."""

    def __init__(self, server: str, *, as_json: bool = False, **connection: Any) -> None:
        super().__init__(server, environment={}, **connection)
        self.server = server
        self.as_json = as_json

    def check_health(self, request: HealthCheckRequest) -> HealthCheckResponse:
        """The health of one service."""
        answer: HealthCheckResponse = self._asked("Check", request)
        return answer

    def list_health(self) -> HealthListResponse:
        """The health of all services."""
        answer: HealthListResponse = self._asked("List", HealthListRequest())
        return answer

    def _asked(self, method: str, request: Message) -> Any:
        """The response of a method of the health service, which needs no token. The client's own
        channel avoids servers that are NOT_SERVING; this one must reach them."""
        option = ("grpc.inhibit_health_checking", 1)
        with self.connection.channel(option) as channel:
            try:
                return getattr(HealthStub(channel), method)(
                    request, timeout=self.connection.timeout
                )
            except grpc.RpcError as error:
                raise error_of(error) from None


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Add --server, --timeout, --json and the options of TLS and tokens to a command. A failed RPC
    ends the command with one line."""

    @_server_options
    @click.option("--json", "as_json", is_flag=True, help="Print protobuf JSON, also for errors.")
    @functools.wraps(command)
    def with_client(*args: Any, **kwargs: Any) -> None:
        take_earlier_options(click.get_current_context(), kwargs)
        timeout: float | None = kwargs.pop("timeout")
        connection = {name: kwargs.pop(name) for name in _CONNECTION}
        connection["as_json"] = kwargs.pop("as_json")
        connection["timeout"] = library.DEFAULT if timeout is None else timeout
        connection["long_timeout"] = timeout
        check_files(connection)
        try:
            client = Client(**connection)
        except library.ConfigurationError as error:
            raise click.UsageError(error.worded(_option)) from None
        try:
            with client:
                command(client, *args, **kwargs)
        except library.TollwireError as error:
            raise failure_of(error, client.server) from None
        except library.UploadError as error:
            raise Failure(str(error), DEFECT) from None
        except KeyboardInterrupt:
            raise Failure("interrupted", INTERRUPTED) from None

    return with_client


def _option(parameter: str) -> str:
    """The option for a parameter of the client."""
    return f"--{parameter.replace('_', '-')}"


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
