"""The named failures. One class a kind, each with the reason that the wire shows.

The subjects raise these; ``service/rpc`` turns each kind into a gRPC status in one table. This
module knows no gRPC. ``Reason`` equals ErrorReason in proto/tollwire/v1/error_reason.proto without
its prefix; a test compares the two.
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
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    DATABASE_UNUSABLE = "DATABASE_UNUSABLE"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    TOO_MANY_RPCS = "TOO_MANY_RPCS"
    TOO_MANY_BYTES = "TOO_MANY_BYTES"
    SHARE_TAKEN = "SHARE_TAKEN"
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
    """One wrong field: its path from the request ("rate.intervals[1].start_seconds") and what is
    wrong with it, in words that say how to mend it."""

    field: str
    description: str


class TollwireError(Exception):
    """A failure that the client is told of.

    ``metadata`` goes into ErrorInfo: names to short strings, such as the id of the resource.
    ``violations`` goes into BadRequest. ``explanation``, where it is set, says how a call was rated
    that has no price.
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
    """INVALID_ARGUMENT: the request is wrong in itself, whatever the state of the service."""


class NotFound(TollwireError):
    """NOT_FOUND: what the request names is not there."""


class AlreadyExists(TollwireError):
    """ALREADY_EXISTS: what the request would create is there already."""


class FailedPrecondition(TollwireError):
    """FAILED_PRECONDITION: the state of the service forbids it; a retry would not help."""


class Aborted(TollwireError):
    """ABORTED: somebody else was faster; read again, then retry."""


class OutOfRange(TollwireError):
    """OUT_OF_RANGE: a position past the end."""


class Unauthenticated(TollwireError):
    """UNAUTHENTICATED: it is not known who asks."""


class Forbidden(TollwireError):
    """PERMISSION_DENIED: it is known who asks, and they may not."""


class Unavailable(TollwireError):
    """UNAVAILABLE: nothing was changed; the same request may succeed later."""


class Exhausted(TollwireError):
    """RESOURCE_EXHAUSTED: too much at once; the same request may succeed later."""


class TooLate(TollwireError):
    """DEADLINE_EXCEEDED: the client's time is over; what was not committed is taken back."""


class Unwanted(TollwireError):
    """CANCELLED: the client does not wait any more; what was not committed is taken back."""


def shutting_down() -> Unavailable:
    """For what comes, or goes on, when the server stops."""
    return Unavailable(
        Reason.SHUTTING_DOWN, "the server is stopping; what it answered stands, go on elsewhere"
    )


def unwanted() -> Unwanted:
    """For work that nobody waits for any more."""
    return Unwanted(
        Reason.CANCELLED,
        "the client has ended the request; what was not committed by then is taken back",
    )


def invalid_field(field: str, description: str) -> InvalidInput:
    """The failure for one wrong field."""
    return invalid_fields([FieldViolation(field, description)])


def invalid_fields(violations: Iterable[FieldViolation]) -> InvalidInput:
    """The failure for several wrong fields at once; the message lists them all."""
    found = tuple(violations)
    message = "; ".join(f"{v.field}: {v.description}" for v in found)
    return InvalidInput(Reason.INVALID_FIELD, message, violations=found)


class CannotListen(Exception):
    """The address cannot be listened on; the text says why and how to mend it."""
