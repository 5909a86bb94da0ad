"""The options of commands that use the settings of a server.

The options are created from the fields of service/settings/config.py, only when such a command
runs: client commands start without loading the validation library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

CONFIG_OPTION = click.Option(
    ["--config"],
    envvar="TOLLWIRE_CONFIG",
    show_envvar=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file of settings, such as workers = 4. Options and the environment override it.",
)


class SettingsCommand(click.Command):
    """A command whose callback gets ``loaded``, a tollwire.service.settings.sources.Loaded.

    With ``fields``, only these have options; the others come from the environment and the file.
    """

    def __init__(self, *args: Any, fields: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fields = tuple(fields)
        self._options: list[click.Parameter] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if self._options is None:
            self._options = _options(self._fields)
        return [*self._options, *super().get_params(ctx)]

    def invoke(self, ctx: click.Context) -> Any:
        from tollwire.service.settings.config import OPTIONS
        from tollwire.service.settings.parsing import ConfigError
        from tollwire.service.settings.sources import load

        file = ctx.params.pop("config")
        given = {field: ctx.params.pop(field) for field in OPTIONS if field in ctx.params}
        given = {field: value for field, value in given.items() if value is not None}
        try:
            ctx.params["loaded"] = load(given, file)
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from None
        return super().invoke(ctx)


def with_settings(
    name: str, fields: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], SettingsCommand]:
    """Decorator: a function with the argument ``loaded`` becomes the command of this name."""
    return click.command(name, cls=SettingsCommand, fields=fields)


def _options(fields: Sequence[str]) -> list[click.Parameter]:
    from tollwire.service.settings.config import OPTIONS

    chosen = [OPTIONS[field] for field in fields] if fields else list(OPTIONS.values())
    made: list[click.Parameter] = []
    for option in chosen:
        # No default and no type here: another source may have the value, and Settings
        # validates it.
        flag = f"{option.flag}/--no-{option.flag[2:]}" if option.is_switch else option.flag
        default = f"; default: {option.default}" if option.default else ""
        made.append(
            click.Option(
                [flag],
                default=None,
                type=bool if option.is_switch else str,
                metavar=None if option.is_switch else _metavar(option.kind, option.choices),
                help=f"{option.description}  [env: {option.variable}{default}]",
            )
        )
    return [*made, CONFIG_OPTION]


def _metavar(kind: str, choices: Sequence[str]) -> str:
    if choices:
        return "|".join(choices)
    words = {"HOST:PORT": "HOST:PORT", "a path": "FILE", "a text": "URL"}
    return words.get(kind, "NUMBER")
