"""The real command on a terminal of a given width, as a user sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import tempfile
import termios
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.cli.forking import run_command
from tests.integration.serving import environment

STYLES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Seen:
    """The output of a command: ``raw`` on the terminal, ``screen`` the same without its styles;
    ``errors`` on stderr, which is no terminal."""

    raw: str
    screen: str
    errors: str
    exit_code: int

    @property
    def lines(self) -> list[str]:
        return self.screen.splitlines()


def on_terminal(arguments: list[str], width: int, **settings: str) -> Seen:
    """Run ``tollwire`` with its stdout on a terminal of ``width`` columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = {k: v for k, v in environment().items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    parts: list[bytes] = []

    def read() -> None:
        # Linux returns EIO when the last writer has closed the terminal.
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with Path(os.devnull).open() as nothing, tempfile.TemporaryFile() as errors:
            streams = (nothing.fileno(), theirs, errors.fileno())
            exit_code = run_command(arguments, env | {"TERM": "xterm"} | settings, streams)
            errors.seek(0)
            told = errors.read().decode()
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    raw = b"".join(parts).decode().replace("\r\n", "\n")
    return Seen(raw, STYLES.sub("", raw), told, exit_code)
