"""The output of the commands: tables for people, protobuf JSON for programs, progress on stderr.

Only data goes to stdout. On a terminal a table fits the width; elsewhere it has all its columns,
and values are not shortened.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, TextIO

import click
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from tollwire.service.cli.tables import Column, ColumnType, Table, bold, terminal_width
from tollwire.service.cli.tables import printable as printable


def json_text(message: Message, indent: int | None = None) -> str:
    """Protobuf JSON with the field names of the .proto files, as in grpcurl. Zeros and empty texts
    are included."""
    return MessageToJson(
        message,
        indent=indent,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def json_document(message: Message) -> dict[str, Any]:
    """The document that ``json_text`` prints, as a dict."""
    document: dict[str, Any] = json.loads(json_text(message))
    return document


def print_document(document: Any) -> None:
    """Print plain values as indented JSON, without control characters on a terminal."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=sys.stdout.isatty()))


def print_json(message: Message) -> None:
    """Print one message, indented."""
    click.echo(json_text(message, indent=2))


def print_json_lines(messages: Iterable[Message], out: TextIO | None = None) -> int:
    """Print one message in each line, by default on stdout. Returns the number of messages."""
    count = 0
    for count, message in enumerate(messages, 1):  # noqa: B007  # counts
        click.echo(json_text(message), file=out)
    return count


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str] = (),
    free: Sequence[str] = (),
) -> None:
    """Print a small table on stdout, with all its columns. ``right``: the columns of numbers;
    ``free``: the columns of free text, which may be shortened. If the terminal is too narrow, each
    row is printed as a record with one field in each line."""

    def column_type(header: str) -> ColumnType:
        if header in right:
            return ColumnType.NUMBER
        return ColumnType.TEXT if header in free else ColumnType.EXACT

    columns = [
        Column(header, itemgetter(index), column_type(header))
        for index, header in enumerate(headers)
    ]
    for line in Table(columns, width=terminal_width()).page(rows):
        click.echo(line)


def print_fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Print one resource as lines of "name  value"; pairs without a value are omitted."""
    shown = [(name, printable(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{bold(name.ljust(width))}  {value}")


def note(text: str) -> None:
    """Print a note for people on stderr. Does nothing if stderr cannot be written."""
    with contextlib.suppress(OSError):
        click.echo(f"tollwire: {printable(text)}", err=True)


def byte_progress() -> Progress:
    """A progress bar for reading a file; hidden if stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]}"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
