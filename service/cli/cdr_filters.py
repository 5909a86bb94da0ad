"""The options that filter CDRs, named after the fields of the requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from tollwire.service.cli.values import (
    DIRECTION,
    DISPOSITION,
    GIVEN_TEXT,
    ID,
    RATING_STATUS,
    TIME,
    UNRATED_REASON,
    EnumParameter,
)

Command = Callable[..., None]

since_option = click.option(
    "--from",
    "started_after",
    type=TIME,
    help="Only calls that started at or after this time, or date (UTC).",
)
until_option = click.option(
    "--to",
    "started_before",
    type=TIME,
    help="Only calls that started before this time, or date (UTC).",
)
_FILTERS: Sequence[Callable[[Any], Any]] = (
    click.option("--tenant", "tenant_id", type=ID, help="Only CDRs of this tenant."),
    click.option(
        "--extension", "extension_id", type=ID, help="Only CDRs of the extension with this id."
    ),
    click.option(
        "--extension-number",
        type=GIVEN_TEXT,
        metavar="NUMBER",
        help="Only CDRs of extensions with this number.",
    ),
    click.option(
        "--direction", type=EnumParameter(DIRECTION), help="Only calls with this direction."
    ),
    click.option(
        "--disposition", type=EnumParameter(DISPOSITION), help="Only calls with this disposition."
    ),
    click.option("--status", type=EnumParameter(RATING_STATUS), help="Only CDRs with this status."),
    click.option(
        "--unrated-reason",
        type=EnumParameter(UNRATED_REASON),
        help="Only CDRs that are unrated for this reason.",
    ),
    click.option("--rate", "rate_id", type=ID, help="Only CDRs priced by the rate with this id."),
    click.option(
        "--prefix",
        "matched_prefix",
        metavar="DIGITS",
        help="Only CDRs priced by a rate with exactly this prefix.",
    ),
    click.option("--upload", "upload_id", type=ID, help="Only CDRs that this upload created."),
    since_option,
    until_option,
)
_LIST_FILTERS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--call-id",
        type=GIVEN_TEXT,
        metavar="TEXT",
        help="Only the call with exactly this call_id.",
    ),
    click.option(
        "--search", help="Only calls with this text in a number, the direction or the disposition."
    ),
    click.option(
        "--reversed/--not-reversed",
        default=None,
        help="Only CDRs that are reversed, or are not. Default: both.",
    ),
)


def filter_options(command: Command) -> Command:
    """Add the filters that a command that changes CDRs may use."""
    return _with(_FILTERS, command)


def list_filter_options(command: Command) -> Command:
    """Add all filters, to a command that shows CDRs."""
    return _with((*_FILTERS, *_LIST_FILTERS), command)


def _with(options: Sequence[Callable[[Any], Any]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
