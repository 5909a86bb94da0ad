"""The number of unrated CDRs and the start of the oldest, for the metrics.

Counting many of them is slow. So the query runs in the background, at most once a minute, only when
the result is read, and counts a limited number of calls.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from tollwire.service.domain.model import UnratedReason
from tollwire.service.domain.thread_context import Work
from tollwire.service.observability.metrics.background import BackgroundQuery
from tollwire.service.storage import unrated
from tollwire.service.storage.engine import Database

REFRESH_SECONDS = 60.0
MAX_COUNTED = 50_000

_LOG = logging.getLogger("tollwire.backlog")


@dataclass(frozen=True, slots=True)
class UnratedCount:
    """The number of calls, and the start of the earliest; 0 and 0 if there are none."""

    calls: int = 0
    oldest_started_at_ns: int = 0


class Backlog:
    """The unrated calls of one database. Thread-safe."""

    def __init__(self, database: Database, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._database = database
        self._background = BackgroundQuery(self._query, "the unrated calls", _LOG, refresh_seconds)

    def latest(self) -> Mapping[str, UnratedCount] | None:
        """The last result, by the names of the reasons; None before the first. Does not wait."""
        return self._background.latest()

    def _query(self) -> Mapping[str, UnratedCount]:
        with self._database.read(work=Work.LOOK) as connection:
            rows = unrated.summary(connection, MAX_COUNTED)
        found = {reason.name: UnratedCount() for reason in UnratedReason}
        for reason, calls, oldest_started_at_ns in rows:
            found[UnratedReason(reason).name] = UnratedCount(calls, oldest_started_at_ns)
        return found
