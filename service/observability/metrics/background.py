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


class BackgroundQuery(Generic[T]):
    """The last result of ``query``. Thread-safe. ``what`` names it in the log: "the unrated
    calls"."""

    def __init__(
        self,
        query: Callable[[], T],
        what: str,
        log: logging.Logger,
        refresh_seconds: float,
    ) -> None:
        self._query = query
        self._what = what
        self._log = log
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._began = -math.inf
        self._found: T | None = None

    def latest(self) -> T | None:
        """The last result; None before the first. Does not wait: if the result is too old, the
        query starts in the background."""
        with self._lock:
            if time.monotonic() - self._began >= self._refresh_seconds:
                self._began = time.monotonic()
                threading.Thread(target=self._refresh, name="background", daemon=True).start()
            return self._found

    def _refresh(self) -> None:
        try:
            found = self._query()
        except TollwireError as error:
            self._log.warning("cannot read %s now (%s); will retry", self._what, error.reason)
            return
        except Exception:
            self._log.exception("cannot read %s; will retry", self._what)
            return
        with self._lock:
            self._found = found
