"""CSV files with a header of known columns, for rate decks and lists of calls.

UTF-8, with or without a byte order mark. Each line is a record, so a stray quote damages only its
own line; fields may be quoted as in RFC 4180. ``multiline`` also allows line breaks within quotes.
A record that cannot be read is reported with its line, and reading continues after it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TextIO

from tollwire.service.cli.lines import MAX_LINE_BYTES, BadFile, Line, Lines
from tollwire.service.cli.output import note

# The first line of a record, its bytes, and its fields or the reason why it cannot be read.
_Row = tuple[int, bytes, list[str] | str]

_FIELD = r'(?:"[^"]*+(?:""[^"]*+)*+"|[^",]*+)'
_WELL_QUOTED = re.compile(f"{_FIELD}(?:,{_FIELD})*+")
_NUL = "contains a NUL byte (0x00), which is not allowed"
# The beginning of what spreadsheets run as a formula (some take the full-width forms too), with the
# apostrophes that ``CsvWriter`` adds.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[0-9 ().,/-]*")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class CsvFile:
    """Iterates over the rows of a CSV file: the first line of the row, its bytes without the line
    end, and its fields in the order of ``columns``, or the reason why it cannot be read. Blank
    lines are skipped. ``header``: the unchanged header of the file. ``ignored``: the columns to
    skip; after the header was read, those of them that the file has. ``lines``: the number of
    lines read."""

    def __init__(
        self,
        stream: BinaryIO,
        required: Sequence[str],
        optional: Sequence[str] = (),
        *,
        ignored: Sequence[str] = (),
        multiline: bool = False,
    ) -> None:
        self.lines = Lines(stream, keep_ends=multiline)
        self._rows = _multiline_rows(self.lines) if multiline else _rows(self.lines)
        number, self.header, fields = next(self._rows, (1, b"", []))
        if isinstance(fields, str):
            raise BadFile(f"line {number}: the header cannot be read: {fields}")
        self.columns = [name.strip().lower() for name in fields]
        self.ignored = [name for name in self.columns if name in ignored]
        self._check(number, required, optional)

    def _check(self, number: int, required: Sequence[str], optional: Sequence[str]) -> None:
        known = [*required, *optional]
        unknown = [name for name in self.columns if name not in (*known, *self.ignored)]
        if unknown:
            raise BadFile(
                f"line {number}: unknown column {', '.join(map(repr, unknown))};"
                f" the columns are: {', '.join(known)}{_separator_advice(self.columns)}"
            )
        missing = [name for name in required if name not in self.columns]
        if missing:
            raise BadFile(f"line {number}: the header lacks {', '.join(missing)}")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise BadFile(f"line {number}: the header has {', '.join(twice)} twice")

    def __iter__(self) -> Iterator[_Row]:
        width = len(self.columns)
        for row in self._rows:
            fields = row[2]
            if isinstance(fields, str):
                yield row
            elif len(fields) == width:
                number, line, _ = row
                yield (number, line, [*map(_unguarded, fields)]) if b"'" in line else row
            else:
                wrong = f"has {len(fields)} fields, but the header has {width}"
                yield row[0], row[1], wrong


def read_fields(
    columns: Sequence[tuple[str, Callable[[str], Any] | None]], row: Sequence[str]
) -> dict[str, Any] | str:
    """The values of a row by column, or the first error as a sentence.

    ``columns``: names and readers, which raise ValueError. Columns without a reader and empty
    fields are skipped.
    """
    values = {}
    for (name, read), text in zip(columns, row, strict=True):
        if text and read is not None:
            try:
                values[name] = read(text)
            except ValueError as error:
                return f"{name}: {error}"
    return values


def header_columns(header: bytes) -> list[str]:
    """The column names of a header."""
    fields = _fields(header)
    return [] if isinstance(fields, str) else [name.strip().lower() for name in fields]


def _separator_advice(columns: Sequence[str]) -> str:
    for separator, name in _SEPARATORS.items():
        if len(columns) == 1 and separator in columns[0]:
            return f" (the columns are separated by {name}; they must be separated by commas)"
    return ""


def _rows(lines: Lines) -> Iterator[_Row]:
    """One row for each line that is not blank."""
    for number, line, wrong in lines:
        if line and not line.isspace():
            yield number, line, wrong or _fields(line)


def _fields(line: bytes) -> list[str] | str:
    """The fields of a line, or the reason why they cannot be read."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return _not_utf8(error)
    if "\0" in text:
        return _NUL
    if '"' not in text:
        return text.split(",")
    if _WELL_QUOTED.fullmatch(text) is None:
        return _misquoted(text)
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        return f"not CSV: {error}"


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start + 1}"


def _misquoted(text: str) -> str:
    """The error in the quotes of a line."""
    if text.count('"') % 2:
        return (
            'not CSV: a quote (") is opened but not closed on this line; write a quote within a'
            ' field as "" in a quoted field; --multiline reads fields with line breaks'
        )
    return (
        'not CSV: a quote (") is in an unquoted field, or text follows the end of a quoted field;'
        ' write a quote within a field as "" in a quoted field'
    )


def _multiline_rows(lines: Lines) -> Iterator[_Row]:
    """Rows whose quoted fields may contain line breaks."""
    taken: list[Line] = []  # the lines of the current row

    def texts() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line[1].decode(errors="surrogateescape")

    reader = csv.reader(texts(), strict=True)
    while True:
        taken.clear()
        fields: list[str] | str
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fields = f"not CSV: {error}"
        content = b"".join(line for _, line, _ in taken)
        if not content.strip():
            continue
        first, last = taken[0][0], taken[-1][0]
        wrong = next((wrong for *_, wrong in taken if wrong), "") or _wrong_text(content)
        if wrong:
            fields = wrong
        if isinstance(fields, str) and last > first:
            fields = f"{fields} (lines {first} to {last})"
        yield first, content.rstrip(b"\r\n")[:MAX_LINE_BYTES], fields


def _wrong_text(content: bytes) -> str:
    try:
        return _NUL if "\0" in content.decode() else ""
    except UnicodeDecodeError as error:
        return _not_utf8(error)


def _guarded(field: str) -> str:
    """A spreadsheet takes a field that begins with an apostrophe as text, and would run others as
    formulas. Numbers, also of telephones, stay as they are."""
    return f"'{field}" if _FORMULA.match(field) and not _NUMBER.fullmatch(field) else field


def _unguarded(field: str) -> str:
    """The inverse of ``_guarded``."""
    return field[1:] if field.startswith("'") and _guarded(field[1:]) == field else field


class CsvWriter:
    """Writes rows that ``CsvFile`` reads back unchanged. Reading rows with a line break in a field
    needs ``multiline``. A field that a spreadsheet would run as a formula gets an apostrophe."""

    def __init__(self, out: TextIO) -> None:
        self._plain = csv.writer(out, lineterminator="\n")
        # Readers treat a single carriage return as a line end, but the csv writer does not quote
        # it.
        self._quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
        self._broken_rows = 0

    def write(self, row: Sequence[str]) -> None:
        row = [_guarded(field) for field in row]
        broken = any("\n" in field or "\r" in field for field in row)
        self._broken_rows += broken
        (self._quoting if broken else self._plain).writerow(row)

    def note_line_breaks(self) -> None:
        """Print a note on stderr if reading the file needs --multiline."""
        if self._broken_rows:
            note(
                f"{self._broken_rows:,} records have a line break in a field;"
                " use --multiline to read the file"
            )
