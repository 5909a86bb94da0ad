"""PgBouncer before a PostgreSQL of the tests: transactions change sessions as often as possible."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psycopg

from benchmarks.postgres_server import PostgresServer

_ROOT = Path(__file__).resolve().parents[2]
PROGRAM = shutil.which("pgbouncer", path=f"{_ROOT}/.tools/bin:/usr/sbin:/usr/bin:/usr/local/bin")
_SECONDS = 20


class PgBouncer:
    """Listen on a free port of 127.0.0.1 until the end of the ``with`` block."""

    def __init__(
        self,
        postgres: PostgresServer,
        mode: str = "transaction",
        sessions: int = 4,
        **settings: str,
    ) -> None:
        assert PROGRAM is not None
        self._folder = Path(tempfile.mkdtemp(prefix="tollwire-pgb-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        users = self._folder / "users.txt"
        users.write_text('"postgres" ""\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(users),
            "pool_mode": mode,
            "default_pool_size": str(sessions),
            "max_client_conn": "500",
            # Each transaction uses the session that was idle for longest: another one as often as
            # possible.
            "server_round_robin": "1",
            **settings,
        }
        if os.geteuid() == 0:  # PgBouncer does not run as root
            settings["user"] = postgres.socket.owner()
        config = self._folder / "pgbouncer.ini"
        lines = [f"{name} = {value}" for name, value in settings.items()]
        host = postgres.socket.parent
        config.write_text(
            f"[databases]\n* = host={host} port=5432\n[pgbouncer]\n" + "\n".join(lines) + "\n"
        )
        for path in (self._folder, users, config):
            path.chmod(0o755)
        self._log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [PROGRAM, str(config)], stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def _await(self) -> None:
        until = time.monotonic() + _SECONDS
        while True:
            try:
                with psycopg.connect(
                    host="127.0.0.1", port=self.port, user="postgres", dbname="postgres"
                ):
                    return
            except psycopg.OperationalError as error:
                text = (self._folder / "log").read_text()
                assert self._process.poll() is None, text
                assert time.monotonic() < until, f"{error}\n{text}"
                time.sleep(0.05)

    def url(self, name: str, password: str = "x") -> str:
        return f"postgresql+psycopg://postgres:{password}@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(_SECONDS)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> PgBouncer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
