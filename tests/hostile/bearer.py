"""A channel that sends a token with each RPC, for tests that call the stubs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc


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
