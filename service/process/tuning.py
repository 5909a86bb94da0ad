"""The process as a server wants it: threads wait shortly for each other and for garbage, signals
are heeded, and there are files enough.

For processes that serve; it knows nothing of what they serve.
"""

from __future__ import annotations

import gc
import logging
import queue
import resource
import sys
from collections.abc import Callable
from typing import TypeVar

_Event = TypeVar("_Event")

_LOG = logging.getLogger("tollwire")

# How long a thread may keep the interpreter's lock while others wait for it. An RPC changes threads
# a few times, and with Python's own 5 ms each change may wait so long behind a bulk request.
SWITCH_SECONDS = 0.0005

# Garbage in cycles is looked for among young objects after so many new ones, among older ones after
# so many such searches, and among all after so many of those. A search stops all threads. The young
# take less than a millisecond, all of them with their decks and bulk requests near 100 ms.
_SEARCHES = (10_000, 10, 1_000)

# The longest that the main thread sleeps in one piece.
SIGNAL_SECONDS = 0.5


def reduce_pauses() -> None:
    """Before anything is loaded."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*_SEARCHES)


def freeze_loaded_objects() -> None:
    """After everything is loaded: what is there now is never again searched for garbage."""
    gc.collect()
    gc.freeze()


def _nothing() -> None:
    pass


def next_event(events: queue.SimpleQueue[_Event], beat: Callable[[], None] = _nothing) -> _Event:
    """Waits in the main thread for what signal handlers, among others, put into a queue.
    ``beat`` is called each time that the thread wakes up.

    Python runs a handler in the main thread, once that wakes up. A signal that comes while it is on
    its way into the wait, or that the system hands to another thread, does not wake it: a plain
    get() then never returns.
    """
    while True:
        beat()
        try:
            return events.get(timeout=SIGNAL_SECONDS)
        except queue.Empty:
            continue


def raise_file_limit(count: int) -> None:
    """Lets this process have so many files and connections open, as far as the system lets it: the
    limit that it starts with is often 1,024, and the one that it may choose far higher."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < count:
            _LOG.warning("only %d files may be open, and %d may be needed", allowed, count)
