"""One RPC as its transport presents it to the RPC pipeline.

Each transport implements ``RpcCall``. The pipeline, the limits and the observers use nothing else
of a transport. Messages are bytes; endpoints.py passes them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

from tollwire.service.rpc.status import Failure

# Names in lower case. Values of names that end in "-bin" are bytes.
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
# Trailing metadata with text values.
Trailers: TypeAlias = tuple[tuple[str, str], ...]


class RpcCall(Protocol):
    """The client's side of one RPC. Thread-safe."""

    @property
    def metadata(self) -> Metadata:
        """What the client has sent with its request."""

    def remaining_seconds(self) -> float | None:
        """The time until the client's deadline, at least 0; None for no limit."""

    def is_wanted(self) -> bool:
        """Whether the client still waits."""

    def peer(self) -> str:
        """The client's address and port, as gRPC names them."""

    def identities(self) -> Iterable[str]:
        """The names in the client's certificate, which the transport has verified, in order of
        precedence; none without a certificate."""


class StreamCall(RpcCall, Protocol):
    """An RPC with streams of messages."""

    def receive(self) -> bytes | None:
        """The next request; None after the last one. ClientGone if the client has left."""

    def receive_later(self, arrived: Callable[[bytes | None], object]) -> bool:
        """Call ``arrived`` with the next request, as ``receive`` returns it, or with None if the
        client has left. No thread waits; ``arrived`` must not wait or raise. False, and no call, if
        the client has left already."""

    def put_back(self, request: bytes | None) -> None:
        """``receive`` returns this request next."""

    def send(self, response: bytes) -> None:
        """Send one response. Nothing happens if the client has left."""

    def end(self, failure: Failure | None, trailers: Trailers = ()) -> None:
        """End the RPC; without ``failure`` it has succeeded. Any thread may call it."""

    def on_end(self, callback: Callable[[], None]) -> bool:
        """Call ``callback`` when the RPC ends. False, and no call, if it has ended already."""

    def cancel(self) -> None:
        """End the RPC with CANCELLED."""

    def break_off(self, failure: Failure) -> None:
        """End the RPC at once with the code and the message of ``failure``. Responses that the
        client has not read are dropped, also one that is being sent. Any thread may call it."""


class ClientGone(Exception):
    """The client has left before it sent what it announced."""
