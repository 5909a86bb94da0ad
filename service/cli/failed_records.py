"""Writes the failed records of an upload to a file that can be corrected and uploaded again.

JSON lines can contain calls only. An unreadable record of a CSV file is written unchanged, under
its header, to a CSV file. A CSV file can also contain calls, as rows under the same header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.cli.call_files import OPTIONAL, REQUIRED
from tollwire.service.cli.csv_file import CsvWriter, header_columns
from tollwire.service.cli.failures import Failure
from tollwire.service.cli.output import json_text
from tollwire.service.cli.values import DIRECTION, DISPOSITION, enum_name, write_time
from tollwire.v1.cdr_service_pb2 import FailedRecord
from tollwire.v1.types_pb2 import Call

UNREADABLE = "UNREADABLE_RECORD"
_ALL_COLUMNS = ("tenant_id", *REQUIRED, *OPTIONAL)


def of_csv(record: FailedRecord) -> bool:
    """Whether it is an unreadable record of a CSV file."""
    return bool(record.call.unreadable.header)


def write_json_lines(records: Iterator[FailedRecord], out: TextIO) -> int:
    """Write all records except unreadable ones of CSV files. Returns their number."""
    count = 0
    for record in records:
        if of_csv(record):
            continue
        if record.call.HasField("unreadable"):
            out.write(_text(record.call.unreadable.text) + "\n")
        else:
            out.write(json_text(record.call) + "\n")
        count += 1
    return count


def write_csv(records: Iterator[FailedRecord], header: bytes, out: TextIO) -> int:
    """Write all records as CSV. Returns their number. ``header``: that of the original file; empty:
    a header with all columns. Failure if a record does not fit the header."""
    columns = header_columns(header) if header else _ALL_COLUMNS
    writer = CsvWriter(out)
    if header:
        out.write(_text(header) + "\n")
    else:
        writer.write(columns)
    count = 0
    for count, record in enumerate(records, 1):  # noqa: B007  # counts
        if not record.call.HasField("unreadable"):
            writer.write(_row(record, columns))
        elif record.call.unreadable.header == header and header:
            out.write(_text(record.call.unreadable.text) + "\n")
        else:
            raise _does_not_fit(record, "it comes from another file")
    writer.note_line_breaks()
    return count


def write_unreadable_csv(records: Iterator[FailedRecord], out: TextIO) -> int:
    """Write the unreadable records of CSV files, under their header. Returns their number."""
    count, header = 0, b""
    for record in filter(of_csv, records):
        unreadable = record.call.unreadable
        if not count:
            header = unreadable.header
            out.write(_text(header) + "\n")
        elif unreadable.header != header:
            raise _does_not_fit(record, "it comes from another file")
        out.write(_text(unreadable.text) + "\n")
        count += 1
    return count


def _row(record: FailedRecord, columns: Sequence[str]) -> list[str]:
    call = record.call
    for field, _ in call.ListFields():
        # A file without the column was uploaded with --tenant.
        if field.name not in columns and field.name != "tenant_id":
            raise _does_not_fit(record, f"the file has no column {field.name}")
    # An exported file has columns that calls do not have.
    return [_FIELDS[name](call) if name in _FIELDS else "" for name in columns]


def _does_not_fit(record: FailedRecord, why: str) -> Failure:
    return Failure(
        f"record {record.index} cannot be written to this CSV file: {why}; write JSON lines"
        " (--output FILE.jsonl)"
    )


def _time(field: str) -> Callable[[Call], str]:
    def write(call: Call) -> str:
        moment: Timestamp = getattr(call, field)
        return write_time(moment) if call.HasField(field) else ""  # type: ignore[arg-type]

    return write


_FIELDS: dict[str, Callable[[Call], str]] = {
    "tenant_id": lambda call: str(call.tenant_id or ""),
    "extension_id": lambda call: str(call.extension_id or ""),
    "caller_number": lambda call: call.caller_number,
    "destination_number": lambda call: call.destination_number,
    "direction": lambda call: enum_name(DIRECTION, call.direction),
    "disposition": lambda call: enum_name(DISPOSITION, call.disposition),
    "duration_seconds": lambda call: (
        str(call.duration_seconds) if call.HasField("duration_seconds") else ""
    ),
    "started_at": _time("started_at"),
    "ended_at": _time("ended_at"),
    "call_id": lambda call: call.call_id,
    "occurrence": lambda call: str(call.occurrence or ""),
}


def _text(data: bytes) -> str:
    """Bytes as text that ``files.export`` writes back unchanged."""
    return data.decode(errors="surrogateescape")
