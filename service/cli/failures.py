"""What a failed command says, in one line, and the code it exits with.

The codes are part of the command line's interface; README.md lists them.
"""

from __future__ import annotations

from typing import IO, Any, TypeVar

import click
import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

Detail = TypeVar("Detail", bound=Message)

REFUSED = 1  # the server refused the request, or some of its records
USAGE = 2  # the command line or the file is wrong; click's own code for it
UNREACHABLE = 3  # no answer from the server, or it says to try again later
DEFECT = 4  # a defect: of the server, or two versions that do not fit
INTERRUPTED = 130  # by ctrl-C, as shells report it

_EXIT_CODES = {
    grpc.StatusCode.UNAVAILABLE: UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: UNREACHABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: UNREACHABLE,
    grpc.StatusCode.CANCELLED: UNREACHABLE,
    grpc.StatusCode.INTERNAL: DEFECT,
    grpc.StatusCode.UNKNOWN: DEFECT,
    grpc.StatusCode.UNIMPLEMENTED: DEFECT,
    grpc.StatusCode.DATA_LOSS: DEFECT,
}

# What grpc says where no connection comes about, and what that means to whoever typed the command.
_NOT_CONNECTED = "; last error: "
_TLS_ADVICE = {
    "Hostname Verification": "its certificate is for another name (--server-name)",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not to be trusted (--ca-file)",
    "WRONG_VERSION_NUMBER": "it speaks plain text, not TLS",
    "Socket closed": "it hung up; it may want --tls, or a certificate (--cert-file)",
}


class Failure(click.ClickException):
    """Ends the command with one line on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int = REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"tollwire: {one_line(self.message)}", file=file, err=file is None)


def one_line(text: str) -> str:
    """The text on one line, without control characters that could command a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def failure_of(error: grpc.RpcError, server: str) -> Failure:
    """The failure that a failed RPC ends the command with: code, reason, message, bad fields."""
    code = error.code()
    reason, violations = _details(error)
    message = error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and not reason:
        message = f"no answer from {server}: {_explained(message)}"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and not reason:
        message = f"no answer from {server} in time (--timeout)"
    fields = [text for text in violations if text not in message]
    head = f"{code.name} ({reason})" if reason else code.name
    return Failure("; ".join([f"{head}: {message}", *fields]), _EXIT_CODES.get(code, REFUSED))


def _explained(message: str) -> str:
    for words, advice in _TLS_ADVICE.items():
        if words in message.partition(_NOT_CONNECTED)[2]:
            return f"{advice}: {message}"
    return message


def reason_of(error: grpc.RpcError) -> str:
    """The reason in the error's ErrorInfo, or "" where it has none."""
    return _details(error)[0]


def detail_of(error: grpc.RpcError, kind: type[Detail]) -> Detail | None:
    """The error's detail of this kind of message, or None where it has none."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return None
    for detail in status.details if status is not None else ():
        message = kind()
        if detail.Is(message.DESCRIPTOR):
            detail.Unpack(message)
            return message
    return None


def _details(error: grpc.RpcError) -> tuple[str, list[str]]:
    """The ErrorInfo's reason and the BadRequest's violations as "field: description"."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # a status that contradicts its own details: whoever sent it, it has none
        status = None
    reason, violations = "", []
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
            violations = [f"{v.field}: {v.description}" for v in bad.field_violations]
    return reason, violations
