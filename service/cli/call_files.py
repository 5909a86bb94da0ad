"""Files of calls: CSV whose header has Call's field names, or JSON lines, protobuf JSON of Call.

A record that cannot be read is reported with its line and stops nothing. Whether a call makes sense
is for the server to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.json_format import Parse, ParseError

from service.cli.csv_file import MAX_LINE_BYTES, CsvFile, check_text
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

# The line that a record starts on, and the call, or a sentence that says why it cannot be read.
Record = tuple[int, Call | str]


def format_of(name: str) -> str | None:
    """The format that a file's name tells, or None."""
    return next((f for suffix, f in _SUFFIXES.items() if name.lower().endswith(suffix)), None)


def read_calls(stream: BinaryIO, format_name: str, tenant_id: int) -> Iterator[Record]:
    """The records of a file. ``tenant_id`` (0: none) is for calls that name no tenant. BadFile
    where the file as a whole cannot be read."""
    if format_name == CSV:
        return _csv_calls(stream, tenant_id)
    return _json_calls(stream, tenant_id)


def _csv_calls(stream: BinaryIO, tenant_id: int) -> Iterator[Record]:
    if tenant_id:
        rows = CsvFile(stream, REQUIRED, ("tenant_id", *OPTIONAL))
    else:
        rows = CsvFile(stream, ("tenant_id", *REQUIRED), OPTIONAL)
    readers = _readers()
    columns = [(name, readers[name]) for name in rows.columns]

    def calls() -> Iterator[Record]:
        for line, row in rows:
            yield line, row if isinstance(row, str) else _read_call(columns, row, tenant_id)

    return calls()


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
        "caller_number": check_text,
        "destination_number": check_text,
        "direction": _remembering(DIRECTION),
        "disposition": _remembering(DISPOSITION),
        "duration_seconds": lambda text: read_integer(text, 64),
        "started_at": read_time,
        "ended_at": read_time,
        "call_id": check_text,
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
    number = 0
    while data := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, f"longer than {MAX_LINE_BYTES} bytes"
        elif data.strip():
            yield number, _parse_call(data, tenant_id)


def _parse_call(data: bytes, tenant_id: int) -> Call | str:
    call = Call()
    try:
        text = data.decode("utf-8-sig").strip()
        if not text.startswith("{"):
            raise ParseError(f"must be an object, got {text[:80]!r}")
        Parse(text, call)
    except (ParseError, ValueError, RecursionError) as error:
        return f"not a call in protobuf JSON: {error}"
    if tenant_id and not call.tenant_id:
        call.tenant_id = tenant_id
    return call
