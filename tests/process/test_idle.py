"""A server without work sleeps: its threads, grpc's among them, wake up a few times a second."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.integration.serving import ServerProcess

_SECONDS = 3.0
_SLEPT = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)
# 17 when this was written, 12 of them by grpc. A thread that polls every 20 ms adds 50.
_WAKE_UPS_A_SECOND = 40


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_server_sleeps(database_url: str) -> None:
    with ServerProcess(database_url, workers=1) as server:
        time.sleep(1.0)  # the end of its start
        before = _wake_ups(server.process.pid)
        began = time.monotonic()
        time.sleep(_SECONDS)
        wake_ups = _wake_ups(server.process.pid) - before
        assert 0 < wake_ups / (time.monotonic() - began) < _WAKE_UPS_A_SECOND


def _wake_ups(pid: int) -> int:
    """How often a thread of the process has slept so far."""
    return sum(
        int(_SLEPT.findall((task / "status").read_text())[0])
        for task in Path(f"/proc/{pid}/task").iterdir()
    )
