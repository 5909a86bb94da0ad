"""native.c, compiled at its first use and called through ctypes, which releases the GIL."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import REPOSITORY

if TYPE_CHECKING:  # the program under callgrind starts without these
    from benchmarks.workload import RealCalls

SOURCE = Path(__file__).with_name("native.c")
VALGRIND_HEADER = Path("/usr/include/valgrind/callgrind.h")
LINE_BYTES = 64


@functools.cache
def library() -> ctypes.CDLL:
    target = REPOSITORY / "build" / "benchmarks" / "native.so"
    if not target.exists() or target.stat().st_mtime < SOURCE.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        options = ["-O2", "-shared", "-fPIC", *(["-DWITH_VALGRIND"] * VALGRIND_HEADER.exists())]
        subprocess.run(["cc", *options, "-o", str(target), str(SOURCE)], check=True)
    loaded = ctypes.CDLL(str(target))
    for name in ("dependent_loads", "independent_loads", "pass_through"):
        getattr(loaded, name).restype = ctypes.c_uint64
    return loaded


class Lines:
    """A number of cache lines (a power of two), linked as one random cycle."""

    def __init__(self, lines: int) -> None:
        self.count = lines
        self._words = (ctypes.c_uint64 * (lines * LINE_BYTES // 8))()
        library().make_cycle(self._words, ctypes.c_uint64(lines))

    def dependent_ns(self, loads: int) -> float:
        """Nanoseconds of a load that depends on the one before."""
        return _ns(lambda: library().dependent_loads(self._words, ctypes.c_uint64(loads)), loads)

    def independent_ns(self, loads: int) -> float:
        """Nanoseconds of an independent load."""
        arguments = (self._words, ctypes.c_uint64(self.count), ctypes.c_uint64(loads))
        return _ns(lambda: library().independent_loads(*arguments), loads)


def pass_through_ns(calls: RealCalls) -> float:
    """Nanoseconds a call of a batch without look-ups."""
    count = len(calls)
    offsets = (ctypes.c_int64 * (count + 1)).from_buffer(calls.offsets)
    starts = (ctypes.c_int64 * count).from_buffer(calls.started_at_ns)
    rows, lengths = (ctypes.c_int32 * count)(), (ctypes.c_uint8 * count)()
    return _ns(
        lambda: library().pass_through(
            calls.text, offsets, starts, ctypes.c_uint64(count), rows, lengths
        ),
        count,
    )


def _ns(work: Callable[[], object], per: int) -> float:
    work()
    started = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - started) / per
