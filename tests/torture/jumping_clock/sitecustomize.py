"""A clock that jumps, for every Python process that starts with this folder on its path: like
libfaketime, where that is installed.

Python imports a module of this name at its start. Only the time of day jumps; a monotonic clock is
not affected. TORTURE_CLOCK_SEED determines the jumps.
"""

import os
import random
import time
from types import SimpleNamespace

import grpc._server

_HOUR_NS = 3600 * 10**9
_YEAR_NS = 8766 * _HOUR_NS
# By a leap second, to and from daylight saving time, after a dead battery, a mistyped year.
_JUMPS_NS = (0, 10**9, -(10**9), _HOUR_NS, -_HOUR_NS, -10 * _YEAR_NS, 73 * _YEAR_NS)
_CHANCE = 0.2

_real_time = time.time
_real_time_ns = time.time_ns
_draw = random.Random(os.environ["TORTURE_CLOCK_SEED"])
_offset_ns = 0


def _time_ns() -> int:
    global _offset_ns
    now_ns = _real_time_ns()
    if _draw.random() < _CHANCE:
        # Back to the beginning of every clock, or off by one of the usual distances.
        _offset_ns = _draw.choice((*_JUMPS_NS, 10**9 - now_ns))
    return now_ns + _offset_ns


time.time_ns = _time_ns
time.time = lambda: _time_ns() / 10**9

# Here a deadline is compared with a time of day that grpc's core has read from its own clock, which
# is not Python's and does not jump.
setattr(grpc._server, "time", SimpleNamespace(time=_real_time))  # noqa: B010
