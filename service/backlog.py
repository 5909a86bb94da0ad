"""How many recorded calls have no price, and since when: for operators, not for the wire.

Counting them takes the database a while where they are many, so it is done in the background, no
more often than once a minute and only where somebody asks, and no more than so many are looked at.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import TollwireError
from service.model import UnratedReason
from service.storage import unrated
from service.storage.engine import Database
from service.storage.limits import Work

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
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._began = -math.inf
        self._found: Mapping[str, Unrated] | None = None

    def look(self) -> Mapping[str, Unrated] | None:
        """By the reasons' names, as of a while ago; None where nothing is known yet. Waits for
        nothing: what is too old is asked for, and there the next time."""
        with self._lock:
            if time.monotonic() - self._began >= self._refresh_seconds:
                self._began = time.monotonic()
                threading.Thread(target=self._refresh, name="backlog", daemon=True).start()
            return self._found

    def _refresh(self) -> None:
        try:
            with self._database.read(work=Work.LOOK) as connection:
                rows = unrated.summary(connection, MOST_LOOKED_AT)
        except TollwireError as error:
            _LOG.warning("the unrated calls cannot be counted now (%s); later", error.reason)
            return
        except Exception:
            _LOG.exception("the unrated calls cannot be counted; later")
            return
        found = {reason.name: Unrated() for reason in UnratedReason}
        for reason, calls, oldest_started_at_ns in rows:
            found[UnratedReason(reason).name] = Unrated(calls, oldest_started_at_ns)
        with self._lock:
            self._found = found
