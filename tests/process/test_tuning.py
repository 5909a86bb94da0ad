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


def test_threads_wait_shortly_and_searches_through_everything_are_rare() -> None:
    tuning.reduce_pauses()
    assert sys.getswitchinterval() == pytest.approx(tuning.SWITCH_SECONDS)
    young, middle, everything = gc.get_threshold()
    assert gc.isenabled()
    # Far more objects than all bulk requests in work at one time have.
    assert young * middle * everything >= 10**8


def test_what_is_there_is_not_searched_again() -> None:
    kept = [[] for _ in range(1000)]  # type: list[list[object]]
    tuning.freeze_loaded_objects()
    assert gc.get_freeze_count() >= len(kept)
    assert len(gc.get_objects()) < len(kept)


def test_a_server_may_open_the_files_that_it_needs(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit here")
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


def test_a_signal_that_does_not_wake_the_main_thread_is_heeded() -> None:
    """It is handed to another thread, as one is lost that comes in a bad moment."""
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
