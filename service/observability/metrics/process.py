"""The resources that this process uses: memory, threads, files, processor time.

From /proc where there is one; elsewhere only what Python itself knows.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

_PROC = Path("/proc/self")
# This module is loaded when the process begins, give or take a second.
_STARTED_AT_SECONDS = time.time()


def process_gauges() -> dict[str, float]:
    """By the names of service/observability/metrics/gauges, without "tollwire_process_"."""
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
        # The listing itself has one open.
        found["open_fds"] = float(sum(1 for _ in (_PROC / "fd").iterdir()) - 1)
    except OSError:
        pass
    return found
