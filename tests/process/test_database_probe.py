"""The probe of the database: only after something has failed, and until it answers again."""

from __future__ import annotations

import queue
from typing import Any

from tollwire.service.process.database_probe import DatabaseProbe

PATIENCE_SECONDS = 30


class FakeDatabase:
    """Fails as often as it is told, and records each probe."""

    def __init__(self) -> None:
        self.failures = 0
        self.pings: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ping(self) -> None:
        fails = self.failures > 0
        self.failures -= 1
        self.pings.put(fails)
        if fails:
            raise ConnectionError("away")

    def explained(self, error: BaseException) -> str:
        return str(error)


def test_it_probes_after_a_failure_until_the_database_answers() -> None:
    database: Any = FakeDatabase()
    changes: queue.SimpleQueue[bool] = queue.SimpleQueue()
    probe = DatabaseProbe(database, changes.put, probe_seconds=0.01)
    probe.start()
    # Something else has failed: the database answers.
    probe.check()
    assert database.pings.get(timeout=PATIENCE_SECONDS) is False
    database.failures = 3
    probe.check()
    assert changes.get(timeout=PATIENCE_SECONDS) is False
    assert changes.get(timeout=PATIENCE_SECONDS) is True
    assert [database.pings.get() for _ in range(4)] == [True, True, True, False]
    probe.close()
    assert database.pings.empty() and changes.empty()


def test_it_ends_while_the_database_answers() -> None:
    database: Any = FakeDatabase()
    probe = DatabaseProbe(database, lambda _: None)
    probe.start()
    probe.close()
    assert database.pings.empty()
