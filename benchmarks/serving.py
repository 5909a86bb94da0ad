"""Servers in their own processes: ``tollwire serve``, and the servers of the comparison."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.machine import REPOSITORY
from tollwire.service.process.template import WORKER_NAME

START_SECONDS = 600
STOP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A server at ``address``. ``pid`` is its first process; ``line`` is what it printed."""

    address: str
    pid: int
    line: str

    def processes(self) -> list[int]:
        """The processes that serve: the workers if there are several, else the only process."""
        return [worker.pid for worker in worker_processes(self.pid)] or [self.pid]

    def memory_bytes(self) -> int:
        """The memory of all its processes; what several of them share counts once."""
        own = psutil.Process(self.pid)
        return sum(map(_proportional_bytes, (own, *own.children(recursive=True))))

    def peak_memory_bytes(self) -> int:
        """The peak memory of its largest process."""
        return max(peak_memory_bytes(pid) for pid in self.processes())


def _proportional_bytes(process: psutil.Process) -> int:
    """Its memory; of what it shares with others, its part. 0 for one that ends meanwhile."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, FileNotFoundError):
        return 0


def environment() -> dict[str, str]:
    """The environment of the caller, without settings of the service, with the repository
    importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWIRE_")}
    paths = [str(REPOSITORY), str(REPOSITORY / "proto"), kept.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return kept


@contextmanager
def tollwire(database_url: str, *, workers: int = 1, transport: str = "grpcio") -> Iterator[Server]:
    """``tollwire serve`` over a database."""
    command = [
        "tollwire.service.cli.main",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--log-level",
        "WARNING",
    ]
    command += ["--database", database_url, "--workers", str(workers), "--transport", transport]
    with _serving(command) as server:
        yield server


@contextmanager
def peer(kind: str, every: int = 1) -> Iterator[Server]:
    """One of the servers of ``benchmarks.peer``."""
    with _serving(["benchmarks.peer", kind, str(every)]) as server:
        yield server


@contextmanager
def _serving(module: Sequence[str]) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment(),
    )
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        watchdog.cancel()
        found = re.search(r"\bon (\S+:\d+)", line)
        if found is None:
            raise RuntimeError(f"{module[0]} does not serve: {line!r}")
        yield Server(found[1], process.pid, line)
    finally:
        watchdog.cancel()
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()


def peak_memory_bytes(pid: int) -> int:
    """The peak memory of a process; 0 if it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def worker_processes(pid: int) -> list[psutil.Process]:
    """The workers of a server that has several, by their name."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        # One that was listed may have ended.
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == WORKER_NAME:
                found.append(process)
    return found
