"""The interpreter's settings for a server."""

from __future__ import annotations

import gc
import logging
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tollwire.service.process import tuning


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    seconds, searches = sys.getswitchinterval(), gc.get_threshold()
    yield
    gc.unfreeze()
    sys.setswitchinterval(seconds)
    gc.set_threshold(*searches)


def test_thread_switches_are_short_and_full_collections_rare() -> None:
    tuning.reduce_pauses()
    assert sys.getswitchinterval() == pytest.approx(tuning.SWITCH_SECONDS)
    young, middle, everything = gc.get_threshold()
    assert gc.isenabled()
    # Many more objects than those of all bulk requests in progress at one time.
    assert young * middle * everything >= 10**8


def test_existing_objects_are_not_collected_again() -> None:
    kept = [[] for _ in range(1000)]  # type: list[list[object]]
    tuning.freeze_loaded_objects()
    assert gc.get_freeze_count() >= len(kept)
    assert len(gc.get_objects()) < len(kept)


def test_a_server_raises_its_limit_of_files(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this system has no limit")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        tuning.raise_file_limit(200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, hard)
        tuning.raise_file_limit(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
        assert caplog.records == []
        tuning.raise_file_limit(hard + 1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert [line.levelno for line in caplog.records] == [logging.WARNING]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_signal_that_does_not_wake_the_main_thread_is_handled() -> None:
    """Another thread receives it, like one that arrives at a bad moment."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            """
import os, queue, signal, threading, time
from tollwire.service.process import events
stop = queue.SimpleQueue()
signal.signal(signal.SIGTERM, lambda number, frame: stop.put(number))
def send():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
threading.Thread(target=send).start()
assert events.wait_for_event(stop) == signal.SIGTERM
""",
        ],
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
