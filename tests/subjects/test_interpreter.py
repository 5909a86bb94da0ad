"""The interpreter's settings for a server."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from service import interpreter


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    seconds, searches = sys.getswitchinterval(), gc.get_threshold()
    yield
    gc.unfreeze()
    sys.setswitchinterval(seconds)
    gc.set_threshold(*searches)


def test_threads_wait_shortly_and_searches_through_everything_are_rare() -> None:
    interpreter.favour_short_waits()
    assert sys.getswitchinterval() == pytest.approx(interpreter.SWITCH_SECONDS)
    young, middle, everything = gc.get_threshold()
    assert gc.isenabled()
    # Far more objects than all bulk requests in work at one time have.
    assert young * middle * everything >= 10**8


def test_what_is_there_is_not_searched_again() -> None:
    kept = [[] for _ in range(1000)]  # type: list[list[object]]
    interpreter.keep_what_is_there()
    assert gc.get_freeze_count() >= len(kept)
    assert len(gc.get_objects()) < len(kept)
