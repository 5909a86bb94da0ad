"""Runs the command in processes that start quickly: forked from one that has imported it.

An import of the command takes most of a second, and the tests start it hundreds of times. The
forked process has its own arguments, environment, standard streams and exit code, like one that a
shell starts. ``test_installation.py`` and ``test_end_to_end.py`` start the command as users do.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.integration.serving import REPOSITORY, environment

SECONDS = 60


def run_command(arguments: Sequence[str], env: dict[str, str], streams: Sequence[int]) -> int:
    """Run ``tollwire``; ``streams`` are the descriptors of stdin, stdout and stderr.

    Returns the exit code, or the negative number of the signal that ended it.
    """
    return _forker().run(arguments, env, streams)


class _Forker:
    """The process from which the commands are forked. It runs one command at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.cli.forking", str(theirs.fileno())],
                cwd=REPOSITORY,
                env=environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket.settimeout(SECONDS)

    def run(self, arguments: Sequence[str], env: dict[str, str], streams: Sequence[int]) -> int:
        request = {
            "arguments": [os.fsencode(argument).hex() for argument in arguments],
            "env": env,
            "folder": str(Path.cwd()),
        }
        socket.send_fds(self._socket, [json.dumps(request).encode()], list(streams))
        try:
            reply = self._socket.recv(100)
        except TimeoutError:
            self.close()
            raise
        return int(reply)

    def close(self) -> None:
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@cache
def _forker() -> _Forker:
    forker = _Forker()
    atexit.register(forker.close)
    return forker


def _await_fork(requests: socket.socket) -> None:
    """Serves requests. Returns in each forked process, which is to run the command."""
    while True:
        message, streams, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            requests.close()
            _become(json.loads(message), streams)
            return
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(pid, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: dict[str, object], streams: Sequence[int]) -> None:
    arguments, env = request["arguments"], request["env"]
    assert isinstance(arguments, list) and isinstance(env, dict)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["tollwire", *(os.fsdecode(bytes.fromhex(argument)) for argument in arguments)]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        if stream > 2:
            os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


if __name__ == "__main__":
    from tollwire.service.cli import main

    _await_fork(socket.socket(fileno=int(sys.argv[1])))
    main.run()
