"""The front of the native transport: HTTP/2 and gRPC framing outside of the interpreter's lock.

The package pygrpc-native implements it. It is optional (the extra tollwire[native]), and no other
module imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from tollwire.service.domain.errors import CannotListen
from tollwire.service.rpc.call import Metadata
from tollwire.service.settings.parsing import Listen

# Threads that read and write. They also unpack compressed messages, so each can fill memory.
IO_THREADS = 1

# The metadata of a request, the client's address, and the seconds until its deadline.
Details: TypeAlias = tuple[Metadata, str, float | None]
# Whether the RPC has arrived (0) or its client has left (1), the id of the RPC, the index of its
# method, its message, a key that is not used, and its details. A client that has left: None for the
# last three.
Event: TypeAlias = tuple[int, int, int, bytes | None, object, Details | None]
ARRIVED = 0
LEFT = 1


class NativeUnavailable(Exception):
    """The native transport is chosen, but its package is not installed."""


class Front(Protocol):
    """One listening port. Thread-safe."""

    @property
    def bound_port(self) -> int: ...

    def set_fallback(self, path: str) -> None:
        """Forward the RPCs of all other methods to the gRPC server on this Unix socket."""

    def start(self) -> None: ...

    def recv_batch_details(
        self, max_events: int, timeout_ms: int | None = None
    ) -> Sequence[Event] | None:
        """The events that wait; waits for the first. None after ``close``."""

    def respond(
        self,
        call_id: int,
        payload: bytes,
        initial_metadata: Metadata | None = None,
        trailing_metadata: Metadata | None = None,
    ) -> bool:
        """Answer an RPC. False if its client has left."""

    def fail(
        self, call_id: int, code: int, message: str, trailing_metadata: Metadata | None = None
    ) -> bool:
        """End an RPC with a status. False if its client has left."""

    def close(self) -> None:
        """Close the port and all connections."""


def require_package() -> None:
    """NativeUnavailable if the package is not installed."""
    try:
        import pygrpc_native  # noqa: F401
    except ImportError as error:
        raise NativeUnavailable(
            "--transport native: needs the extra tollwire[native]: pip install 'tollwire[native]'"
        ) from error


def open_front(
    listen: Listen,
    paths: Sequence[str],
    *,
    share_port: bool,
    max_rpcs_a_connection: int,
    max_metadata_bytes: int,
    keepalive_ms: int,
    keepalive_timeout_ms: int,
) -> Front:
    """Bind the port for the unary methods ``paths``. CannotListen if it is not free."""
    require_package()
    from pygrpc_native import NativeGrpcFront

    try:
        return NativeGrpcFront(
            str(listen),
            [(path, False) for path in paths],
            io_threads=IO_THREADS,
            call_details=True,
            keepalive_time_ms=keepalive_ms,
            keepalive_timeout_ms=keepalive_timeout_ms,
            max_concurrent_streams=max_rpcs_a_connection,
            max_metadata_size=max_metadata_bytes,
            reuse_port=share_port,
        )
    except OSError as error:
        raise CannotListen(f"cannot listen on {listen}: {error}") from error
