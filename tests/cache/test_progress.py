"""The progress that workers share: which workers are waited for, and for how long."""

from __future__ import annotations

import threading
import time

import pytest

from tollwire.service.cache.worker_progress import VARIABLE, Progress, of_this_worker, shared


def wanted() -> bool:
    return True


def test_all_serving_workers_are_waited_for() -> None:
    with shared(3) as memory:
        parent = Progress(memory.fileno())
        one, other = Progress(memory.fileno(), 0), Progress(memory.fileno(), 1)
        one.report(5)
        # The others do not serve.
        assert one.wait(5, 10, wanted)
        other.report(4)
        timer = threading.Timer(0.1, other.report, (5,))
        timer.start()
        assert one.wait(5, 10, wanted)
        timer.join()
        # 0 is a valid value.
        other.report(0)
        assert not one.wait(6, 0.01, wanted)
        parent.clear(1)
        assert one.wait(6, 0.01, wanted)


def test_a_hanging_worker_is_waited_for_once() -> None:
    with shared(2) as memory:
        one, other = Progress(memory.fileno(), 0), Progress(memory.fileno(), 1)
        other.report(1)
        assert not one.wait(2, 0.05, wanted)
        began = time.monotonic()
        assert not one.wait(3, 10, wanted)
        assert time.monotonic() - began < 5
        # It makes progress again, so it is waited for again.
        other.report(2)
        timer = threading.Timer(0.1, other.report, (4,))
        timer.start()
        assert one.wait(4, 10, wanted)
        timer.join()


def test_the_wait_ends_with_its_client() -> None:
    with shared(2) as memory:
        one, other = Progress(memory.fileno(), 0), Progress(memory.fileno(), 1)
        other.report(1)
        began = time.monotonic()
        assert not one.wait(2, 60, lambda: False)
        assert time.monotonic() - began < 5


def test_a_worker_finds_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_this_worker() is None
    with shared(2) as memory:
        monkeypatch.setenv(VARIABLE, f"1:{memory.fileno()}")
        worker = of_this_worker()
        assert worker is not None
        worker.report(7)
        assert list(memoryview(memory.read()).cast("q")) == [0, 8]
        assert of_this_worker() is None
