"""The table of errors: exception -> status, retry hint, log level.

A named error (service/domain/errors.py) reaches the client with its reason and its message. Any
other exception is a defect of the server: the client gets INTERNAL with a fixed text, and the
server logs one traceback. Every error has a google.rpc.Status with ErrorInfo, and with BadRequest
if fields are invalid.

Log lines contain no message: a message may quote a telephone number, which is personal data.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tollwire.service.domain import errors
from tollwire.service.domain.errors import FieldViolation, Reason, TollwireError
from tollwire.service.rpc.conversion.calls import short_explanation
from tollwire.service.rpc.status import Failure, StatusCode

DOMAIN = "tollwire"
DEFECT_MESSAGE = "the server has a defect; its log has the details"

# Clients cut or refuse trailers above 8 KiB. The status travels base64-encoded and its message
# twice, once percent-encoded.
MAX_TRAILERS_BYTES = 6 * 1024
_MAX_MESSAGE_BYTES = 1200
_MAX_TEXT_CHARS = 300
# The size of google.protobuf.Any and the tags around a detail, rounded up.
_WRAPPING_BYTES = 100

_LOG = logging.getLogger("tollwire.rpc")


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One row of the table."""

    code: StatusCode
    log_level: int
    retry_after_seconds: int = 0  # 0: the same request would fail again


ERROR_TABLE: Mapping[type[TollwireError], ErrorRow] = MappingProxyType(
    {
        errors.InvalidInput: ErrorRow(StatusCode.INVALID_ARGUMENT, logging.DEBUG),
        errors.NotFound: ErrorRow(StatusCode.NOT_FOUND, logging.DEBUG),
        errors.AlreadyExists: ErrorRow(StatusCode.ALREADY_EXISTS, logging.DEBUG),
        errors.FailedPrecondition: ErrorRow(StatusCode.FAILED_PRECONDITION, logging.DEBUG),
        errors.Aborted: ErrorRow(StatusCode.ABORTED, logging.DEBUG),
        errors.OutOfRange: ErrorRow(StatusCode.OUT_OF_RANGE, logging.DEBUG),
        errors.Unauthenticated: ErrorRow(StatusCode.UNAUTHENTICATED, logging.DEBUG),
        errors.Forbidden: ErrorRow(StatusCode.PERMISSION_DENIED, logging.DEBUG),
        errors.Unavailable: ErrorRow(StatusCode.UNAVAILABLE, logging.WARNING, 1),
        errors.OverLimit: ErrorRow(StatusCode.RESOURCE_EXHAUSTED, logging.WARNING),
        errors.Exhausted: ErrorRow(StatusCode.RESOURCE_EXHAUSTED, logging.WARNING, 1),
        errors.TooLate: ErrorRow(StatusCode.DEADLINE_EXCEEDED, logging.DEBUG),
        errors.Unwanted: ErrorRow(StatusCode.CANCELLED, logging.DEBUG),
    }
)
DEFECT = ErrorRow(StatusCode.INTERNAL, logging.ERROR)


def reason_of(error: Exception) -> Reason:
    """The reason that the client gets."""
    return error.reason if isinstance(error, TollwireError) else Reason.INTERNAL


def is_logged(error: Exception) -> bool:
    """Whether ``refusal`` writes a log line about ``error``."""
    return _LOG.isEnabledFor(_row_of(error).log_level)


def refusal(
    error: Exception, method: str, fields: Mapping[str, str | int | float] | None = None
) -> Failure:
    """The status that the client of ``method`` gets for ``error``. Also writes the log line, with
    ``fields``."""
    row = _row_of(error)
    extra = {"fields": fields or {}}
    if row is DEFECT or not isinstance(error, TollwireError):
        _LOG.log(row.log_level, "%s: defect", method, exc_info=error, extra=extra)
        return status(row, TollwireError(Reason.INTERNAL, DEFECT_MESSAGE))
    _LOG.log(
        row.log_level,
        "%s: %s %s%s",
        method,
        row.code.name,
        error.reason,
        cause_of(error),
        extra=extra,
    )
    return status(row, error)


def _row_of(error: Exception) -> ErrorRow:
    for kind in type(error).__mro__:
        if kind in ERROR_TABLE:
            return ERROR_TABLE[kind]
    return DEFECT


def cause_of(error: Exception) -> str:
    """The first line of the driver's message, for operators, without the statement."""
    if error.__cause__ is None:
        return ""
    lines = str(getattr(error.__cause__, "orig", error.__cause__)).splitlines()
    return f" ({lines[0]})" if lines else f" ({type(error.__cause__).__name__})"


def status(row: ErrorRow, error: TollwireError) -> Failure:
    """``error`` as trailers of at most MAX_TRAILERS_BYTES: what does not fit is cut and counted."""
    message = _cut(error.message, _MAX_MESSAGE_BYTES)
    answer = status_pb2.Status(code=row.code.value, message=message)
    metadata = {name: value[:_MAX_TEXT_CHARS] for name, value in error.metadata.items()}
    _add(
        answer,
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata),
    )
    if row.retry_after_seconds:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = row.retry_after_seconds
        _add(answer, retry)
    if error.violations:
        _add(answer, _bad_request(error.violations, _max_detail_bytes(answer)))
    if error.explanation is not None:
        explanation = short_explanation(error.explanation, _max_detail_bytes(answer))
        if explanation is not None:
            _add(answer, explanation)
    return Failure(row.code, message, answer.SerializeToString())


def _max_detail_bytes(answer: status_pb2.Status) -> int:
    """The maximum size of the next detail."""
    encoded: int = (MAX_TRAILERS_BYTES - _encoded_bytes(answer.message)) * 3 // 4
    return encoded - int(answer.ByteSize()) - _WRAPPING_BYTES


def _bad_request(
    violations: Sequence[FieldViolation], max_bytes: int
) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        bad.field_violations.add(
            field=violation.field[:_MAX_TEXT_CHARS],
            description=violation.description[:_MAX_TEXT_CHARS],
        )
        # Leave space for the line that counts the other violations.
        if bad.ByteSize() > max_bytes - _WRAPPING_BYTES:
            del bad.field_violations[-1]
            bad.field_violations.add(description=f"and {len(violations) - index} more")
            break
    return bad


def _add(answer: status_pb2.Status, detail: Message) -> None:
    answer.details.add().Pack(detail)


def _encoded_bytes(text: str) -> int:
    """The size of grpc-message: percent-encoding turns one byte into three."""
    return sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in text.encode())


def _cut(text: str, limit_bytes: int) -> str:
    if len(text) * 12 <= limit_bytes or _encoded_bytes(text) <= limit_bytes:
        return text
    kept_bytes = _encoded_bytes("…")
    for index, character in enumerate(text):
        kept_bytes += _encoded_bytes(character)
        if kept_bytes > limit_bytes:
            return text[:index] + "…"
    return text
