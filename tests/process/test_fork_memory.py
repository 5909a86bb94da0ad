"""Memory that forked processes share."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from benchmarks.serving import worker_processes
from tests.integration.serving import ServerProcess

_IN_NEW_PAGES = """
import gc, sys
from tollwire.service.process import fork_memory

def make(size):
    return bytes(size - sys.getsizeof(b""))

SIZES = [48, 96, 200, 512, 700, 1000, 3000]
kept = [[make(size) for _ in range(4000)] for size in SIZES]
pages = {id(one) // 4096 for of_size in kept for one in of_size}
for of_size in kept:
    del of_size[::2]  # a free place between any two
fork_memory.prepare()
assert gc.get_freeze_count() > 1000
new = [make(size) for size in SIZES for _ in range(200)]
shared = sum(id(one) // 4096 in pages for one in new)
print(shared, len(new))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="depends on the C library")
def test_new_objects_get_pages_of_their_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IN_NEW_PAGES],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shared, count = map(int, done.stdout.split())
    assert shared < count / 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_shares_most_of_its_memory(database_url: str) -> None:
    with ServerProcess(database_url, workers=2) as server:
        for worker in worker_processes(server.process.pid):
            memory = psutil.Process(worker.pid).memory_full_info()
            # 0.13 when this was written; 0.25 with objects in free places between older ones.
            assert memory.uss / memory.rss < 0.19
