"""The one-line error of a failed command, and its exit code.

The exit codes are part of the command line's interface; README.md lists them.
"""

from __future__ import annotations

import json
from typing import IO, Any

import click
import grpc

from tollwire.client import TollwireError
from tollwire.service.cli.shared_options import SharedOption

REFUSED = 1  # the server refused the request, or some of its records
USAGE = 2  # the command line or the file is invalid; the same code as click's
UNREACHABLE = 3  # the server does not respond, or refuses for the moment
DEFECT = 4  # a defect of the server, or incompatible versions
INTERRUPTED = 130  # by ctrl-C, as shells report it
CLOSED_PIPE = 141  # the reader of stdout has closed it, as shells report it

# The codes in JSON errors for failures that are not from the server.
_OWN_CODES = {
    REFUSED: "FAILED",
    USAGE: "USAGE",
    UNREACHABLE: "UNREACHABLE",
    DEFECT: "DEFECT",
    INTERRUPTED: "INTERRUPTED",
}

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

# Reasons for which a retry fails too, although their code may pass.
_FINAL_REASONS = {"TOO_MANY_RATES"}

# Texts of grpc for failed connections, and their meaning for the user.
_NOT_CONNECTED = "; last error: "
_TLS_ADVICE = {
    "Hostname Verification": "the certificate of the server has another name (--server-name)",
    "CERTIFICATE_VERIFY_FAILED": "the certificate of the server is not trusted (--ca-file)",
    "WRONG_VERSION_NUMBER": "the server does not use TLS",
    "Socket closed": "the server closed the connection; it may require --tls or --cert-file",
}


class Failure(click.ClickException):
    """Ends the command with one line on stderr and an exit code.

    ``error``: the server's error as --json prints it; None for an error of the command itself.
    """

    def __init__(
        self, message: str, exit_code: int = REFUSED, error: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance
        self.error = error

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"tollwire: {one_line(self.message)}", file=file, err=file is None)

    def report(self, *, as_json: bool) -> None:
        """Print the failure on stderr: one line of text or of JSON."""
        if not as_json:
            self.show()
            return
        code = _OWN_CODES.get(self.exit_code, "FAILED")
        error = self.error or {"code": code, "reason": "", "message": self.message, "fields": []}
        click.echo(json.dumps({"error": error}), err=True)


def one_line(text: str) -> str:
    """The text on one line, without control characters, which a terminal would interpret."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def failure_of(error: TollwireError, server: str) -> Failure:
    """The failure for a failed RPC: code, reason, message, invalid fields."""
    code, reason, message = error.code, error.reason, error.message
    fields = []
    for field, description in error.fields:
        option = option_of(field)
        fields.append({"field": field, "option": option, "message": description})
        if option:
            message = message.replace(f"{field}: ", f"{option}: ")
    if code is grpc.StatusCode.UNAVAILABLE and not reason:
        message = f"no answer from {server}: {_explained(message)}"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and not reason:
        message = f"no answer from {server} in time (--timeout)"
    texts = [f"{one['option'] or one['field']}: {one['message']}" for one in fields]
    head = f"{code.name} ({reason})" if reason else code.name
    return Failure(
        "; ".join([f"{head}: {message}", *(text for text in texts if text not in message)]),
        REFUSED if reason in _FINAL_REASONS else _EXIT_CODES.get(code, REFUSED),
        {"code": code.name, "reason": reason, "message": message, "fields": fields},
    )


# Parameters of commands whose names differ from the fields that they set.
_PARAMETERS = {
    "destination_number": "number",
    "duration_seconds": "seconds",
    "started_at": "at",
    "started_after": "since",
    "started_before": "until",
}


def option_of(field: str) -> str:
    """The option or argument of the running command that sets a field of a request, such as
    --cost-per-minute for rate.cost_per_minute; "" for none."""
    ctx = click.get_current_context(silent=True)
    if ctx is None:
        return ""
    # The connection options set no fields: the fields of a token are not those of --token.
    params = {p.name: p for p in ctx.command.params if not isinstance(p, SharedOption)}
    segments = field.split(".")
    for place, segment in enumerate(segments):
        name, is_item, _ = segment.partition("[")
        param = params.get(name) or params.get(_PARAMETERS.get(name, ""))
        if param is not None:
            label = param.opts[0] if isinstance(param, click.Option) else param.make_metavar(ctx)
            rest = ".".join([segment.removeprefix(name), *segments[place + 1 :]])
            return f"{label}{rest}".rstrip(".")
        if is_item:  # an element of a list, which is not from an option
            return ""
    return ""


def _explained(message: str) -> str:
    for words, advice in _TLS_ADVICE.items():
        if words in message.partition(_NOT_CONNECTED)[2]:
            return f"{advice}: {message}"
    return message
