"""``tollwire config`` and ``tollwire doctor``: settings and problems of an installation."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tollwire.service.cli.listing import print_rows, table_options
from tollwire.service.cli.output import note
from tollwire.service.cli.settings import with_settings
from tollwire.service.cli.tables import exact, text

if TYPE_CHECKING:
    from tollwire.service.settings.sources import Loaded

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


CONFIG_COLUMNS = (
    exact("setting", lambda one: one[0]),
    text("value", lambda one: one[1]["value"]),
    exact("from", lambda one: one[1]["from"]),
)


@with_settings("config")
@table_options(CONFIG_COLUMNS)
@_json_option
def config(loaded: Loaded, as_json: bool) -> None:
    """Show the settings in force and their sources. Secrets are masked.

    Reads the same options, environment and file as "tollwire serve".
    """
    from tollwire.service.settings.config import OPTIONS
    from tollwire.service.settings.parsing import as_text, without_secrets

    shown = {
        field: {
            "value": without_secrets(as_text(getattr(loaded.settings, field))),
            "from": loaded.origins[field],
        }
        for field in OPTIONS
    }
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    else:
        print_rows([shown.items()], CONFIG_COLUMNS, "no settings")
    _note_unknown_variables()


@with_settings("doctor")
@_json_option
def doctor(loaded: Loaded, as_json: bool) -> None:
    """Check what a server with these settings needs, and print advice.

    Checks database, migrations, clocks, certificates, limits and ports. Changes nothing. Exits with
    1 if a server cannot run.
    """
    # Imported here, so that the client commands start without loading the server.
    from tollwire.service.process import maintenance

    findings = maintenance.examine(loaded.settings)
    if as_json:
        for found in findings:
            click.echo(json.dumps(asdict(found)))
    else:
        for found in findings:
            click.echo(f"{found.verdict:8} {found.part}: {found.text}")
            if found.advice:
                click.echo(f"{'':8} -> {found.advice}")
    _note_unknown_variables()
    sys.exit(int(any(found.verdict == "problem" for found in findings)))


def _note_unknown_variables() -> None:
    """Warn of TOLLWIRE_ variables without an option: they are probably misspelt."""
    from tollwire.service.settings.config import OPTIONS

    known = {option.variable for option in OPTIONS.values()}
    known |= _variables_of(click.get_current_context().find_root().command)
    for name in sorted(os.environ):
        if name.startswith("TOLLWIRE_") and name not in known:
            note(f"{name} is set in the environment, but no option has that variable")


def _variables_of(command: click.Command) -> set[str]:
    """The variables of all options of a command and of its subcommands."""
    found = {"TOLLWIRE_CONFIG"}
    for option in command.params:
        names = option.envvar or ()
        found |= {names} if isinstance(names, str) else set(names)
    for child in getattr(command, "commands", {}).values():
        found |= _variables_of(child)
    return found
