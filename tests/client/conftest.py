"""Servers for the client's tests: a real one, and the fake of the command's tests, which fails on
demand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.fake import FakeServer
from tests.integration.serving import ServerProcess, serving
from tollwire.client import uploads


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that the tests share. Each works in tenants of its own."""
    with serving(f"sqlite:///{tmp_path_factory.mktemp('client') / 'tollwire.db'}") as running:
        yield running


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr(uploads, "FIRST_DELAY_SECONDS", 0.01)
    running = FakeServer()
    yield running
    running.stop()
