"""Decks of rates as CSV, both ways: what one writes, the other reads back the same.

The columns are those of every deck, and one more, ``intervals``, which holds a JSON list of
{"start_seconds", "cost_per_minute", "billing_increment"}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TextIO

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from tollwire.service.cli.csv_file import CsvFile, CsvWriter
from tollwire.service.cli.values import read_boolean, read_integer, read_time_or_date, write_time
from tollwire.v1.types_pb2 import Interval, Rate

REQUIRED = ("prefix", "destination", "cost_per_minute", "billing_increment")
OPTIONAL = (
    "connect_fee",
    "minimum_seconds",
    "effective_from",
    "effective_to",
    "blocked",
    "intervals",
)


class DeckFile:
    """The rates of a CSV file: pairs of a line and the rate on it, or a sentence that says why it
    cannot be read."""

    def __init__(self, stream: BinaryIO, *, multiline: bool = False) -> None:
        self._file = CsvFile(stream, REQUIRED, OPTIONAL, multiline=multiline)

    def __iter__(self) -> Iterator[tuple[int, Rate | str]]:
        columns = [(name, _READERS[name]) for name in self._file.columns]
        for line, _, row in self._file:
            yield line, row if isinstance(row, str) else _read_rate(columns, row)


def _read_rate(columns: list[tuple[str, Callable[[str], Any]]], row: list[str]) -> Rate | str:
    values = {}
    for (name, read), text in zip(columns, row, strict=True):
        if text:
            try:
                values[name] = read(text)
            except ValueError as error:
                return f"{name}: {error}"
    return Rate(**values)


def _read_intervals(text: str) -> list[Interval]:
    try:
        items = json.loads(text)
        if not (isinstance(items, list) and all(isinstance(item, dict) for item in items)):
            raise ParseError(f"got {text[:80]!r}")
        return [ParseDict(item, Interval()) for item in items]
    except (ParseError, ValueError, RecursionError) as error:
        raise ValueError(f"must be a JSON list of intervals: {error}") from None


_READERS: dict[str, Callable[[str], Any]] = {
    "prefix": str,
    "destination": str,
    # Money stays text all the way: the server reads it, exactly.
    "cost_per_minute": str.strip,
    "connect_fee": str.strip,
    "billing_increment": lambda text: read_integer(text, 32),
    "minimum_seconds": lambda text: read_integer(text, 32),
    "effective_from": read_time_or_date,
    "effective_to": read_time_or_date,
    "blocked": read_boolean,
    "intervals": _read_intervals,
}


def write_deck(parts: Iterable[Iterable[Rate]], out: TextIO) -> int:
    """Writes a deck that comes in parts; returns how many rates it had."""
    writer = CsvWriter(out)
    writer.write(REQUIRED + OPTIONAL)
    count = 0
    for part in parts:
        for rate in part:
            writer.write(_row(rate))
            count += 1
    writer.note_line_breaks()
    return count


def _row(rate: Rate) -> list[str]:
    start = write_time(rate.effective_from) if rate.HasField("effective_from") else ""
    end = write_time(rate.effective_to) if rate.HasField("effective_to") else ""
    intervals = [
        MessageToDict(
            i, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for i in rate.intervals
    ]
    return [
        rate.prefix,
        rate.destination,
        rate.cost_per_minute,
        str(rate.billing_increment),
        rate.connect_fee,
        str(rate.minimum_seconds),
        start,
        end,
        "true" if rate.blocked else "",
        json.dumps(intervals, separators=(",", ":")) if intervals else "",
    ]
