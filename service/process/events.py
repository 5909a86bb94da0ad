"""Events for the main thread, from signal handlers and other threads."""

from __future__ import annotations

import queue
import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

_Event = TypeVar("_Event")

# A queue that receives the reason why a server stops.
Stop = queue.SimpleQueue[str]

# The longest sleep of the main thread.
SIGNAL_SECONDS = 0.5


def _nothing() -> None:
    pass


def wait_for_event(
    events: queue.SimpleQueue[_Event], beat: Callable[[], None] = _nothing
) -> _Event:
    """Return the next event of a queue. Call from the main thread. ``beat`` is called each time the
    thread wakes up.

    Python runs signal handlers in the main thread when it wakes up. A signal that arrives just
    before the wait, or that the system delivers to another thread, does not wake it: a get()
    without a timeout would never return.
    """
    while True:
        beat()
        try:
            return events.get(timeout=SIGNAL_SECONDS)
        except queue.Empty:
            continue


def stop_on_signals() -> Stop:
    """A queue that receives the name of the first SIGTERM or SIGINT. A second signal kills the
    process."""
    # Not an Event: in a signal handler, set() can wait for the thread that it has interrupted.
    stop: Stop = queue.SimpleQueue()

    def request_stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second signal kills the process
        stop.put(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
    return stop
