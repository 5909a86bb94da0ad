"""Processes of the tests: started, read line by line, and always ended."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Self

import psutil

from benchmarks.serving import worker_processes
from tests.rpc.running import DEADLINE_SECONDS

REPOSITORY = Path(__file__).resolve().parents[2]


class Process:
    """A Python module or program with its lines of output; ends with the ``with`` block."""

    def __init__(
        self, *arguments: str, env: Mapping[str, str] | None = None, asked: bool = False
    ) -> None:
        """``asked``: its standard input is open for writing."""
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto")])
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE if asked else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.output = _lines_of(self.process.stdout)
        self.errors = _lines_of(self.process.stderr)

    @property
    def pid(self) -> int:
        return self.process.pid

    def workers(self) -> list[psutil.Process]:
        return worker_processes(self.pid)

    def ask(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(2 * DEADLINE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The process group: also children that outlived their parent.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_SECONDS)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Lines:
    """Lines in order; ``None`` at the end."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = False

    def next(self) -> str | None:
        if self._ended:
            return None
        line = self.queue.get(timeout=2 * DEADLINE_SECONDS)
        self._ended = line is None
        return line

    def rest(self) -> list[str]:
        return list(self._until_the_end())

    def _until_the_end(self) -> Iterator[str]:
        while (line := self.next()) is not None:
            yield line


def _lines_of(file: IO[str]) -> Lines:
    lines = Lines()

    def read() -> None:
        # The file is closed concurrently if the process is killed in the middle of a test.
        with contextlib.suppress(ValueError):
            for line in file:
                lines.queue.put(line.rstrip("\n"))
        lines.queue.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 2 * DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
