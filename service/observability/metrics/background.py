"""Slow queries for metrics, run in the background.

A reader gets the last result and does not wait. A query runs only when its result is read, and at
most once in a given number of seconds.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from tollwire.service.domain.errors import TollwireError

T = TypeVar("T")


class Background(Generic[T]):
    """The last answer of ``ask``. Thread-safe. ``what`` is asked for, in the words of the log: "the
    unrated calls"."""

    def __init__(
        self,
        ask: Callable[[], T],
        what: str,
        log: logging.Logger,
        refresh_seconds: float,
    ) -> None:
        self._ask = ask
        self._what = what
        self._log = log
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._began = -math.inf
        self._found: T | None = None

    def look(self) -> T | None:
        """As of a while ago; None where nothing is known yet. Waits for nothing: what is too old is
        asked for, and there the next time."""
        with self._lock:
            if time.monotonic() - self._began >= self._refresh_seconds:
                self._began = time.monotonic()
                threading.Thread(target=self._refresh, name="background", daemon=True).start()
            return self._found

    def _refresh(self) -> None:
        try:
            found = self._ask()
        except TollwireError as error:
            self._log.warning("%s cannot be looked at now (%s); later", self._what, error.reason)
            return
        except Exception:
            self._log.exception("%s cannot be looked at; later", self._what)
            return
        with self._lock:
            self._found = found
