"""Groups of commands: a group that lists by default, and second names of commands."""

from __future__ import annotations

from copy import copy

import click


class ListByDefault(click.Group):
    """A group whose command ``list`` may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def add_alias(group: click.Group, name: str, command: click.Command) -> None:
    """Lets a command have a second name, which help does not list."""
    alias = copy(command)
    alias.name, alias.hidden = name, True
    group.add_command(alias)
