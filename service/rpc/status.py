"""Statuses: the codes of gRPC, which every transport converts to its own.

A ``Failure`` is the end of an RPC that did not succeed, ready to send: error_map.py makes it from
an exception. Must not depend on a transport.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StatusCode(Enum):
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Failure:
    """The status of an RPC that failed. ``details``: the bytes of a google.rpc.Status; empty if the
    status has none. ``trailers``: further trailing metadata."""

    code: StatusCode
    message: str
    details: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """A status without details, for protocols that define their own (grpc.health.v1)."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
