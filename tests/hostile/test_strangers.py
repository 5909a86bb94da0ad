"""The short form of the second part of "make hostile-port"."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.port import SETTINGS
from tests.hostile.strangers import free_port, measured
from tests.hostile.targets import target
from tests.rpc.transports import TRANSPORTS

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_connections_without_a_token_keep_nobody_out(tmp_path: Path, transport: str) -> None:
    health_address = f"127.0.0.1:{free_port()}"
    settings = {
        **SETTINGS[transport],
        "TOLLWIRE_HEALTH_LISTEN": health_address,
        "TOLLWIRE_MAX_CONNECTIONS": "100",
    }
    with target(f"sqlite:///{tmp_path / 'tollwire.db'}", "tokens", **settings) as asked:
        row = measured(asked, 100, health_address, 3)
        log = asked.server.log()
        assert asked.problems() == []
    assert row.passed, row.said()
    assert "closed to protect others" in log
