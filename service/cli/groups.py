"""Groups of commands: a group that runs ``list`` by default, and aliases of commands."""

from __future__ import annotations

from copy import copy

import click


class ListByDefault(click.Group):
    """A group that runs its command ``list`` if no command is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def add_alias(group: click.Group, name: str, command: click.Command) -> None:
    """Give a command a second name, which help does not list."""
    alias = copy(command)
    alias.name, alias.hidden = name, True
    group.add_command(alias)
