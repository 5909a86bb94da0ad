"""Files that the commands read and write."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import click

from service.cli.output import note

multiline_option = click.option(
    "--multiline",
    is_flag=True,
    help="Read CSV in which quoted fields contain line breaks. A stray quote then damages more than"
    " its own line.",
)


def export(write: Callable[[TextIO], int], output: Path | None) -> None:
    """Lets ``write`` fill the file ``output``, or stdout where that is None.

    The file gets its name when it is complete: a failed export leaves none, or the one before.
    ``write`` returns the number of records.
    """
    if output is None:
        write(sys.stdout)
        return
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as out:
            count = write(out)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    note(f"{count:,} records written to {output}")
