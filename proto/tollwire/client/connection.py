"""The connection of a client: address, deadlines, TLS, token, and the channel made of them.

Each parameter that is not given is read from the environment, under the same names as the command
``tollwire`` uses. Anybody who intercepts a token can use it, so a token is sent in plain text only
to this machine, or with ``insecure``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from tollwire.client.errors import ConfigurationError
from tollwire.client.parameters import DEFAULT, Default, Metadata
from tollwire.loopback import is_loopback_target

DEFAULT_SERVER = "127.0.0.1:50051"
DEFAULT_TIMEOUT_SECONDS = 60.0
# Messages of an export or of an upload's failures can be larger than gRPC's default of 4 MiB.
MAX_RECEIVED_BYTES = 64 * 1024 * 1024
# A larger file does not contain a token.
_MAX_TOKEN_BYTES = 1000
# All public certificate authorities take 250 kB.
_MAX_PEM_BYTES = 4 * 1024 * 1024
_TRUE, _FALSE = {"1", "true", "t", "yes", "y", "on"}, {"", "0", "false", "f", "no", "n", "off"}

# The retry policy: the service config that is published with the protos.
SERVICE_CONFIG = files("tollwire.v1").joinpath("service_config.json").read_text(encoding="utf-8")

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    # Do not use a web proxy: the address is that of the server itself.
    ("grpc.enable_http_proxy", 0),
    # By default gRPC waits up to two minutes before it reconnects to a restarted server.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

FileName = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where and how to connect. ``timeout`` is for RPCs that answer at once, ``long_timeout`` for
    those whose time depends on the amount of data; seconds, None for no limit. ``credentials``
    None: plain text."""

    server: str
    timeout: float | None
    long_timeout: float | None
    credentials: grpc.ChannelCredentials | None = field(repr=False)
    options: tuple[tuple[str, Any], ...]
    metadata: Metadata = field(repr=False)

    def channel(self, *options: tuple[str, Any]) -> grpc.Channel:
        """A new channel, with further options of gRPC."""
        every = [*self.options, *options]
        if self.credentials is None:
            return grpc.insecure_channel(self.server, every)
        return grpc.secure_channel(self.server, self.credentials, every)

    def async_channel(self) -> aio.Channel:
        """A new channel for the running event loop."""
        if self.credentials is None:
            return aio.insecure_channel(self.server, self.options)
        return aio.secure_channel(self.server, self.credentials, self.options)

    def seconds(self, timeout: float | Default | None, *, is_long: bool) -> float | None:
        """The timeout of one RPC."""
        if isinstance(timeout, Default):
            return self.long_timeout if is_long else self.timeout
        return timeout


