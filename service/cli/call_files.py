"""Files of calls: CSV whose header has Call's field names, or JSON lines, protobuf JSON of Call. A
file that "cdrs export" writes can be read too; columns that only a CDR has are ignored.

A line is a record. A record that cannot be read is reported with its line and its bytes, and does
not block others. The server checks the values of a call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.json_format import Parse, ParseDict, ParseError
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.cli.csv_file import CsvFile, read_fields
from tollwire.service.cli.lines import BadLine, Lines
from tollwire.service.cli.values import DIRECTION, DISPOSITION, read_enum, read_integer, read_time
from tollwire.v1.types_pb2 import Call, Cdr

CSV, JSON_LINES = "csv", "jsonl"
_SUFFIXES = {".csv": CSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".json": JSON_LINES}

REQUIRED = ("direction", "disposition", "started_at")
OPTIONAL = (
    "extension_id",
    "caller_number",
    "destination_number",
    "duration_seconds",
    "ended_at",
    "call_id",
    "occurrence",
)

# Columns that only a file of CDRs has, as "cdrs export" writes it; they are ignored.
CDR_COLUMNS = (
    "id",
    "status",
    "unrated_reason",
    "bill_seconds",
    "cost",
    "currency",
    "rate_id",
    "matched_prefix",
    "destination",
    "rate_revision",
    "upload_id",
    "created_at",
    "reversed_at",
)
_CDR_FIELDS = {
    name
    for field in Cdr.DESCRIPTOR.fields
    if field.name not in Call.DESCRIPTOR.fields_by_name
    for name in (field.name, field.json_name)
}

_WITH_TENANT = (("tenant_id", *REQUIRED), OPTIONAL)

_GZIP_SUFFIX = ".gz"

# The first line of a record, and the call or the reason why it cannot be read.
Record = tuple[int, Call | BadLine]


def format_of(name: str) -> str | None:
    """The format by the file name, or None."""
    name = name.lower().removesuffix(_GZIP_SUFFIX)
    return next((f for suffix, f in _SUFFIXES.items() if name.endswith(suffix)), None)


class CallFile:
    """The records of a file. ``tenant_id`` (0: none) is set in calls without a tenant;
    ``multiline`` allows line breaks in quoted CSV fields. ``header``: the unchanged header of a CSV
    file; empty for JSON lines. ``ignored``: its columns that only a CDR has, as in a file that
    "cdrs export" has written. BadFile if the file as a whole cannot be read."""

    def __init__(
        self, stream: BinaryIO, format_name: str, tenant_id: int, *, multiline: bool = False
    ) -> None:
        self._tenant_id = tenant_id
        self._rows: CsvFile | None = None
        self.header = b""
        self.ignored: list[str] = []
        if format_name == CSV:
            columns = (REQUIRED, ("tenant_id", *OPTIONAL)) if tenant_id else _WITH_TENANT
            self._rows = CsvFile(stream, *columns, ignored=CDR_COLUMNS, multiline=multiline)
            self.header = self._rows.header
            self.ignored = self._rows.ignored
            self._lines = self._rows.lines
        else:
            self._lines = Lines(stream)

    @property
    def line_count(self) -> int:
        """The number of lines read so far."""
        return self._lines.count

    def __iter__(self) -> Iterator[Record]:
        if self._rows is not None:
            return _csv_calls(self._rows, self._tenant_id)
        return _json_calls(self._lines, self._tenant_id)


def _csv_calls(rows: CsvFile, tenant_id: int) -> Iterator[Record]:
    readers = _readers()
    columns = [(name, readers.get(name)) for name in rows.columns]
    for line, content, row in rows:
        values = row if isinstance(row, str) else read_fields(columns, row)
        if isinstance(values, str):
            yield line, BadLine(values, content)
        else:
            values.setdefault("tenant_id", tenant_id)
            yield line, Call(**values)


def _readers() -> dict[str, Callable[[str], Any]]:
    return {
        "tenant_id": lambda text: read_integer(text, 64),
        "extension_id": lambda text: read_integer(text, 64),
        "caller_number": str,
        "destination_number": str,
        "direction": _remembering(DIRECTION),
        "disposition": _remembering(DISPOSITION),
        "duration_seconds": lambda text: read_integer(text, 64),
        "started_at": read_time,
        "ended_at": _read_end,
        "call_id": str,
        "occurrence": lambda text: read_integer(text, 32),
    }


def _read_end(text: str) -> Timestamp:
    """As ``read_time``, but "0" is the epoch. Some switches write 0 if a call has no end; for the
    server the epoch means no end."""
    return Timestamp() if text.strip() == "0" else read_time(text)


def _remembering(enum: EnumDescriptor) -> Callable[[str], int]:
    """A reader of an enum that caches each spelling: a file uses only a few spellings."""
    known: dict[str, int] = {}

    def read(text: str) -> int:
        value = known.get(text)
        if value is None:
            value = known[text] = read_enum(enum, text)
        return value

    return read


def _json_calls(lines: Lines, tenant_id: int) -> Iterator[Record]:
    for number, line, wrong in lines:
        if line and not line.isspace():
            call = wrong or _parse_call(line, tenant_id)
            yield number, BadLine(call, line) if isinstance(call, str) else call


def _parse_call(line: bytes, tenant_id: int) -> Call | str:
    call = Call()
    try:
        text = line.decode().strip()
        if not text.startswith("{"):
            raise ParseError(f"must be an object, got {text[:80]!r}")
        try:
            Parse(text, call)
        except ParseError:
            exported = _without_cdr_fields(text)
            if exported is None:
                raise
            call.Clear()
            ParseDict(exported, call)
    except (ParseError, ValueError, RecursionError) as error:
        return f"not a call in protobuf JSON: {error}"
    if tenant_id and not call.tenant_id:
        call.tenant_id = tenant_id
    return call


def _without_cdr_fields(text: str) -> dict[str, Any] | None:
    """The object without the fields that only a Cdr has; None if it has no such field."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    kept = {name: value for name, value in found.items() if name not in _CDR_FIELDS}
    return kept if len(kept) < len(found) else None
