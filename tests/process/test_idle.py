"""A server without work sleeps: its threads, grpc's among them, wake up a few times a second."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.serving import ServerProcess
from tests.rpc.transports import TRANSPORTS

_SECONDS = 3.0
_SLEPT = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)
# 17 when this was written, 12 of them by grpc. A thread that polls every 20 ms adds 50.
_WAKE_UPS_A_SECOND = 40


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_idle_server_sleeps(database_url: str, transport: str) -> None:
    with ServerProcess(database_url, workers=1, TOLLWIRE_TRANSPORT=transport) as server:
        time.sleep(1.0)  # the end of its start
        first = psutil.Process(server.process.pid)
        pids = [first.pid, *(process.pid for process in first.children(recursive=True))]
        before = sum(map(_wake_ups, pids))
        began = time.monotonic()
        time.sleep(_SECONDS)
        wake_ups = sum(map(_wake_ups, pids)) - before
        assert 0 < wake_ups / (time.monotonic() - began) < _WAKE_UPS_A_SECOND


def _wake_ups(pid: int) -> int:
    """How often a thread of the process has slept so far."""
    return sum(
        int(_SLEPT.findall((task / "status").read_text())[0])
        for task in Path(f"/proc/{pid}/task").iterdir()
    )
