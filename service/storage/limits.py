"""The limits of waits for the database, by kind of work.

Every wait for the database has a limit: if the database hangs, the client gets an error that it can
retry, and no thread is lost. A database server that answers enforces the limits itself and ends the
statement. If it does not answer (the peer has vanished, or a proxy forwards nothing), the waiting
thread gives up a little later and closes the connection
(tollwire.service.storage.dialects.postgresql_connection).

The limits hold for the thread that does the work, so no function passes them on. Work for a request
whose deadline has passed, or whose client has gone, ends at its next step (``stop_if_over``), also
in the database. Only commit and rollback run ``regardless``. What a thread works on:
service/domain/thread_context.py. Must not depend on a database.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from tollwire.service.domain.thread_context import (
    Work,
    current_request,
    ignores_client,
    stop_if_over,
)
from tollwire.service.settings.config import DEFAULT_DATABASE_WAIT_SECONDS

DEFAULT_WAIT_SECONDS = DEFAULT_DATABASE_WAIT_SECONDS
# The minimum of libpq.
_LEAST_CONNECT_SECONDS = 2
# How often a waiting thread checks whether its client still waits.
LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """In seconds. For one statement: how long the database may work on it, how long it may wait for
    a lock, and how long it may send nothing. ``idle_seconds``: how long the service may take
    between two statements of a transaction before the database ends it, so that the locks of a
    server that vanished are released."""

    answer_seconds: float
    lock_seconds: float
    silence_seconds: float
    idle_seconds: float


def limits(work: Work, wait_seconds: float) -> Limits:
    """``wait_seconds``: the limit of ordinary work, a setting."""
    answer = work.value * wait_seconds
    return Limits(
        answer_seconds=answer,
        # Shorter, so that the error says that it was a lock.
        lock_seconds=0.8 * answer,
        # Longer: if the database answers, its own error says more.
        silence_seconds=1.2 * answer,
        # Rating a chunk takes a tenth of a second on an idle machine.
        idle_seconds=max(3 * wait_seconds, answer),
    )


def connect_seconds(wait_seconds: float) -> int:
    """The limit for each address of the host name."""
    return max(_LEAST_CONNECT_SECONDS, round(wait_seconds / 2))


def seconds_left(seconds: float) -> float:
    """``seconds``, or less if the deadline of the present request is earlier."""
    remaining = None if ignores_client() else current_request().remaining_seconds()
    return seconds if remaining is None else min(seconds, remaining)


class _Acquirable(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...


def acquired(lock: _Acquirable, seconds: float) -> bool:
    """Waits for the lock for at most ``seconds``; returns whether it is acquired. TooLate or
    Unwanted as soon as the client of the present request no longer waits."""
    if lock.acquire(False):
        return True
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if lock.acquire(True, min(left, seconds_left(LOOK_SECONDS))):
            return True
        stop_if_over()
    return False
