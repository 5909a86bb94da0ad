"""Lists: page by page from the server, up to a limit, as a table or as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click

from tollwire.client import Pages
from tollwire.client.calls import PAGE_SIZE
from tollwire.service.cli.connection import Client
from tollwire.service.cli.output import note, print_json_lines
from tollwire.service.cli.tables import Column, Table, terminal_width

DEFAULT_LIMIT = 50
_COLUMNS, _WIDE = "tollwire.columns", "tollwire.wide"


def limit_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add --limit to a list command."""
    return click.option(
        "--limit",
        type=click.IntRange(min=0),
        default=DEFAULT_LIMIT,
        show_default=True,
        help="The maximum number of entries; 0: all.",
    )(command)


def table_options(
    columns: Sequence[Column],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add --columns and --wide to a command with a table of ``columns``. ``print_rows`` reads the
    options; the command's function gets no argument for them."""
    names = [column.name for column in columns]

    def read_columns(
        ctx: click.Context, param: click.Parameter, value: str | None
    ) -> list[str] | None:
        if value is None:
            return None
        known = {name.lower().replace("_", "-"): name for name in names}
        chosen = []
        for word in filter(None, map(str.strip, value.split(","))):
            name = known.get(word.lower().replace("_", "-").replace(" ", "-"))
            if name is None:
                raise click.BadParameter(
                    f"unknown column {word!r}; the columns are: {', '.join(names)}"
                )
            chosen.append(name)
        if not chosen:
            raise click.BadParameter(f"name at least one of: {', '.join(names)}")
        ctx.meta[_COLUMNS] = list(dict.fromkeys(chosen))
        return None

    def read_wide(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        ctx.meta[_WIDE] = value

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        command = click.option(
            "--wide",
            is_flag=True,
            expose_value=False,
            callback=read_wide,
            help="Show all columns, even if the terminal is too narrow.",
        )(command)
        return click.option(
            "--columns",
            metavar="NAME,...",
            expose_value=False,
            callback=read_columns,
            help=f"Show only these columns, in this order: {', '.join(names)}.",
        )(command)

    return decorate


class Listing:
    """The items of a list of the client, up to ``limit`` (0: all). ``list_``: one of the client's
    methods, with all arguments but page_size. ``prepare`` is called with each item, and returns
    the one to show. After iteration ``more`` says whether the server has others."""

    def __init__(
        self,
        list_: Callable[..., Pages[Any, Any]],
        limit: int,
        prepare: Callable[[Any], Any] | None = None,
    ) -> None:
        self._list = list_
        self._limit = limit
        self._prepare = prepare
        self.more = False

    def pages(self) -> Iterator[Sequence[Any]]:
        """The items of each response, as they arrive."""
        left = self._limit
        found = self._list(page_size=min(left or PAGE_SIZE, PAGE_SIZE))
        for page in found.pages():
            items, token = found.take(page)
            shown = items[:left] if self._limit else items
            yield shown if self._prepare is None else [*map(self._prepare, shown)]
            left -= len(shown)
            if self._limit and left <= 0:
                self.more = bool(token) or len(shown) < len(items)
                return

    def __iter__(self) -> Iterator[Any]:
        for items in self.pages():
            yield from items


def print_listing(
    client: Client, listing: Listing, columns: Sequence[Column], nothing: str
) -> None:
    """Print the list as it arrives, and on stderr a note if there are more items. ``nothing``: the
    note for an empty list, such as "no rates"."""
    if client.as_json:
        print_json_lines(listing)
    else:
        print_rows(listing.pages(), columns, nothing)
    if listing.more:
        note("there are more entries: --limit 0 shows all")


def print_rows(pages: Iterable[Iterable[Any]], columns: Sequence[Column], nothing: str) -> None:
    """Print a table of items that arrive in pages, in the columns that ``table_options`` has read.
    Prints on stderr which columns were left out because the terminal is too narrow."""
    options = click.get_current_context().meta
    chosen = options.get(_COLUMNS)
    names = [column.name for column in columns]
    if absent := [name for name in chosen or () if name not in names]:
        raise click.BadParameter(
            f"this table has no column {absent[0]!r}; its columns are: {', '.join(names)}",
            param_hint="--columns",
        )
    table = Table(columns, chosen, wide=options.get(_WIDE, False), width=terminal_width())
    is_empty = True
    for page in pages:
        if lines := list(table.page(page)):
            is_empty = False
            click.echo("\n".join(lines))
    if is_empty:
        note(nothing)
    elif table.left_out:
        left_out = ",".join(table.left_out)
        note(f"columns not shown: {left_out} (--wide shows all, --columns NAME,... chooses)")
