"""Confirmation on a terminal, for commands that delete, replace or reverse."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click


def yes_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add --yes to a command."""
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation on a terminal.")(
        command
    )


def is_asking(*, yes: bool) -> bool:
    """Whether ``confirm`` prompts: on a terminal, without --yes."""
    return not yes and sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Prompt for confirmation, and end the command if the answer is no. Does nothing without a
    terminal."""
    if is_asking(yes=yes) and not click.confirm(question, err=True):
        click.echo("tollwire: nothing was changed", err=True)
        raise click.exceptions.Exit(1)
