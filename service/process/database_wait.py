"""Retries the steps of a server's start until the database answers.

A step is retried while the database is unreachable, starts, or accepts no more connections. It is
not retried if the database refuses (service/storage/refusals.py). The cause is logged at once, and
then every few seconds. The wait ends without an error when the process receives a request to stop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tollwire.service.domain.errors import TollwireError, Unavailable, Unwanted
from tollwire.service.domain.request import Request
from tollwire.service.domain.thread_context import handling
from tollwire.service.storage.engine import Database

T = TypeVar("T")

_LOG = logging.getLogger("tollwire.database")

# The pauses between two attempts, and between two log lines.
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 2.0
_LOG_SECONDS = 10.0
# The pause between two checks for a stop of the process.
_CHECK_SECONDS = 0.1


class Stopped(Exception):
    """The process received a request to stop while it waited."""


class DatabaseWaitTimeout(Exception):
    """The database did not answer in time; the text has the cause and the advice."""


def ignore_report(text: str) -> None:
    """For a wait that only logs."""


class DatabaseWait:
    """The wait of one start; all its steps share one time limit. For one thread."""

    def __init__(
        self,
        database: Database,
        limit_seconds: float,
        *,
        is_stopped: Callable[[], bool],
        cause_of: Callable[[Exception], str],
        report: Callable[[str], None] = ignore_report,
    ) -> None:
        """``limit_seconds`` 0: no limit. ``cause_of`` returns the driver's message of a failure.
        ``report`` is called after each failed attempt with the text of the log line."""
        self._database = database
        self._limit_seconds = limit_seconds
        self._is_stopped = is_stopped
        self._cause_of = cause_of
        self._report = report
        self._began: float | None = None
        self._logged_at = 0.0

    def run(self, step: Callable[[], T]) -> T:
        """Return the result of ``step`` as soon as the database answers. Stopped, DatabaseRefused,
        DatabaseWaitTimeout; other errors unchanged."""
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            if self._is_stopped():
                raise Stopped
            try:
                # So that a statement that waits, for example for a lock, ends when the process
                # stops.
                with (
                    self._database.refusals_named(),
                    handling(Request(is_wanted=lambda: not self._is_stopped())),
                ):
                    answer = step()
            except Unwanted:
                raise Stopped from None
            except Unavailable as error:
                self._pause(error, pause_seconds)
                pause_seconds = min(2 * pause_seconds, _MAX_PAUSE_SECONDS)
            else:
                if self._began is not None:
                    waited = time.monotonic() - self._began
                    _LOG.warning("the database answers after %.0f s", waited)
                    self._began = None
                return answer

    def _pause(self, error: TollwireError, seconds: float) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = now
        waited = now - self._began
        where = self._database.where
        cause = self._cause_of(error).strip() or f"({error.message})"
        if self._limit_seconds and waited >= self._limit_seconds:
            raise DatabaseWaitTimeout(
                f"the database at {where} did not answer within {self._limit_seconds:g} s {cause};"
                " start it, correct --database, or raise --database-start-wait-seconds"
            )
        end = (
            f"gives up after {self._limit_seconds:g} s" if self._limit_seconds else "no time limit"
        )
        text = f"waiting for the database at {where}, {waited:.0f} s so far; {end} {cause}"
        self._report(text)
        if not self._logged_at or now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            _LOG.warning("%s", text)
        until = now + seconds
        while time.monotonic() < until and not self._is_stopped():
            time.sleep(_CHECK_SECONDS)
