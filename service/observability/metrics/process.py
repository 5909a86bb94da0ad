"""The resources that this process uses: memory, threads, files, processor time.

Read from /proc if it exists, else only what Python offers.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

_PROC = Path("/proc/self")
# This module is loaded within about a second of the start of the process.
_STARTED_AT_SECONDS = time.time()


def process_gauges() -> dict[str, float]:
    """Values by the names of the metrics in gauges.py without "tollwire_process_"."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "open_fds_limit": float("inf") if soft_limit == resource.RLIM_INFINITY else soft_limit,
        "start_time_seconds": _STARTED_AT_SECONDS,
        "threads": float(threading.active_count()),
    }
    try:
        pages = int((_PROC / "statm").read_text("ascii").split()[1])
        found["resident_bytes"] = float(pages * os.sysconf("SC_PAGE_SIZE"))
        found["threads"] = float(sum(1 for _ in (_PROC / "task").iterdir()))
        # The listing itself has one file open.
        found["open_fds"] = float(sum(1 for _ in (_PROC / "fd").iterdir()) - 1)
    except OSError:
        pass
    return found
