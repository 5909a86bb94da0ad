"""The token of a client command: its sources, and how it is sent with each request.

Anybody who intercepts a token can use it. So it is sent in plain text only to this machine, or with
--insecure, which states that the network is protected in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import grpc

from tollwire.loopback import is_loopback_target
from tollwire.service.cli.shared_options import SharedOption

# A larger file does not contain a token.
_MAX_FILE_BYTES = 1000


def token_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --token, --token-file and --insecure to a command; ``take_token`` reads them."""
    for option in (
        click.option(
            "--insecure",
            cls=SharedOption,
            envvar="TOLLWIRE_INSECURE",
            is_flag=True,
            help="Allow the token in plain text to another machine.  [env: TOLLWIRE_INSECURE]",
        ),
        click.option(
            "--token-file",
            cls=SharedOption,
            envvar="TOLLWIRE_TOKEN_FILE",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A file that contains only the token.  [env: TOLLWIRE_TOKEN_FILE]",
        ),
        click.option(
            "--token",
            cls=SharedOption,
            envvar="TOLLWIRE_TOKEN",
            metavar="TEXT",
            help="The access token. Other users of this machine can read a command line; they"
            " cannot read an environment variable or a file.  [env: TOLLWIRE_TOKEN]",
        ),
    ):
        command = option(command)
    return command


def take_token(options: dict[str, Any], server: str, *, encrypted: bool = False) -> str:
    """Remove the options of ``token_options`` from ``options``. Returns the token to send to
    ``server``, or "". UsageError if it must not be sent there."""
    token: str = options.pop("token") or ""
    file: Path | None = options.pop("token_file")
    insecure: bool = options.pop("insecure")
    if token and file is not None:
        raise click.UsageError("give --token or --token-file, not both")
    if file is not None:
        token = _read(file)
    # Other characters cannot be sent in a header.
    if not (token.isascii() and token.isprintable()):
        raise click.UsageError("the token has characters that are not allowed in a token")
    if token and not encrypted and not insecure and not is_loopback_target(server):
        raise click.UsageError(
            f"the token would be sent to {server} in plain text; use --tls, or --insecure if"
            " the network is protected in another way"
        )
    return token.strip()


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_FILE_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise click.UsageError(f"--token-file: cannot read {file}: {words}") from None


class _Details(NamedTuple):
    """The call details that an interceptor passes to grpc."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the token to the metadata of each RPC."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def _add(self, proceed: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), self._header)
        return proceed(
            _Details(
                details.method,
                details.timeout,
                metadata,
                details.credentials,
                details.wait_for_ready,
                details.compression,
            ),
            request,
        )

    intercept_unary_unary: Any = _add
    intercept_unary_stream: Any = _add
    intercept_stream_unary: Any = _add
    intercept_stream_stream: Any = _add


def with_token(channel: grpc.Channel, token: str) -> grpc.Channel:
    """A channel that sends the token with each RPC; the same channel if there is no token."""
    return grpc.intercept_channel(channel, _Bearer(token)) if token else channel
