"""Real servers for the integration and contract tests: `tollwire serve` in its own processes.

Depends only on the service's command line and on the line that it prints when it serves.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 60
# The transport of servers whose test does not choose one.
TRANSPORT = os.environ.get("TOLLWIRE_TEST_TRANSPORT", "grpcio")
# The access of servers whose test does not choose one. Tests create tokens and send none.
ACCESS = "open"
STOP_SECONDS = 30
ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")


class ServerProcess:
    """One `tollwire serve`: ``address`` is where it listens, ``log()`` is its stderr."""

    def __init__(
        self, database_url: str, *, workers: int = 1, listen: str = "127.0.0.1:0", **env: str
    ) -> None:
        self.database_url = database_url
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in stop()
        self.process = subprocess.Popen(
            [
                *[sys.executable, "-m", "tollwire.service.cli.main", "serve"],
                *["--listen", listen, "--database", database_url, "--workers", str(workers)],
            ],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment() | {"TOLLWIRE_TRANSPORT": TRANSPORT, "TOLLWIRE_ACCESS": ACCESS} | env,
            text=True,
            start_new_session=True,
        )
        self.first_line = ""
        try:
            self.address = self._await_address()
        except BaseException:
            self.kill()
            self._errors.close()
            raise

    def _await_address(self) -> str:
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        try:
            assert self.process.stdout is not None
            self.first_line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        found = ADDRESS.search(self.first_line)
        if found is None or found[1] == "0":
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"no address in {self.first_line!r}; the server says: {self.log()}")
        return f"127.0.0.1:{found[1]}"

    def log(self) -> str:
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def log_bytes(self) -> int:
        return os.fstat(self._errors.fileno()).st_size

    def terminate(self) -> int:
        """Send SIGTERM and wait; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._leave()

    def kill(self) -> int:
        """SIGKILL to the process and its workers, like a crash."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self._leave()

    def _leave(self) -> int:
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise RuntimeError(f"the server did not stop; its log: {self.log()}") from None
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.terminate()
        self._errors.close()


def environment() -> dict[str, str]:
    """The environment of the caller, without settings of the service, with the repository
    importable."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWIRE_")}
    paths = [str(REPOSITORY), str(REPOSITORY / "proto"), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return env


@contextlib.contextmanager
def serving(database_url: str, *, workers: int = 1) -> Iterator[ServerProcess]:
    with ServerProcess(database_url, workers=workers) as server:
        yield server
