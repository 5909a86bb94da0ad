"""Tables for people: columns chosen by the width of the terminal, and records if it is too narrow.

Ids, numbers, money and times are never shortened. Free text, such as a name, is shortened only
if the key columns do not fit otherwise. Without a terminal, a table has all its default columns,
and no value is shortened.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import click
from rich.cells import cell_len, set_cell_size

GAP = "  "
ELLIPSIS = "…"
# The minimum width of free text when the terminal is too narrow.
MIN_TEXT_WIDTH = 12
# Free text up to this width is not shortened if another column can be left out instead.
COMMON_TEXT_WIDTH = 24
# The width of times without fractions of a second.
TIME_WIDTH = len("2026-03-01T08:30:00Z")


class ColumnType(Enum):
    """How a column is aligned, and whether its values may be shortened."""

    NUMBER = "number"  # right-aligned, never shortened: ids, counts, money
    EXACT = "exact"  # left-aligned, never shortened: times, telephone numbers, words of a fixed set
    TEXT = "text"  # left-aligned, may be shortened as a last resort


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    ``rank``: 0 for the key columns; if the terminal is too narrow, columns with the highest rank
    are left out first. ``is_default`` False: only with --wide and --columns. ``min_width``: the
    width of most values, so that later pages stay aligned with the first.
    """

    name: str
    value: Callable[[Any], str]
    type: ColumnType = ColumnType.EXACT
    rank: int = 0
    is_default: bool = True
    min_width: int = 0

    @property
    def header(self) -> str:
        return self.name.replace("-", " ")


def number(
    name: str, value: Callable[[Any], str], rank: int = 0, *, is_default: bool = True
) -> Column:
    """A column of ids, counts or money."""
    return Column(name, value, ColumnType.NUMBER, rank, is_default)


def exact(
    name: str, value: Callable[[Any], str], rank: int = 0, *, is_default: bool = True
) -> Column:
    """A column of words, telephone numbers or other values that are only useful whole."""
    return Column(name, value, ColumnType.EXACT, rank, is_default)


def time(
    name: str, value: Callable[[Any], str], rank: int = 0, *, is_default: bool = True
) -> Column:
    """A column of times."""
    return Column(name, value, ColumnType.EXACT, rank, is_default, TIME_WIDTH)


def text(
    name: str, value: Callable[[Any], str], rank: int = 0, *, is_default: bool = True
) -> Column:
    """A column of free text."""
    return Column(name, value, ColumnType.TEXT, rank, is_default)


def printable(value: str) -> str:
    """The text without control characters, which a terminal would interpret."""
    return "".join(c if c.isprintable() else "\ufffd" for c in value)


def grouped(value: int | str) -> str:
    """A whole number, or a decimal number as text, with thousands separators."""
    whole, point, decimals = str(value).partition(".")
    sign = "-" if whole.startswith("-") else ""
    digits = whole.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        return str(value)
    return f"{sign}{int(digits):,}{point}{decimals}"


def terminal_width() -> int | None:
    """The width of the terminal on stdout; None if it is not a terminal."""
    if not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def bold(value: str) -> str:
    """The text in bold if stdout is a terminal that supports it."""
    plain = not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"
    return value if plain or os.environ.get("NO_COLOR") else click.style(value, bold=True)


@dataclass(slots=True)
class Layout:
    """The columns that are shown, with their widths. ``as_records``: one line for each field."""

    columns: list[Column]
    widths: list[int]
    as_records: bool = False
    left_out: list[Column] = field(default_factory=list)


