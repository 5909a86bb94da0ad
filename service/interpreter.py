"""The Python interpreter as a server wants it: threads wait shortly for each other and for garbage.

For processes that serve; it knows nothing of what they serve.
"""

from __future__ import annotations

import gc
import sys

# How long a thread may keep the interpreter's lock while others wait for it. An RPC changes threads
# a few times, and with Python's own 5 ms each change may wait so long behind a bulk request.
SWITCH_SECONDS = 0.0005

# Garbage in cycles is looked for among young objects after so many new ones, among older ones after
# so many such searches, and among all after so many of those. A search stops all threads. The young
# take less than a millisecond, all of them with their decks and bulk requests near 100 ms.
_SEARCHES = (10_000, 10, 1_000)


def favour_short_waits() -> None:
    """Before anything is loaded."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*_SEARCHES)


def keep_what_is_there() -> None:
    """After everything is loaded: what is there now is never again searched for garbage."""
    gc.collect()
    gc.freeze()
