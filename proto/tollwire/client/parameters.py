"""What every method of the clients takes beside the fields of its request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

Metadata = Sequence[tuple[str, str | bytes]]


class Default(Enum):
    """The type of DEFAULT."""

    DEFAULT = "DEFAULT"


# A timeout of the client itself: None means no limit.
DEFAULT: Final = Default.DEFAULT


class CallInfo:
    """What the server sent beside the response. Pass a new one as ``info``; it is filled when the
    RPC has ended without an error. An error has its metadata itself."""

    def __init__(self) -> None:
        self.initial_metadata: tuple[tuple[str, str | bytes], ...] = ()
        self.trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()

    def fill(self, initial: Iterable[Any] | None, trailing: Iterable[Any] | None) -> None:
        self.initial_metadata = pairs(initial)
        self.trailing_metadata = pairs(trailing)

    @property
    def rate_revision(self) -> int | None:
        """The revision of the tenant's rates after a change of them; None after other RPCs."""
        for name, value in self.trailing_metadata:
            if name == "tollwire-rate-revision":
                return int(value)
        return None


def pairs(metadata: Iterable[Any] | None) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((name, value) for name, value in metadata or ())


def message(kind: type[M], request: M | None, /, **fields: Any) -> M:
    """The request of a call: ``request`` itself, or a new one of the fields that are not None.
    TypeError for both."""
    given = {name: value for name, value in fields.items() if value is not None}
    if request is None:
        return kind(**given)
    if given:
        raise TypeError(
            f"give a {kind.DESCRIPTOR.name} or its fields as keywords, not both: {', '.join(given)}"
        )
    return request
