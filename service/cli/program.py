"""The group of all commands: each failure is one line on stderr and an exit code, not a traceback.

This includes failures outside the commands: a full disk, a closed pipe, a file that cannot be
opened, an invalid command line.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tollwire.service.cli.failures import CLOSED_PIPE, INTERRUPTED, REFUSED, USAGE, Failure
from tollwire.service.cli.shared_options import SharedOption

# These errors can only come from writing.
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class Program(click.Group):
    """The group of all commands."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        arguments = list(sys.argv[1:] if args is None else args)
        name = prog_name or "tollwire"
        self._main_shell_completion(extra, name, complete_var)
        sys.exit(self._run(arguments, name, extra))

    def _run(self, arguments: list[str], name: str, extra: dict[str, Any]) -> int:
        as_json = "--json" in arguments
        try:
            code = self._invoke(arguments, name, extra)
            sys.stdout.flush()
        except BrokenPipeError:
            _abandon_stdout()
            return CLOSED_PIPE
        except Exception as error:
            failure = _failure(error)
            if failure is None:
                raise
            # After a failed write, the rest of the output cannot be written either.
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            _abandon_stdout()
            with contextlib.suppress(OSError):
                failure.report(as_json=as_json)
            return failure.exit_code
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):
                Failure("interrupted", INTERRUPTED).report(as_json=as_json)
            return INTERRUPTED
        return code

    def _invoke(self, arguments: list[str], name: str, extra: dict[str, Any]) -> int:
        try:
            with self.make_context(name, arguments, **extra) as ctx:
                self.invoke(ctx)
        except click.exceptions.Exit as done:
            return done.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return error.exit_code
        return 0

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {
            "Options": [],
            "Connection options of all client commands, before or after the command": [],
        }
        own, shared = sections.values()
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (shared if isinstance(param, SharedOption) else own).append(record)
        self.format_commands(ctx, formatter)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _failure(error: Exception) -> Failure | None:
    """The failure to report for an error; None for a defect."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, click.UsageError):
        message = error.format_message()
        if error.ctx is not None and not message.endswith("--help"):
            # The hint at --help does not help if a file cannot be opened.
            param = getattr(error, "param", None)
            is_file = param is not None and isinstance(param.type, click.File | click.Path)
            help_ = "" if is_file else f' (see "{error.ctx.command_path} --help")'
            message = f"{message.rstrip('.')}{help_}"
        return Failure(message, USAGE)
    if isinstance(error, click.ClickException):
        return Failure(error.format_message(), error.exit_code)
    if isinstance(error, click.Abort | EOFError):
        return Failure("aborted; nothing was changed", REFUSED)
    if isinstance(error, UnicodeEncodeError):
        return Failure(f"{error.object[:100]!r} is not UTF-8", USAGE)
    if isinstance(error, OSError):
        return Failure(_os_message(error), USAGE)
    return None


def _os_message(error: OSError) -> str:
    words = error.strerror or str(error)
    if error.filename is not None:
        return f"cannot use the file {os.fsdecode(error.filename)}: {words}"
    if error.errno in _WRITING:
        return f"cannot write the output: {words}"
    return f"cannot read or write a file: {words}"


def _abandon_stdout() -> None:
    """Prevent that Python's flush at exit fails again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)


def prepare_streams() -> None:
    """Make stdout and stderr accept every text: files and pipes get UTF-8. Reopen them if they are
    closed, so that no other file gets their descriptor."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # stays open
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            encoding = None if stream.isatty() else "utf-8"
            reconfigure(encoding=encoding, errors="backslashreplace")
