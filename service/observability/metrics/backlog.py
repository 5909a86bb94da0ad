"""How many recorded calls have no price, and since when: for operators, not for the wire.

Counting them takes the database a while where they are many, so it is done in the background, no
more often than once a minute and only where somebody asks, and no more than so many are looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from tollwire.service.domain.model import UnratedReason
from tollwire.service.domain.thread_context import Work
from tollwire.service.observability.metrics.background import Background
from tollwire.service.storage import unrated
from tollwire.service.storage.engine import Database

REFRESH_SECONDS = 60.0
MOST_LOOKED_AT = 50_000

_LOG = logging.getLogger("tollwire.backlog")


@dataclass(frozen=True, slots=True)
class Unrated:
    """So many calls, of which the first started then; 0 and 0 where there are none."""

    calls: int = 0
    oldest_started_at_ns: int = 0


class Backlog:
    """The unrated calls of one database. Thread-safe."""

    def __init__(self, database: Database, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._database = database
        self._background = Background(self._ask, "the unrated calls", _LOG, refresh_seconds)

    def look(self) -> Mapping[str, Unrated] | None:
        """By the reasons' names, as of a while ago; None where nothing is known yet. Waits for
        nothing."""
        return self._background.look()

    def _ask(self) -> Mapping[str, Unrated]:
        with self._database.read(work=Work.LOOK) as connection:
            rows = unrated.summary(connection, MOST_LOOKED_AT)
        found = {reason.name: Unrated() for reason in UnratedReason}
        for reason, calls, oldest_started_at_ns in rows:
            found[UnratedReason(reason).name] = Unrated(calls, oldest_started_at_ns)
        return found
