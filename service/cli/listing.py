"""Lists: page by page from the server, up to a limit, as a table or as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from service.cli.connection import Client
from service.cli.output import note, print_json_lines, print_table

DEFAULT_LIMIT = 50
_LARGEST_PAGE = 1000


def limit_option(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a list command --limit."""
    return click.option(
        "--limit",
        type=click.IntRange(min=0),
        default=DEFAULT_LIMIT,
        show_default=True,
        help="Show at most so many; 0 for all.",
    )(command)


class Listing:
    """The items of a paged list, up to ``limit`` (0: all). After iteration ``more`` says whether
    the server has others."""

    def __init__(
        self,
        fetch: Callable[[int, str], tuple[Sequence[Any], str]],
        limit: int,
    ) -> None:
        self._fetch = fetch
        self._limit = limit
        self.more = False

    def __iter__(self) -> Iterator[Any]:
        left, token = self._limit, ""
        while True:
            size = min(left, _LARGEST_PAGE) if self._limit else _LARGEST_PAGE
            items, token = self._fetch(size, token)
            yield from items
            left -= len(items)
            if not token:
                return
            if self._limit and left <= 0:
                self.more = True
                return


def print_listing(
    client: Client,
    listing: Listing,
    headers: Sequence[str],
    cells: Callable[[Any], Sequence[str]],
    right: Sequence[str] = (),
) -> None:
    """Prints the list, and on stderr whether it goes on."""
    if client.as_json:
        print_json_lines(listing)
    else:
        print_table(headers, (cells(item) for item in listing), right)
    if listing.more:
        note("there are more: --limit 0 shows all")
