"""The messages to systemd: received by a socket that stands in for it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.processes import Process
from tollwire.service.process.systemd import Supervision

SECONDS = 60


class Supervisor:
    """Receives the messages that a server sends to NOTIFY_SOCKET."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SECONDS)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)

    def next(self) -> dict[str, str]:
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def until(self, field: str) -> dict[str, str]:
        while field not in (message := self.next()):
            pass
        return message

    def close(self) -> None:
        self._socket.close()


@contextmanager
def supervised(name: str) -> Iterator[Supervisor]:
    supervisor = Supervisor(name)
    try:
        yield supervisor
    finally:
        supervisor.close()


def abstract_name() -> str:
    return f"@tollwire-test-{secrets.token_hex(8)}"


def serve(url: str, workers: int, **env: str) -> Process:
    options = ("--listen", "127.0.0.1:0", "--database", url, "--workers", str(workers))
    return Process("-m", "tollwire.service.cli.main", "serve", *options, env=env)


@pytest.mark.parametrize(("workers", "is_abstract"), [(1, False), (2, True)])
def test_ready_alive_and_stopping(tmp_path: Path, workers: int, is_abstract: bool) -> None:
    name = abstract_name() if is_abstract else str(tmp_path / "notify")
    url = f"sqlite:///{tmp_path}/x.db"
    with (
        supervised(name) as supervisor,
        serve(url, workers, NOTIFY_SOCKET=name, WATCHDOG_USEC="400000") as server,
    ):
        ready = supervisor.until("READY")
        line = server.output.next() or ""
        assert ready == {"READY": "1", "STATUS": line.removeprefix("tollwire: ")}
        assert line.startswith("tollwire: serving on 127.0.0.1:")
        for _ in range(3):
            assert supervisor.next() == {"WATCHDOG": "1"}
        assert server.terminate() == 0
        stopping = supervisor.until("STOPPING")
        assert stopping["STOPPING"] == "1" and "stopping" in stopping["STATUS"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_status_during_the_start(workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    name = abstract_name()
    url = f"postgresql+psycopg://postgres:secret-word@127.0.0.1:{port}/x"
    with supervised(name) as supervisor, serve(url, workers, NOTIFY_SOCKET=name) as server:
        for _ in range(2):
            message = supervisor.next()
            assert f"waiting for the database at 127.0.0.1:{port}" in message["STATUS"]
            assert "secret-word" not in message["STATUS"]
            assert int(message["EXTEND_TIMEOUT_USEC"]) >= 30_000_000
        assert server.terminate() == 0


def test_nothing_is_sent_without_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    supervision = Supervision()
    supervision.ready("serving")
    supervision.beat()


def test_a_missing_supervisor_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Supervision().ready("serving")


@pytest.mark.parametrize(
    ("env", "beats"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "1"}, 1),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid())}, 1),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
    ],
)
def test_the_watchdog_gets_messages_of_its_own_process(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], beats: int
) -> None:
    for variable in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    name = abstract_name()
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with supervised(name) as supervisor:
        supervision = Supervision()
        supervision.beat()
        supervision.ready("one line\nREADY=0")
        for _ in range(beats):
            assert supervisor.next() == {"WATCHDOG": "1"}
        assert supervisor.next() == {"READY": "1", "STATUS": "one line READY=0"}
