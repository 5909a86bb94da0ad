"""Commands that destroy or take back something ask first, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click


def yes_option(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command --yes."""
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation on a terminal.")(
        command
    )


def asks(*, yes: bool) -> bool:
    """Whether ``confirm`` asks: where somebody can answer, unless told otherwise."""
    return not yes and sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Asks, and ends the command where the answer is no. A script is not asked."""
    if asks(yes=yes) and not click.confirm(question, err=True):
        click.echo("tollwire: nothing was changed", err=True)
        raise click.exceptions.Exit(1)
