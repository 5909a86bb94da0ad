"""The named errors: one class for each gRPC status, with the reason that clients get.

The subjects raise them; service/rpc/error_map.py converts them to gRPC statuses. Must not depend on
gRPC. ``Reason`` equals ErrorReason in proto/tollwire/v1/error_reason.proto without its prefix; a
test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tollwire.service.domain.model import Explanation


class Reason(StrEnum):
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    INVALID_FIELD = "INVALID_FIELD"
    INVALID_NUMBER = "INVALID_NUMBER"
    COST_OVERFLOW = "COST_OVERFLOW"
    UNREADABLE_RECORD = "UNREADABLE_RECORD"
    NO_RATE = "NO_RATE"
    BLOCKED = "BLOCKED"
    RATE_REVISION_AHEAD = "RATE_REVISION_AHEAD"
    TENANT_NOT_FOUND = "TENANT_NOT_FOUND"
    EXTENSION_NOT_FOUND = "EXTENSION_NOT_FOUND"
    RATE_NOT_FOUND = "RATE_NOT_FOUND"
    CDR_NOT_FOUND = "CDR_NOT_FOUND"
    UPLOAD_NOT_FOUND = "UPLOAD_NOT_FOUND"
    TOKEN_NOT_FOUND = "TOKEN_NOT_FOUND"
    TENANT_EXISTS = "TENANT_EXISTS"
    EXTENSION_EXISTS = "EXTENSION_EXISTS"
    RATE_EXISTS = "RATE_EXISTS"
    CDR_CONFLICT = "CDR_CONFLICT"
    CERTIFICATE_IDENTITY_TAKEN = "CERTIFICATE_IDENTITY_TAKEN"
    TENANT_IN_USE = "TENANT_IN_USE"
    EXTENSION_IN_USE = "EXTENSION_IN_USE"
    CURRENCY_IN_USE = "CURRENCY_IN_USE"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    UPLOAD_GAP = "UPLOAD_GAP"
    UPLOAD_CHUNK_CHANGED = "UPLOAD_CHUNK_CHANGED"
    IMPORT_INCOMPLETE = "IMPORT_INCOMPLETE"
    UPLOAD_REVERSED = "UPLOAD_REVERSED"
    IMPORT_GAP = "IMPORT_GAP"
    TOO_MANY_RATES = "TOO_MANY_RATES"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    DATABASE_UNUSABLE = "DATABASE_UNUSABLE"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    TOO_MANY_RPCS = "TOO_MANY_RPCS"
    TOO_MANY_BYTES = "TOO_MANY_BYTES"
    SHARE_TAKEN = "SHARE_TAKEN"
    STREAM_IDLE = "STREAM_IDLE"
    RESPONSE_NOT_READ = "RESPONSE_NOT_READ"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    TOKEN_REQUIRED = "TOKEN_REQUIRED"
    TOKEN_INVALID = "TOKEN_INVALID"
    ROLE_LACKS = "ROLE_LACKS"
    SCOPE_LACKS = "SCOPE_LACKS"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One invalid field: its path from the request ("rate.intervals[1].start_seconds") and a
    description that says what is allowed."""

    field: str
    description: str


class TollwireError(Exception):
    """An error that is reported to the client.

    ``metadata`` goes into ErrorInfo: names to short strings, such as the id of the resource.
    ``violations`` go into BadRequest. ``explanation``, if set, explains the rating of a call that
    has no price.
    """

    explanation: Explanation | None = None

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)


class InvalidInput(TollwireError):
    """INVALID_ARGUMENT: the request is invalid, independent of the state of the service."""


class NotFound(TollwireError):
    """NOT_FOUND: a resource that the request names does not exist."""


class AlreadyExists(TollwireError):
    """ALREADY_EXISTS: the resource that the request would create exists already."""


class FailedPrecondition(TollwireError):
    """FAILED_PRECONDITION: the state of the service forbids it; a retry would not help."""


class Aborted(TollwireError):
    """ABORTED: another request has changed the resource; read again, then retry."""


class OutOfRange(TollwireError):
    """OUT_OF_RANGE: a position past the end."""


class Unauthenticated(TollwireError):
    """UNAUTHENTICATED: the caller could not be identified."""


class Forbidden(TollwireError):
    """PERMISSION_DENIED: the caller is identified, but not permitted."""


class Unavailable(TollwireError):
    """UNAVAILABLE: nothing was changed; the same request may succeed later."""


class Exhausted(TollwireError):
    """RESOURCE_EXHAUSTED: a limit of the server is reached; the same request may succeed later."""


class OverLimit(Exhausted):
    """RESOURCE_EXHAUSTED: with this change the rates would pass a limit of the server; the same
    request fails again until some rates are deleted or an operator raises the limit."""


class TooLate(TollwireError):
    """DEADLINE_EXCEEDED: the client's deadline has passed, or the request takes longer than the
    server allows; uncommitted work is rolled back."""


class Unwanted(TollwireError):
    """CANCELLED: the client no longer waits; uncommitted work is rolled back."""


def shutting_down() -> Unavailable:
    """The error for RPCs that arrive, or are open, while the server stops."""
    return Unavailable(
        Reason.SHUTTING_DOWN,
        "the server is stopping; its responses remain valid, continue at another server",
    )


def unwanted() -> Unwanted:
    """The error for work whose client no longer waits."""
    return Unwanted(
        Reason.CANCELLED,
        "the client has ended the request; uncommitted work is rolled back",
    )


def invalid_field(field: str, description: str) -> InvalidInput:
    """The error for one invalid field."""
    return invalid_fields([FieldViolation(field, description)])


def invalid_fields(violations: Iterable[FieldViolation]) -> InvalidInput:
    """The error for several invalid fields; the message lists all of them."""
    found = tuple(violations)
    message = "; ".join(f"{v.field}: {v.description}" for v in found)
    return InvalidInput(Reason.INVALID_FIELD, message, violations=found)


class CannotListen(Exception):
    """The server cannot listen on an address; the text has the reason and the advice."""
