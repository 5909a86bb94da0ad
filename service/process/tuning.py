"""Tunes the Python process of a server: thread switches, garbage collection, open files.

Must not depend on what the process serves.
"""

from __future__ import annotations

import gc
import logging
import resource
import sys

_LOG = logging.getLogger("tollwire")

# The time after which a thread releases the GIL for a waiting thread. An RPC switches threads a few
# times. With Python's default of 5 ms, each switch can wait 5 ms for a bulk request.
SWITCH_SECONDS = 0.0005

# The thresholds of the three generations of the garbage collector: the number of new objects before
# a collection of the youngest generation, and the number of collections of a generation before one
# of the next. A collection stops all threads: for less than a millisecond for the youngest
# generation, for nearly 100 ms for all objects including decks and bulk requests.
_GC_THRESHOLDS = (10_000, 10, 1_000)


def reduce_pauses() -> None:
    """Switch threads more often, and collect garbage less often. Call before loading data."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*_GC_THRESHOLDS)


def freeze_loaded_objects() -> None:
    """Exclude all existing objects from garbage collection. Call after loading data."""
    gc.collect()
    gc.freeze()


def raise_file_limit(count: int) -> None:
    """Raise the limit of open files and connections to ``count``, as far as the system allows. The
    soft limit is often 1,024, the hard limit far higher."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < count:
            _LOG.warning(
                "the limit of open files is %d, but the server can need %d; raise the hard limit",
                allowed,
                count,
            )
