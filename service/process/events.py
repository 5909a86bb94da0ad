"""Events for the main thread, from signal handlers and other threads."""

from __future__ import annotations

import queue
import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

_Event = TypeVar("_Event")

# Receives the reason why a server stops.
Stop = queue.SimpleQueue[str]

# The longest that the main thread sleeps in one piece.
SIGNAL_SECONDS = 0.5


def _nothing() -> None:
    pass


def wait_for_event(
    events: queue.SimpleQueue[_Event], beat: Callable[[], None] = _nothing
) -> _Event:
    """Return the next event of a queue. For the main thread. ``beat`` is called each time that the
    thread wakes up.

    Python runs a signal handler in the main thread when that wakes up. A signal that arrives just
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
    """A queue that gets the name of the first SIGTERM or SIGINT. A second one ends the process."""
    # Not an Event: set() in a signal handler can wait for the thread that it interrupted.
    stop: Stop = queue.SimpleQueue()

    def request_stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second signal kills the process
        stop.put(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
    return stop