class Connected:
    """The parameters that Client and AsyncClient share.

    server        the address, as gRPC writes it: "HOST:PORT", "dns:///NAME:PORT", "unix:PATH"
    timeout       seconds for RPCs that answer at once (60 by default); None for no limit
    long_timeout  seconds for exports, imports, uploads, usage and other RPCs whose time depends on
                  the amount of data; None, the default, for no limit
    tls           connect over TLS; one of the next four parameters implies it
    ca_file       the certificate authorities to trust, PEM; by default gRPC's list of public ones
    cert_file     the client certificate, PEM, and
    key_file      its private key
    server_name   the name in the server's certificate, if it differs from the address
    token         the access token
    token_file    a file that contains only the token; read once
    insecure      allow the token in plain text to another machine
    options       further options of the gRPC channel
    environment   the variables to read what is not given from: TOLLWIRE_SERVER, TOLLWIRE_TIMEOUT
                  (both timeouts), TOLLWIRE_TLS, TOLLWIRE_CA_FILE, TOLLWIRE_CERT_FILE,
                  TOLLWIRE_KEY_FILE, TOLLWIRE_SERVER_NAME, TOLLWIRE_TOKEN, TOLLWIRE_TOKEN_FILE,
                  TOLLWIRE_INSECURE. By default those of the process; {} for none

    ConfigurationError if they contradict each other or a file cannot be read.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        timeout: float | Default | None = DEFAULT,
        long_timeout: float | Default | None = DEFAULT,
        tls: bool | None = None,
        ca_file: FileName | None = None,
        cert_file: FileName | None = None,
        key_file: FileName | None = None,
        server_name: str | None = None,
        token: str | None = None,
        token_file: FileName | None = None,
        insecure: bool | None = None,
        options: Sequence[tuple[str, Any]] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        variables = Environment(os.environ if environment is None else environment)
        server = server or variables.text("server") or DEFAULT_SERVER
        overall = variables.seconds("timeout")
        if isinstance(timeout, Default):
            timeout = DEFAULT_TIMEOUT_SECONDS if overall is None else overall
        if isinstance(long_timeout, Default):
            long_timeout = overall
        if cert_file is None and key_file is None:
            cert_file, key_file = variables.text("cert_file"), variables.text("key_file")
        server_name = server_name or variables.text("server_name")
        credentials = channel_credentials(
            variables.flag("tls") if tls is None else tls,
            ca_file if ca_file is not None else variables.text("ca_file"),
            cert_file,
            key_file,
            server_name,
        )
        if token is None and token_file is None:
            token, token_file = variables.text("token"), variables.text("token_file")
        text = token_text(token, token_file)
        insecure = variables.flag("insecure") if insecure is None else insecure
        if text and credentials is None and not insecure and not is_loopback_target(server):
            raise ConfigurationError(
                "the token would be sent to {address} in plain text; use {tls}, or {insecure} if"
                " the network is protected in another way",
                address=server,
            )
        override = [("grpc.ssl_target_name_override", server_name)] if server_name else []
        self.connection = Connection(
            server=server,
            timeout=timeout,
            long_timeout=long_timeout,
            credentials=credentials,
            options=(*CHANNEL_OPTIONS, *override, *options),
            metadata=(("authorization", f"Bearer {text}"),) if text else (),
        )
        self._open()

    def _open(self) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.connection.server!r})"


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables of the environment, by the names of the parameters."""

    variables: Mapping[str, str]

    def text(self, parameter: str) -> str | None:
        """The value; None if the variable is empty or not set."""
        return self.variables.get(self._name(parameter)) or None

    def flag(self, parameter: str) -> bool:
        value = (self.text(parameter) or "").strip().lower()
        if value not in _TRUE | _FALSE:
            raise ConfigurationError(
                "{variable}: {value} is not 1 or 0", variable=self._name(parameter), value=value
            )
        return value in _TRUE

    def seconds(self, parameter: str) -> float | None:
        value = self.text(parameter)
        try:
            seconds = None if value is None else float(value)
        except ValueError:
            seconds = math.nan
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigurationError(
                "{variable}: {value} is not a number of seconds above 0",
                variable=self._name(parameter),
                value=str(value),
            )
        return seconds

    @staticmethod
    def _name(parameter: str) -> str:
        return f"TOLLWIRE_{parameter.upper()}"


def channel_credentials(
    tls: bool,
    ca_file: FileName | None,
    cert_file: FileName | None,
    key_file: FileName | None,
    server_name: str | None,
) -> grpc.ChannelCredentials | None:
    """The credentials of TLS; None for plain text. ConfigurationError if a file cannot be read."""
    if (cert_file is None) != (key_file is None):
        raise ConfigurationError("{cert_file} and {key_file} must be given together")
    if not (tls or ca_file is not None or cert_file is not None or server_name):
        return None
    contents = {
        parameter: None if file is None else _read(parameter, file, _MAX_PEM_BYTES)
        for parameter, file in (
            ("ca_file", ca_file),
            ("cert_file", cert_file),
            ("key_file", key_file),
        )
    }
    return grpc.ssl_channel_credentials(
        contents["ca_file"], contents["key_file"], contents["cert_file"]
    )


def token_text(token: str | None, token_file: FileName | None) -> str:
    """The token to send, or "". ConfigurationError if it cannot be one."""
    if token and token_file is not None:
        raise ConfigurationError("give {token} or {token_file}, not both")
    text = token or ""
    if token_file is not None:
        data = _read("token_file", token_file, _MAX_TOKEN_BYTES)
        try:
            text = data.decode().strip()
        except UnicodeDecodeError:
            raise ConfigurationError(
                "{token_file}: cannot read {path}: it is not a text file",
                path=os.fspath(token_file),
            ) from None
    # Other characters cannot be sent in a header.
    if not (text.isascii() and text.isprintable()):
        raise ConfigurationError("the token has characters that are not allowed in a token")
    return text.strip()


def _read(parameter: str, file: FileName, max_bytes: int) -> bytes:
    """The contents of a file, of which ``max_bytes`` are read."""
    try:
        with Path(file).open("rb") as opened:
            return opened.read(max_bytes)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"{{{parameter}}}: cannot read {{path}}: {{words}}",
            path=os.fspath(file),
            words=str(words),
        ) from None
