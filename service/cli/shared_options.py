"""The options of the connection, which all client commands have.

They may also come before the command (``tollwire --server HOST:PORT rates list``). Help shows them
once, in the list of commands.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import click
from click.core import ParameterSource


class SharedOption(click.Option):
    """A connection option. The help of a command names all of them in one entry, at --server."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        if ctx.parent is None:
            return super().get_help_record(ctx)
        if self.name != "server":
            return None
        shared = [p for p in ctx.command.params if isinstance(p, SharedOption)]
        others = ", ".join(option.opts[0] for option in shared if option is not self)
        return (
            f"--server {self.make_metavar(ctx)}",
            f'The server. "tollwire --help" explains this and the other connection options:'
            f" {others}.",
        )


def options_before_the_command(
    decorate: Callable[[Callable[..., None]], Any],
) -> list[click.Parameter]:
    """Copies of a decorator's options, for use before the command. They have no default and no
    environment variable: the options of the command itself have both."""

    def bare() -> None: ...

    params: list[click.Parameter] = []
    for param in reversed(getattr(decorate(bare), "__click_params__", [])):
        if isinstance(param, SharedOption):
            before = copy(param)
            before.envvar, before.default = None, None
            params.append(before)
    return params


def take_earlier_options(ctx: click.Context, values: dict[str, Any]) -> None:
    """Apply connection options that were given before the command, unless they were also given
    after it."""
    root = ctx.find_root()
    if root is ctx:
        return
    for param in root.command.params:
        name = param.name or ""
        if (
            isinstance(param, SharedOption)
            and root.get_parameter_source(name) is ParameterSource.COMMANDLINE
            and ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE
        ):
            values[name] = root.params[name]
