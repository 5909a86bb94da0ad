"""Errors as exceptions: a class for each status code, with all that the server says of the error.

The details are those of google.rpc: ErrorInfo, BadRequest and RetryInfo (docs/api.md lists the
reasons). They are read here, without grpcio-status, so that a client need not install it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from tollwire.client.parameters import pairs

Detail = TypeVar("Detail", bound=Message)

_DETAILS = "grpc-status-details-bin"


class ConfigurationError(ValueError):
    """The parameters of a client, or the environment, are invalid.

    ``template`` has parameters in braces; ``values`` are its other fields. The text names the
    parameters of Client; ``worded`` gives them other names.
    """

    def __init__(self, template: str, **values: str) -> None:
        self._template = template
        self._values = values
        super().__init__(self.worded(lambda parameter: parameter))

    def worded(self, name_of: Callable[[str], str]) -> str:
        """The text with the name that ``name_of`` gives each parameter."""

        class Names(dict[str, str]):
            def __missing__(self, parameter: str) -> str:
                return name_of(parameter)

        return self._template.format_map(Names(self._values))


class FieldError(NamedTuple):
    """One wrong field of a request. ``field``: its path: "rate.intervals[1].start_seconds"."""

    field: str
    message: str


class TollwireError(Exception):
    """An RPC that failed. The classes below are for one status code each.

    code                 the status code
    message              the text for people
    reason               the documented reason, such as "RATE_NOT_FOUND"; "" if the error is not
                         from Tollwire (a broken connection, a proxy)
    domain               "tollwire", or ""
    info                 further values of the reason, such as {"expected_offset": "5000"}
    fields               the wrong fields
    retry_delay_seconds  when to try again, if the server says so; else None
    details              all details, for ``detail``
    trailing_metadata    as gRPC received it
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        details: tuple[AnyMessage, ...] = (),
        trailing_metadata: tuple[tuple[str, str | bytes], ...] = (),
    ) -> None:
        self.code = code
        self.message = message
        self.details = details
        self.trailing_metadata = trailing_metadata
        info = self.detail(error_details_pb2.ErrorInfo)
        self.reason: str = info.reason if info is not None else ""
        self.domain: str = info.domain if info is not None else ""
        self.info: dict[str, str] = dict(info.metadata) if info is not None else {}
        bad = self.detail(error_details_pb2.BadRequest)
        violations = bad.field_violations if bad is not None else ()
        self.fields = tuple(FieldError(one.field, one.description) for one in violations)
        retry = self.detail(error_details_pb2.RetryInfo)
        self.retry_delay_seconds: float | None = (
            retry.retry_delay.ToNanoseconds() / 1e9 if retry is not None else None
        )
        super().__init__(code, message)

    def __str__(self) -> str:
        head = f"{self.code.name} ({self.reason})" if self.reason else self.code.name
        texts = [f"{one.field}: {one.message}" for one in self.fields]
        return "; ".join([f"{head}: {self.message}", *(t for t in texts if t not in self.message)])

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.code, self.message, self.details, self.trailing_metadata))

    def detail(self, kind: type[Detail]) -> Detail | None:
        """The detail of this message type; None if the error has none."""
        for detail in self.details:
            if detail.TypeName() == kind.DESCRIPTOR.full_name:
                found = kind()
                detail.Unpack(found)
                return found
        return None


class CancelledError(TollwireError):
    """CANCELLED: the client or a server that was stopping ended the RPC."""


class UnknownError(TollwireError):
    """UNKNOWN: a defect of the server, or a proxy between."""


class InvalidArgumentError(TollwireError):
    """INVALID_ARGUMENT: ``fields`` names what is wrong."""


class DeadlineExceededError(TollwireError):
    """DEADLINE_EXCEEDED: no response within the timeout. A change may have been made."""


class NotFoundError(TollwireError):
    """NOT_FOUND."""


class AlreadyExistsError(TollwireError):
    """ALREADY_EXISTS."""


class PermissionDeniedError(TollwireError):
    """PERMISSION_DENIED: the token does not allow this."""


class ResourceExhaustedError(TollwireError):
    """RESOURCE_EXHAUSTED: the server is overloaded, or a limit is reached."""


class FailedPreconditionError(TollwireError):
    """FAILED_PRECONDITION."""


class AbortedError(TollwireError):
    """ABORTED: an etag is not the current one, or a transaction has to be repeated."""


class OutOfRangeError(TollwireError):
    """OUT_OF_RANGE."""


class UnimplementedError(TollwireError):
    """UNIMPLEMENTED: the server is of another version."""


class InternalError(TollwireError):
    """INTERNAL: a defect of the server."""


class UnavailableError(TollwireError):
    """UNAVAILABLE: the server cannot be reached, is stopping, or has no database. The retries of
    the service config are over."""


class DataLossError(TollwireError):
    """DATA_LOSS: a defect of the server."""


class UnauthenticatedError(TollwireError):
    """UNAUTHENTICATED: the request has no token, or the token is not valid."""


CLASSES: dict[grpc.StatusCode, type[TollwireError]] = {
    grpc.StatusCode.CANCELLED: CancelledError,
    grpc.StatusCode.UNKNOWN: UnknownError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
}


def error_of(error: grpc.RpcError) -> TollwireError:
    """The exception for an error of grpc or grpc.aio."""
    code = error.code()
    trailing = pairs(error.trailing_metadata())
    kind = CLASSES.get(code, UnknownError)
    return kind(code, error.details() or "", _details(code, trailing), trailing)


def _details(
    code: grpc.StatusCode, trailing: tuple[tuple[str, str | bytes], ...]
) -> tuple[AnyMessage, ...]:
    """The details of the google.rpc.Status; none if it cannot be read or has another code."""
    for name, value in trailing:
        if name == _DETAILS and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                return ()
            return tuple(status.details) if status.code == code.value[0] else ()
    return ()
