"""The command against a fake server (fast, and it fails on demand) and against a real one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.cli.fake import FakeServer
from tollwire.client import uploads
from tollwire.service.cli.main import main

Tollwire = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes notes about uploads in the user's own folder."""
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    for name in ("SERVER", "TIMEOUT", "TOKEN", "TOKEN_FILE", "INSECURE"):
        monkeypatch.delenv(f"TOLLWIRE_{name}", raising=False)
    return folder


@pytest.fixture(autouse=True)
def heeded_interrupts() -> Iterator[None]:
    """The tests, and the processes that they start, handle SIGINT even if a shell that started them
    in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def tollwire(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Tollwire:
    """Run the command in this process, against the fake server."""
    monkeypatch.setattr(uploads, "FIRST_DELAY_SECONDS", 0.01)

    def run(*arguments: str, server: str = fake.address, **settings: object) -> Result:
        environment = {"TOLLWIRE_SERVER": server}
        return CliRunner().invoke(main, arguments, env=environment, **settings)

    return run


def unused_address() -> str:
    """An address without a server."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
