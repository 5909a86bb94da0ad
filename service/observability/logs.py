"""The log on standard error: lines for people, or one JSON object a line for log collectors.

A line about a request has its id. Telephone numbers are masked in all texts: the arguments of a
line, the texts of exceptions, of the database and of libraries. Ints (counts, ids) are not masked.

What Python itself would write to standard error (a thread that fails, a warning) is logged too.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from tollwire.service.domain.thread_context import current_request
from tollwire.service.observability.masking import mask
from tollwire.service.observability.request_ids import shown

_LOG = logging.getLogger("tollwire")

# The fields of a line besides its text: ``extra={"fields": {...}}``.
FIELDS = "fields"
# The limit for one kind of line that clients can cause, unless the level is DEBUG: many refused
# RPCs must not write as many lines.
MAX_LINES_A_SECOND = 10
# The loggers of the service that clients can write to. All other packages' loggers count as such.
_OWN = "tollwire"
_CAUSED_BY_CLIENTS = frozenset({"tollwire.rpc", "tollwire.native", "tollwire.memory"})


def set_up(level: str, style: str, *, full_numbers: bool) -> None:
    """Configure the log of this process. ``style``: console or json. ``full_numbers``: telephone
    numbers are not masked."""
    handler = logging.StreamHandler(sys.stderr)
    clean: Callable[[str], str] = str if full_numbers else mask
    handler.setFormatter(JsonLines(clean) if style == "json" else ConsoleLines(clean))
    if level != "DEBUG":
        handler.addFilter(Sampled())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(
        logging.WARNING
    )  # its INFO lines would appear at every start
    logging.captureWarnings(True)
    sys.excepthook = _died
    sys.unraisablehook = _unraisable
    threading.excepthook = _thread_died


class Sampled(logging.Filter):
    """Limits the lines of each kind that clients can cause, for each second. A kind has the same
    level and logger; for the service's own loggers also the same text, method and code. The next
    line of the kind has the number of lines that were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        # The current second, the lines in it, and the lines left out since the last line.
        self._kinds: dict[tuple[Any, ...], list[int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key: tuple[Any, ...] = (record.name, record.levelno)
        if record.name.partition(".")[0] == _OWN:
            if record.name not in _CAUSED_BY_CLIENTS:
                return True
            key += (record.msg, *(record.args[:2] if isinstance(record.args, tuple) else ()))
        with self._lock:
            kind = self._kinds.setdefault(key, [0, 0, 0])
            if kind[0] != int(record.created):
                kind[:2] = int(record.created), 0
            kind[1] += 1
            if kind[1] > MAX_LINES_A_SECOND:
                kind[2] += 1
                return False
            left_out, kind[2] = kind[2], 0
        if left_out:
            setattr(record, FIELDS, {**getattr(record, FIELDS, {}), "left_out": left_out})
        return True


class Lines(logging.Formatter):
    """The parts of a line, with telephone numbers masked."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        super().__init__()
        self._clean = clean

    def message(self, record: logging.LogRecord) -> str:
        template = self._clean(str(record.msg))
        if not record.args:
            return template
        try:
            if isinstance(record.args, Mapping):
                return template % {key: self._value(one) for key, one in record.args.items()}
            return template % tuple(map(self._value, record.args))
        except Exception:
            # The logging module would print the arguments without masking them.
            return f"{template} (the arguments do not match the format)"

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        given: dict[str, Any] = dict(getattr(record, FIELDS, {}))
        request = current_request()
        request_id = given.pop("request_id", request.id)
        fields: dict[str, Any] = {}
        if request_id:
            fields["request_id"] = shown(request_id, self._clean)
        if request.tenant_id > 0:
            fields["tenant_id"] = request.tenant_id
        return fields | {name: self._value(value) for name, value in given.items()}

    def trouble(self, record: logging.LogRecord) -> str:
        """The exception and the stack of a line, if it has any."""
        parts = []
        if record.exc_info and record.exc_info[0] is not None:
            parts.append("".join(traceback.format_exception(*record.exc_info)).rstrip())
        if record.stack_info:
            parts.append(record.stack_info)
        return self._clean("\n".join(parts))

    def _value(self, value: object) -> Any:
        # A bool is an int, and an IntEnum too.
        return value if isinstance(value, int | float) or value is None else self._clean(str(value))


class ConsoleLines(Lines):
    """One line, and indented ones for an exception: nothing that a client sends begins a line or
    reaches a terminal as a control character."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        line = f"{at},{int(record.msecs):03} {record.levelname} {record.name}: "
        line += self.message(record)
        for name, value in self.fields(record).items():
            if name != "method":  # the message has it
                line += f" {name}={value}"
        trouble = self.trouble(record)
        return "\n  ".join(map(_visible, [line, *trouble.split("\n")] if trouble else [line]))


class JsonLines(Lines):
    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": self.message(record),
            "pid": record.process,
            **self.fields(record),
        }
        trouble = self.trouble(record)
        if trouble:
            line["exception"] = trouble
        text = json.dumps(line, ensure_ascii=False)
        return text if text.isprintable() else json.dumps(line).replace("\x7f", "\\u007f")


def _visible(text: str) -> str:
    """The text with control characters and separators of lines as escapes."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _died(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _LOG.critical("an exception ends the process", exc_info=(kind, error, trace))


def _thread_died(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        _LOG.error(
            "an exception ends a thread",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        _LOG.error(
            "an exception was raised where no caller can catch it",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )
