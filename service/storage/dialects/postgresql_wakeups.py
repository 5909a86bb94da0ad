"""Notifications of PostgreSQL (LISTEN), without a thread that wakes up to look for them."""

from __future__ import annotations

import psycopg


class Notifications:
    """The notifications of one channel, on a connection that keeps its session."""

    settle_seconds = 0.0

    def __init__(self, driver: psycopg.Connection, channel: str) -> None:
        self._driver = driver
        self._came_with_an_answer = False
        driver.add_notify_handler(self._note)
        driver.execute(f"LISTEN {channel}")

    def _note(self, _notify: psycopg.Notify) -> None:
        """psycopg calls this for a notification that comes with the answer to a query."""
        self._came_with_an_answer = True

    def fileno(self) -> int:
        return self._driver.fileno()

    def drain(self) -> bool:
        connection = self._driver.pgconn
        connection.consume_input()
        has_come, self._came_with_an_answer = self._came_with_an_answer, False
        while connection.notifies() is not None:
            has_come = True
        return has_come

    def close(self) -> None:
        """They end with the connection."""
