"""Files of calls: CSV whose header has Call's field names, or JSON lines, protobuf JSON of Call.

A line is a record. One that cannot be read is reported with its line and its bytes, and stops
nothing. Whether a call makes sense is for the server to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.json_format import Parse, ParseError

from service.cli.csv_file import CsvFile
from service.cli.lines import BadLine, read_lines
from service.cli.values import DIRECTION, DISPOSITION, read_enum, read_integer, read_time
from tollwire.v1.types_pb2 import Call

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
)

_WITH_TENANT = (("tenant_id", *REQUIRED), OPTIONAL)

_GZIP_SUFFIX = ".gz"

# The line that a record starts on, and the call, or why it cannot be read.
Record = tuple[int, Call | BadLine]


def format_of(name: str) -> str | None:
    """The format that a file's name tells, or None."""
    name = name.lower().removesuffix(_GZIP_SUFFIX)
    return next((f for suffix, f in _SUFFIXES.items() if name.endswith(suffix)), None)


class CallFile:
    """The records of a file. ``tenant_id`` (0: none) is for calls that name no tenant;
    ``multiline`` allows line breaks within the quoted fields of CSV. ``header`` is the header of a
    CSV file as it is, and empty for JSON lines. BadFile where the file as a whole cannot be read.
    """

    def __init__(
        self, stream: BinaryIO, format_name: str, tenant_id: int, *, multiline: bool = False
    ) -> None:
        self._tenant_id = tenant_id
        self._stream = stream
        self._rows: CsvFile | None = None
        self.header = b""
        if format_name == CSV:
            columns = (REQUIRED, ("tenant_id", *OPTIONAL)) if tenant_id else _WITH_TENANT
            self._rows = CsvFile(stream, *columns, multiline=multiline)
            self.header = self._rows.header

    def __iter__(self) -> Iterator[Record]:
        if self._rows is not None:
            return _csv_calls(self._rows, self._tenant_id)
        return _json_calls(self._stream, self._tenant_id)


def _csv_calls(rows: CsvFile, tenant_id: int) -> Iterator[Record]:
    readers = _readers()
    columns = [(name, readers[name]) for name in rows.columns]
    for line, content, row in rows:
        call = row if isinstance(row, str) else _read_call(columns, row, tenant_id)
        yield line, BadLine(call, content) if isinstance(call, str) else call


def _read_call(
    columns: list[tuple[str, Callable[[str], Any]]], row: list[str], tenant_id: int
) -> Call | str:
    values: dict[str, Any] = {"tenant_id": tenant_id} if tenant_id else {}
    for (name, read), text in zip(columns, row, strict=True):
        if text:
            try:
                values[name] = read(text)
            except ValueError as error:
                return f"{name}: {error}"
    return Call(**values)


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
        "ended_at": read_time,
        "call_id": str,
    }


def _remembering(enum: EnumDescriptor) -> Callable[[str], int]:
    """A reader of an enum that works each spelling out once; few are ever used in one file."""
    known: dict[str, int] = {}

    def read(text: str) -> int:
        value = known.get(text)
        if value is None:
            value = known[text] = read_enum(enum, text)
        return value

    return read


def _json_calls(stream: BinaryIO, tenant_id: int) -> Iterator[Record]:
    for number, line, wrong in read_lines(stream):
        if line and not line.isspace():
            call = wrong or _parse_call(line, tenant_id)
            yield number, BadLine(call, line) if isinstance(call, str) else call


def _parse_call(line: bytes, tenant_id: int) -> Call | str:
    call = Call()
    try:
        text = line.decode().strip()
        if not text.startswith("{"):
            raise ParseError(f"must be an object, got {text[:80]!r}")
        Parse(text, call)
    except (ParseError, ValueError, RecursionError) as error:
        return f"not a call in protobuf JSON: {error}"
    if tenant_id and not call.tenant_id:
        call.tenant_id = tenant_id
    return call
