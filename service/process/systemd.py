"""Reports the server's state to a supervisor such as systemd: ready, stopping, waiting.

The protocol is sd_notify(3): datagrams of NAME=VALUE lines to the Unix socket in the variable
NOTIFY_SOCKET. Without that variable nothing is sent. A message that cannot be sent is dropped: a
server does not wait for its supervisor. Only the process that systemd has started sends reports;
workers do not.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

_SOCKET = "NOTIFY_SOCKET"
_WATCHDOG_USEC = "WATCHDOG_USEC"
_WATCHDOG_PID = "WATCHDOG_PID"
# systemd aborts a start that exceeds the timeout of the last message.
_EXTEND_SECONDS = 60


class Supervision:
    """The reports of one process. For one thread at a time."""

    def __init__(self) -> None:
        self._address = os.environ.get(_SOCKET, "")
        self._beat_seconds = _beat_seconds() if self._address else 0.0
        self._next_beat = 0.0

    def waiting(self, text: str) -> None:
        """The server waits during its start; ``text`` says for what."""
        self._send(STATUS=text, EXTEND_TIMEOUT_USEC=str(_EXTEND_SECONDS * 1_000_000))

    def ready(self, text: str) -> None:
        """The server serves."""
        self._send(READY="1", STATUS=text)

    def stopping(self, text: str) -> None:
        """The server stops."""
        self._send(STOPPING="1", STATUS=text)

    def beat(self) -> None:
        """Call often from the main thread: sends the watchdog message when it is due."""
        now = time.monotonic()
        if self._beat_seconds and now >= self._next_beat:
            self._next_beat = now + self._beat_seconds
            self._send(WATCHDOG="1")

    def _send(self, **fields: str) -> None:
        if not self._address:
            return
        # A name that begins with "@" is an abstract socket.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        lines = [f"{name}={_one_line(value)}" for name, value in fields.items()]
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)


def _beat_seconds() -> float:
    """The interval of watchdog messages: half of the watchdog's timeout; 0: no messages."""
    if os.environ.get(_WATCHDOG_PID, str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(0, int(os.environ.get(_WATCHDOG_USEC, "0"))) / 2_000_000
    except ValueError:
        return 0.0


def _one_line(text: str) -> str:
    return " ".join(text.split())
