"""The short form of "make hostile-port", and whether it would find a defect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS
from tests.hostile.port import attacked
from tests.hostile.targets import Target, target

# Servers take long to start if others are tested at the same time.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    path = tmp_path_factory.mktemp("port") / "tollwire.db"
    with target(f"sqlite:///{path}", "open", workers=2) as running:
        yield running


@pytest.mark.parametrize("name", ATTACKS)
def test_calls_are_rated_while_the_port_is_attacked(asked: Target, name: str) -> None:
    attack, much, _ = ATTACKS[name]
    row = attacked(asked, name, attack, much)
    assert row.problem == ""
    assert row.failed == 0 < row.asked


def test_a_server_that_dies_is_detected(tmp_path: Path) -> None:
    with target(f"sqlite:///{tmp_path / 'tollwire.db'}", "open") as one:
        row = attacked(one, "kill", lambda _address, _much: one.server.kill() and None, 1)
        assert one.problems() == ["the server has ended with -9"]
    assert not row.passed
