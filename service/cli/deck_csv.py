"""Decks of rates as CSV: a written deck can be read back unchanged.

The last column, ``intervals``, contains a JSON list of
{"start_seconds", "cost_per_minute", "billing_increment"}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, BinaryIO, Literal, NamedTuple, TextIO

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from tollwire.service.cli.csv_file import CsvFile, CsvWriter, read_fields
from tollwire.service.cli.values import read_boolean, read_integer, read_time_or_date, write_time
from tollwire.v1.types_pb2 import Interval, Rate

REQUIRED = ("prefix", "destination", "cost_per_minute", "billing_increment")


class DeckFile:
    """The rates of a CSV file: pairs of a line and its rate, or the reason why it cannot be
    read."""

    def __init__(self, stream: BinaryIO, *, multiline: bool = False) -> None:
        self._file = CsvFile(stream, REQUIRED, OPTIONAL, multiline=multiline)

    def __iter__(self) -> Iterator[tuple[int, Rate | str]]:
        columns = [(name, COLUMNS[name].read) for name in self._file.columns]
        for line, _, row in self._file:
            values = row if isinstance(row, str) else read_fields(columns, row)
            yield line, values if isinstance(values, str) else Rate(**values)


def _read_intervals(text: str) -> list[Interval]:
    try:
        items = json.loads(text)
        if not (isinstance(items, list) and all(isinstance(item, dict) for item in items)):
            raise ParseError(f"got {text[:80]!r}")
        return [ParseDict(item, Interval()) for item in items]
    except (ParseError, ValueError, RecursionError) as error:
        raise ValueError(f"must be a JSON list of intervals: {error}") from None


def _write_intervals(rate: Rate) -> str:
    intervals = [
        MessageToDict(
            i, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for i in rate.intervals
    ]
    return json.dumps(intervals, separators=(",", ":")) if intervals else ""


class Column(NamedTuple):
    read: Callable[[str], Any]
    write: Callable[[Rate], str]


def _text(name: str) -> Column:
    return Column(str, attrgetter(name))


def _money(name: str) -> Column:
    """Money stays text: the server parses it."""
    return Column(str.strip, attrgetter(name))


def _integer(name: str) -> Column:
    return Column(lambda text: read_integer(text, 32), lambda rate: str(getattr(rate, name)))


def _time(name: Literal["effective_from", "effective_to"]) -> Column:
    return Column(
        read_time_or_date,
        lambda rate: write_time(getattr(rate, name)) if rate.HasField(name) else "",
    )


# In the order of the columns of a written file.
COLUMNS = {
    "prefix": _text("prefix"),
    "destination": _text("destination"),
    "cost_per_minute": _money("cost_per_minute"),
    "billing_increment": _integer("billing_increment"),
    "connect_fee": _money("connect_fee"),
    "minimum_seconds": _integer("minimum_seconds"),
    "effective_from": _time("effective_from"),
    "effective_to": _time("effective_to"),
    "blocked": Column(read_boolean, lambda rate: "true" if rate.blocked else ""),
    "intervals": Column(_read_intervals, _write_intervals),
}
OPTIONAL = tuple(name for name in COLUMNS if name not in REQUIRED)


def write_deck(rates: Iterable[Rate], out: TextIO) -> int:
    """Write a deck. Returns the number of rates."""
    writer = CsvWriter(out)
    writer.write(tuple(COLUMNS))
    count = 0
    for rate in rates:
        writer.write(_row(rate))
        count += 1
    writer.note_line_breaks()
    return count


def _row(rate: Rate) -> list[str]:
    return [column.write(rate) for column in COLUMNS.values()]
