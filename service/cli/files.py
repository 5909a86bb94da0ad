"""Files that the commands read and write."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO, cast

import click

from tollwire.service.cli.failures import USAGE, Failure
from tollwire.service.cli.output import note, printable

PROGRESS_SECONDS = 0.2
# Bytes that are not UTF-8 are written back as they were read.
_ERRORS = "surrogateescape"

multiline_option = click.option(
    "--multiline",
    is_flag=True,
    help="Read CSV whose quoted fields contain line breaks. A stray quote then damages more than"
    " its own line.",
)


def export(write: Callable[[TextIO], int], output: Path | None) -> None:
    """Call ``write`` with the file ``output``, or with stdout if it is None.

    The file gets its name when it is complete: a failed export leaves no file or the previous one.
    It has telephone numbers: only its owner can read it, also in place of a file that others could.
    Devices and pipes are written directly. ``write`` returns the number of records. Failure if the
    file cannot be written.
    """
    if output is None:
        write(cast(TextIO, _TerminalText(sys.stdout)) if sys.stdout.isatty() else sys.stdout)
        return
    try:
        count = _write_file(write, Path(os.path.realpath(output)))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(f"cannot write {output}: {error.strerror or error}", USAGE) from None
    note(f"{count:,} records written to {output}")


def _write_file(write: Callable[[TextIO], int], path: Path) -> int:
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("w", encoding="utf-8", errors=_ERRORS, newline="") as out:
            return write(out)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # For this user alone, and never a file that exists.
    partial = tempfile.NamedTemporaryFile(  # noqa: SIM115  closed below
        "w",
        encoding="utf-8",
        errors=_ERRORS,
        newline="",
        dir=path.parent,
        prefix=f".{path.name}.",
        suffix=".partial",
        delete=False,
    )
    try:
        with partial, _Progress(cast(TextIO, partial)) as counted:
            count = write(cast(TextIO, counted))
        Path(partial.name).replace(path)
    finally:
        with contextlib.suppress(OSError):
            Path(partial.name).unlink(missing_ok=True)
    return count


class _TerminalText:
    """Writes to a terminal without control characters, except line ends."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        return self._out.write("\n".join(map(printable, text.split("\n"))))

    def flush(self) -> None:
        self._out.flush()


class _Progress:
    """A file that shows the number of written lines on stderr, if that is a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lines = 0
        self._is_shown = sys.stderr.isatty()
        self._next_seconds = 0.0

    def write(self, text: str) -> int:
        self._lines += 1
        if self._is_shown and (now := time.monotonic()) >= self._next_seconds:
            self._next_seconds = now + PROGRESS_SECONDS
            click.echo(f"\r\x1b[K{self._lines:,} lines written", err=True, nl=False)
        return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_shown and self._next_seconds:
            click.echo("\r\x1b[K", err=True, nl=False)
