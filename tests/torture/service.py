"""A server that is killed and started again, on one port, over one database.

Depends only on the service's command line and on its processes.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.integration.client import Client
from tests.integration.serving import ServerProcess

# The time that a partly killed server may take to be complete again, or ended.
PATIENCE_SECONDS = 60
# For an export of everything, an upload of a million records, a flood.
LONGEST_SECONDS = 900
# Below the ports that systems give to clients: a free port of the server must not be taken by the
# client that waits for it.
_PORTS = range(20_000, 32_000)
# The name of a worker process.
_WORKER = "tollwire-worker"


class Service:
    """``kills`` and ``restarts`` as they happened; ``address`` stays the same."""

    def __init__(self, database_url: str, workers: int, **env: str) -> None:
        self.kills = 0
        self.restarts = 0
        self.address = f"127.0.0.1:{_free_port()}"
        self._url = database_url
        self._workers = workers
        self._env = env
        self._logs: list[str] = []
        self._server = self._start()

    def _start(self) -> ServerProcess:
        return ServerProcess(self._url, workers=self._workers, listen=self.address, **self._env)

    def kill_all(self) -> None:
        """SIGKILL to the parent and all workers at once."""
        self.kills += 1
        self._server.kill()
        self._end()

    def kill_worker(self, draw: random.Random) -> None:
        """SIGKILL to one worker, which the parent replaces; returns after the replacement."""
        if self._workers == 1:
            self.kill_all()
            self.restart()
            return
        victims = self.workers()
        self.kills += 1
        victim = draw.choice(victims)
        os.kill(victim, signal.SIGKILL)
        await_(lambda: len(self.workers()) == self._workers and victim not in self.workers())
        self.restarts += 1

    def kill_parent(self) -> None:
        """SIGKILL to the parent alone; returns when its workers, which detect it, have ended."""
        orphans = self.workers()
        self.kills += 1
        os.kill(self._server.process.pid, signal.SIGKILL)
        self._server.process.wait(PATIENCE_SECONDS)
        await_(lambda: not any(alive(pid) for pid in orphans), "the end of the workers")
        self._server.kill()  # all have ended: this closes the parent's files
        self._end()

    def restart(self) -> None:
        self._server = self._start()
        self.restarts += 1

    def processes(self) -> list[int]:
        """The processes that serve clients."""
        return self.workers() if self._workers > 1 else [self._server.process.pid]

    def workers(self) -> list[int]:
        """The workers, which a child of the parent has forked."""
        found = list(_processes())
        parent = self._server.process.pid
        children = {one.pid for one in found if one.parent == parent}
        return [one.pid for one in found if one.name == _WORKER and one.parent in children]

    def peak_bytes(self) -> int:
        """The peak memory of any process at any time (VmHWM)."""
        return max(map(_peak_bytes, self.processes()))

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        code = self._server.terminate()
        self._end()
        return code

    def defects(self) -> list[str]:
        """The methods that failed with a defect, according to the servers' logs."""
        logs = [*self._logs, self._server.log()] if self._running() else self._logs
        return re.findall(r"\S+: defect$", "\n".join(logs), re.MULTILINE)

    def _running(self) -> bool:
        return self._server.process.poll() is None

    def _end(self) -> None:
        self._logs.append(self._server.log())
        with self._server:
            pass  # closes its files

    def close(self) -> None:
        if self._running():
            self._server.kill()
            self._end()


@contextlib.contextmanager
def service(database_url: str, workers: int = 2, **env: str) -> Iterator[Service]:
    running = Service(database_url, workers, **env)
    try:
        yield running
    finally:
        running.close()


def patient(address: str) -> Client:
    """A client that waits for long responses."""
    return Client(address, LONGEST_SECONDS)


def await_(
    condition: Callable[[], bool], what: str = "the server", seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait for ``what``; TimeoutError after this number of seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took more than {seconds} s")
        time.sleep(0.02)


def _free_port() -> int:
    draw = random.Random()
    while True:
        port = draw.choice(_PORTS)
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port


class _Process(NamedTuple):
    pid: int
    parent: int
    name: str


def _processes() -> Iterator[_Process]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                named, _, rest = (folder / "stat").read_text().rpartition(")")
                state, parent, *_ = rest.split()
                if state != "Z":
                    yield _Process(int(folder.name), int(parent), named.partition("(")[2])


def alive(pid: int) -> bool:
    return any(pid == one.pid for one in _processes())


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
