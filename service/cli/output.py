"""What the commands print: tables for people, protobuf JSON for programs, progress on stderr.

Only data goes to stdout. On a terminal a table has colours and fits its width; elsewhere it is
plain columns of full width, so that other programs can cut them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

# Wide enough that no column is ever cut where nobody looks at it.
_PLAIN_WIDTH = 100_000


def json_text(message: Message, indent: int | None = None) -> str:
    """Protobuf JSON under the names that the fields have in the .proto files and in grpcurl, with
    every field that has a value, zeros and empty texts included."""
    return MessageToJson(
        message,
        indent=indent,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def json_document(message: Message) -> dict[str, Any]:
    """What ``json_text`` prints, to be added to."""
    document: dict[str, Any] = json.loads(json_text(message))
    return document


def print_json(message: Message) -> None:
    """One message, indented."""
    click.echo(json_text(message, indent=2))


def print_json_lines(messages: Iterable[Message], out: TextIO | None = None) -> int:
    """One message a line, on stdout unless told otherwise; returns how many."""
    count = 0
    for count, message in enumerate(messages, 1):  # noqa: B007  # counts
        click.echo(json_text(message), file=out)
    return count


def print_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()
) -> None:
    """A table on stdout. ``right`` names the headers of the columns of numbers."""
    on_terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if on_terminal else None,
        pad_edge=False,
        header_style="bold" if on_terminal else "",
        show_edge=False,
    )
    for header in headers:
        table.add_column(
            header,
            justify="right" if header in right else "left",
            no_wrap=not on_terminal,
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(file=sys.stdout, highlight=False, width=None if on_terminal else _PLAIN_WIDTH)
    if on_terminal:
        console.print(table)
        return
    # Rich pads the last column too; nobody needs those spaces.
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def print_fields(pairs: Iterable[tuple[str, str]]) -> None:
    """One thing as lines of "name  value"; a pair without a value is left out."""
    shown = [(name, printable(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {value}")


def printable(text: str) -> str:
    """The text without control characters, which could command a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def note(text: str) -> None:
    """A remark for people, on stderr."""
    click.echo(f"tollwire: {text}", err=True)


def byte_progress() -> Progress:
    """A bar for reading a file; shows nothing where stderr is no terminal."""
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
