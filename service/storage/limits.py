"""How long the database may keep anybody waiting: one table, by kind of work.

Everything that waits for the database waits within a limit, so that one that hangs is an error
which a client sees and retries, and not a thread that is lost. A server that answers enforces the
limits itself, which ends the statement as well; where none answers (a peer that vanished, a proxy
that takes everything and forwards nothing) the waiting thread gives up a little later and drops
the connection (tollwire.service.storage.dialects.postgresql_connection).

The limits of a piece of work hold for the thread that does it, so nothing on the way needs to hand
them on. Nobody's work outlives its client either: what is done for a request whose deadline has
passed, or whose client is gone, ends at its next step (``stop_if_over``), in the database too. Only
what settles a transaction is done ``regardless``. What a thread works on:
service/domain/thread_context.py. Knows no database.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from tollwire.service.domain.errors import Reason, TollwireError, TooLate, unwanted
from tollwire.service.domain.thread_context import Work, current_request, ignores_client
from tollwire.service.settings.config import DEFAULT_DATABASE_WAIT_SECONDS

DEFAULT_WAIT_SECONDS = DEFAULT_DATABASE_WAIT_SECONDS
# libpq's least.
_LEAST_CONNECT_SECONDS = 2
# How often whoever waits looks whether the client still does.
LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """In seconds, the first three for one statement: how long the database may work on it, how long
    of that it may wait for another's lock, and for how long it may not be heard. The last is for
    what the service does between two statements of a transaction, after which the database ends
    it: what a client that vanished has locked must come free."""

    answer_seconds: float
    lock_seconds: float
    silence_seconds: float
    idle_seconds: float


def limits(work: Work, wait_seconds: float) -> Limits:
    """``wait_seconds``: the usual wait, which is the operator's to choose."""
    answer = work.value * wait_seconds
    return Limits(
        answer_seconds=answer,
        # Shorter, so that the error says that it was a lock.
        lock_seconds=0.8 * answer,
        # Longer: where the database is heard, its own error says more.
        silence_seconds=1.2 * answer,
        # Rating a chunk takes a tenth of a second, on a machine that does nothing else.
        idle_seconds=max(3 * wait_seconds, answer),
    )


def connect_seconds(wait_seconds: float) -> int:
    """For each address that the host's name stands for."""
    return max(_LEAST_CONNECT_SECONDS, round(wait_seconds / 2))


def seconds_left(seconds: float) -> float:
    """``seconds``, or less where the client of the present request waits less."""
    remaining = None if ignores_client() else current_request().remaining_seconds()
    return seconds if remaining is None else min(seconds, remaining)


def over() -> TollwireError | None:
    """What has ended the present request; None while somebody waits for it."""
    if ignores_client():
        return None
    request = current_request()
    remaining = request.remaining_seconds()
    if remaining is not None and remaining <= 0:
        return TooLate(
            Reason.DEADLINE_EXCEEDED,
            "the client's deadline has passed; what was not committed by then is taken back",
        )
    return None if request.is_wanted() else unwanted()


def stop_if_over() -> None:
    """TooLate or Unwanted where nobody waits for the present request any more."""
    failure = over()
    if failure is not None:
        raise failure


class _Acquirable(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...


def acquired(lock: _Acquirable, seconds: float) -> bool:
    """Waits for the lock, for so long at most; TooLate or Unwanted as soon as nobody waits for the
    present request any more. Whether it is had."""
    if lock.acquire(False):
        return True
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if lock.acquire(True, min(left, seconds_left(LOOK_SECONDS))):
            return True
        stop_if_over()
    return False
