"""The options of a client command for its token. The client reads and sends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from tollwire.service.cli.shared_options import SharedOption


def token_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --token, --token-file and --insecure to a command."""
    for option in (
        click.option(
            "--insecure",
            cls=SharedOption,
            envvar="TOLLWIRE_INSECURE",
            is_flag=True,
            help="Allow the token in plain text to another machine.  [env: TOLLWIRE_INSECURE]",
        ),
        click.option(
            "--token-file",
            cls=SharedOption,
            envvar="TOLLWIRE_TOKEN_FILE",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A file that contains only the token.  [env: TOLLWIRE_TOKEN_FILE]",
        ),
        click.option(
            "--token",
            cls=SharedOption,
            envvar="TOLLWIRE_TOKEN",
            metavar="TEXT",
            help="The access token. Other users of this machine can read a command line; they"
            " cannot read an environment variable or a file.  [env: TOLLWIRE_TOKEN]",
        ),
    ):
        command = option(command)
    return command
