"""The options by which commands choose CDRs, under the names of the requests' fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from tollwire.service.cli.values import (
    DIRECTION,
    DISPOSITION,
    ID,
    RATING_STATUS,
    TIME,
    UNRATED_REASON,
    EnumParameter,
)

Command = Callable[..., None]

since_option = click.option(
    "--from", "started_after", type=TIME, help="Started at this time, or date (UTC), or later."
)
until_option = click.option(
    "--to", "started_before", type=TIME, help="Started before this time, or date (UTC)."
)
_FILTERS: Sequence[Callable[[Any], Any]] = (
    click.option("--tenant", "tenant_id", type=ID, help="Of this tenant only."),
    click.option("--extension", "extension_id", type=ID, help="Of the extension with this id."),
    click.option("--extension-number", metavar="NUMBER", help="Of extensions with this number."),
    click.option("--direction", type=EnumParameter(DIRECTION), help="With this direction."),
    click.option("--disposition", type=EnumParameter(DISPOSITION), help="With this disposition."),
    click.option("--status", type=EnumParameter(RATING_STATUS), help="With this status."),
    click.option("--unrated-reason", type=EnumParameter(UNRATED_REASON), help="Unrated, and why."),
    click.option("--rate", "rate_id", type=ID, help="Priced by the rate with this id."),
    click.option(
        "--prefix",
        "matched_prefix",
        metavar="DIGITS",
        help="Priced by a rate with exactly this prefix.",
    ),
    click.option("--upload", "upload_id", type=ID, help="Created by this upload."),
    since_option,
    until_option,
)
_LIST_FILTERS: Sequence[Callable[[Any], Any]] = (
    click.option("--call-id", metavar="TEXT", help="With exactly this call_id."),
    click.option("--search", help="Part of a number, the direction or disposition."),
    click.option(
        "--reversed/--not-reversed", default=None, help="Reversed, or not. Default: both."
    ),
)


def filter_options(command: Command) -> Command:
    """Gives a command the filters that may also choose what it changes."""
    return _with(_FILTERS, command)


def list_filter_options(command: Command) -> Command:
    """Gives a command that shows CDRs all filters."""
    return _with((*_FILTERS, *_LIST_FILTERS), command)


def _with(options: Sequence[Callable[[Any], Any]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
