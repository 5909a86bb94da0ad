"""CSV files with a header of known columns: what decks of rates and lists of calls have in common.

UTF-8, with or without a byte order mark; lines end as they like; fields may be quoted. A row that
cannot be read is reported with its line, and the rows after it are read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO, TextIO

MAX_LINE_BYTES = 1024 * 1024


class BadFile(ValueError):
    """The file as a whole cannot be what it should be."""


class CsvFile:
    """The rows of a CSV file: pairs of the line it starts on, and its fields in the order of
    ``columns``, or a sentence that says why it cannot be read. Empty lines are no rows."""

    def __init__(
        self, stream: BinaryIO, required: Sequence[str], optional: Sequence[str] = ()
    ) -> None:
        self._reader = csv.reader(_lines(stream), strict=True)
        self.columns = self._header(required, optional)

    def _header(self, required: Sequence[str], optional: Sequence[str]) -> list[str]:
        try:
            columns = [name.strip().lower() for name in next(self._reader, [])]
        except csv.Error as error:
            raise BadFile(f"the header cannot be read: {error}") from None
        known = [*required, *optional]
        unknown = [name for name in columns if name not in known]
        if unknown:
            raise BadFile(
                f"line 1: no column is called {', '.join(map(repr, unknown))};"
                f" there are: {', '.join(known)}"
            )
        missing = [name for name in required if name not in columns]
        if missing:
            raise BadFile(f"line 1: the header lacks {', '.join(missing)}")
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise BadFile(f"line 1: the header has {', '.join(twice)} twice")
        return columns

    def __iter__(self) -> Iterator[tuple[int, list[str] | str]]:
        width = len(self.columns)
        while True:
            line = self._reader.line_num + 1
            try:
                row = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, f"not CSV: {error}"
                continue
            if len(row) == width:
                yield line, row
            elif row:
                yield line, f"has {len(row)} fields where the header has {width}"


def _lines(stream: BinaryIO) -> Iterator[str]:
    """The lines as text. Bytes that are no UTF-8 become lone surrogates, which no field is let
    through with. A line that is too long comes in pieces, which are no rows either."""
    encoding = "utf-8-sig"
    while line := stream.readline(MAX_LINE_BYTES):
        yield line.decode(encoding, "surrogateescape")
        encoding = "utf-8"


class CsvWriter:
    """Writes rows that ``CsvFile`` reads back the same."""

    def __init__(self, out: TextIO) -> None:
        self._plain = csv.writer(out, lineterminator="\n")
        # A carriage return alone ends a line for readers, but is no reason for a writer to quote.
        self._quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(self, row: Sequence[str]) -> None:
        writer = self._quoting if any("\r" in field for field in row) else self._plain
        writer.writerow(row)


def check_text(text: str) -> str:
    """The text itself; ValueError where its bytes were no UTF-8."""
    if any("\udc80" <= c <= "\udcff" for c in text):
        raise ValueError("is not UTF-8")
    return text
