"""The short form of "make hostile-port", and whether it would find a defect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS, compressed_bombs, undecodable_metadata
from tests.hostile.port import SETTINGS, attacked
from tests.hostile.targets import Target, target
from tests.rpc.transports import TRANSPORTS, needs_native

# Servers take long to start if others are tested at the same time.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", params=TRANSPORTS)
def asked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    path = tmp_path_factory.mktemp("port") / "tollwire.db"
    with target(f"sqlite:///{path}", "open", workers=2, **SETTINGS[request.param]) as running:
        yield running


@pytest.mark.parametrize("name", ATTACKS)
def test_calls_are_rated_while_the_port_is_attacked(asked: Target, name: str) -> None:
    attack, much, _ = ATTACKS[name]
    row = attacked(asked, name, attack, much)
    assert row.problem == ""
    assert row.failed == 0 < row.asked


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_metadata_is_decoded_before_the_token_is_checked(tmp_path: Path, transport: str) -> None:
    """Nobody needs a token to send it. It costs little, and writes few lines."""
    settings = SETTINGS[transport]
    with target(f"sqlite:///{tmp_path / 'tollwire.db'}", "tokens", **settings) as one:
        row = attacked(one, "metadata", undecodable_metadata, 100)
    assert (row.problem, row.failed) == ("", 0)


@needs_native
def test_a_native_worker_that_unpacks_too_much_is_replaced(tmp_path: Path) -> None:
    """Its process ends before it holds what a client sends."""
    settings = SETTINGS["native"]
    with target(f"sqlite:///{tmp_path / 'tollwire.db'}", "open", **settings) as one:
        row = attacked(one, "bombs", compressed_bombs, 600)
        log = one.server.log()
    assert (row.problem, row.failed) == ("", 0)
    assert "closing all connections" in log
    assert row.growth_bytes < 300 * 2**20


def test_a_server_that_dies_is_detected(tmp_path: Path) -> None:
    with target(f"sqlite:///{tmp_path / 'tollwire.db'}", "open") as one:
        row = attacked(one, "kill", lambda _address, _much: one.server.kill() and None, 1)
        assert one.problems() == ["the server has ended with -9"]
    assert not row.passed