class Table:
    """Formats rows in pages. The layout of a page is kept for later pages that fit it.

    ``chosen``: the names of --columns, in that order. ``wide``: all columns, at any width.
    ``width``: the width of the terminal; None: no limit.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        chosen: Sequence[str] | None = None,
        *,
        wide: bool = False,
        width: int | None = None,
    ) -> None:
        by_name = {column.name: column for column in columns}
        if chosen is not None:
            self._columns = [by_name[name] for name in chosen]
        else:
            self._columns = [column for column in columns if wide or column.is_default]
        # All columns that the user chose are shown.
        self._all_needed = chosen is not None
        self._width = None if wide else width
        self._layout: Layout | None = None
        self._left_out: dict[str, None] = {}
        self._records = 0

    @property
    def left_out(self) -> list[str]:
        """The names of the default columns that were left out on any page."""
        return list(self._left_out)

    def page(self, items: Iterable[Any]) -> Iterator[str]:
        """The lines of more rows, with a header if one is needed."""
        rows = [[printable(column.value(item)) for column in self._columns] for item in items]
        if not rows:
            return
        before = self._layout
        layout = self._lay_out(rows, before)
        self._left_out.update(dict.fromkeys(column.name for column in layout.left_out))
        if layout.as_records:
            yield from self._as_records(layout, rows)
        else:
            # Without a terminal the table has only one header, for programs that read it.
            if before is None or (self._width is not None and _differ(before, layout)):
                if before is not None:
                    yield ""
                yield bold(_line(layout, [column.header for column in layout.columns]))
            places = [self._columns.index(column) for column in layout.columns]
            for row in rows:
                yield _line(layout, [row[place] for place in places])
        self._layout = layout

    def _lay_out(self, rows: list[list[str]], before: Layout | None) -> Layout:
        """The layout for some rows. It adds no column that the previous layout left out, and its
        columns are at least as wide."""
        if before is not None and before.as_records:
            return before
        known = {}
        if before is not None:
            names = [column.name for column in before.columns]
            known = dict(zip(names, before.widths, strict=True))
        natural = {
            column.name: max(
                column.min_width,
                cell_len(column.header),
                *(cell_len(row[place]) for row in rows),
                known.get(column.name, 0),
            )
            for place, column in enumerate(self._columns)
        }
        if self._width is None:
            return Layout(self._columns, [natural[column.name] for column in self._columns])
        return self._fit(natural, self._width, before.columns if before else self._columns)

    def _fit(self, natural: dict[str, int], limit: int, candidates: Sequence[Column]) -> Layout:
        def narrow(column: Column, width: int) -> int:
            enough = max(width, cell_len(column.header))
            is_text = column.type is ColumnType.TEXT
            return min(natural[column.name], enough) if is_text else natural[column.name]

        def total(columns: Sequence[Column], text_width: int) -> int:
            widths = [narrow(column, text_width) for column in columns]
            return sum(widths) + len(GAP) * (len(widths) - 1)

        needed = [c for c in self._columns if self._all_needed or c.rank == 0]
        if total(needed, MIN_TEXT_WIDTH) > limit:
            return Layout(self._columns, [], as_records=True)
        shown = list(needed)
        for column in sorted(candidates, key=lambda c: c.rank):
            if column not in shown and total([*shown, column], COMMON_TEXT_WIDTH) <= limit:
                shown.append(column)
        columns = [column for column in self._columns if column in shown]
        widths = {column.name: narrow(column, MIN_TEXT_WIDTH) for column in columns}
        spare = limit - sum(widths.values()) - len(GAP) * (len(columns) - 1)
        for column in sorted(columns, key=lambda c: c.rank):
            more = min(spare, natural[column.name] - widths[column.name])
            widths[column.name] += more
            spare -= more
        left_out = [column for column in self._columns if column not in shown]
        return Layout(columns, [widths[c.name] for c in columns], left_out=left_out)

    def _as_records(self, layout: Layout, rows: list[list[str]]) -> Iterator[str]:
        width = max(cell_len(column.header) for column in layout.columns)
        for row in rows:
            self._records += 1
            if self._records > 1 or self._layout is not None:
                yield ""
            for column, value in zip(layout.columns, row, strict=True):
                if value:
                    yield f"{bold(column.header.ljust(width))}{GAP}{value}"


def _differ(before: Layout, after: Layout) -> bool:
    return before.columns != after.columns or before.widths != after.widths


def _line(layout: Layout, cells: Sequence[str]) -> str:
    """One row, without spaces after its last value."""
    parts = [
        _cell(column, width, value)
        for column, width, value in zip(layout.columns, layout.widths, cells, strict=True)
    ]
    return GAP.join(parts).rstrip()


def _cell(column: Column, width: int, value: str) -> str:
    size = cell_len(value)
    if size > width and column.type is ColumnType.TEXT:
        return set_cell_size(set_cell_size(value, width - 1).rstrip() + ELLIPSIS, width)
    padding = " " * (width - size)
    return f"{padding}{value}" if column.type is ColumnType.NUMBER else f"{value}{padding}"
