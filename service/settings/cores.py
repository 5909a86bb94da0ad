"""The number of processor cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores(quota: Path = _QUOTA) -> int:
    """The cores to which the process is bound, or fewer if its control group has a smaller share of
    processor time, rounded up. ``quota``: the file of the group."""
    cores = len(os.sched_getaffinity(0))
    try:
        # Microseconds of each period; "max" without a limit.
        limit, period = quota.read_text("ascii").split()
        return max(1, min(cores, -(-int(limit) // int(period))))
    except (OSError, ValueError, ZeroDivisionError):
        return cores
