"""Group commit: items that arrive while a group is committed form the next group.

The caller's own threads do the work. A thread that finds no group under way leads at once, with
what waits besides its own item, so a lone item does not wait. Threads that arrive later wait;
the leader makes one of them the next leader when its group ends. Items that are submitted with a
callback have no thread that waits: the caller provides one if such an item must lead. What a group
does is the caller's: this module knows neither calls nor tables.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from tollwire.service.domain.errors import TollwireError, Unavailable
from tollwire.service.domain.request import Request
from tollwire.service.domain.thread_context import current_request, handling, over, stop_if_over
from tollwire.service.storage.failures import unavailable
from tollwire.service.storage.limits import LOOK_SECONDS, seconds_left

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Submission(Generic[Item, Result]):
    """An item without a thread that waits. ``done`` is called once with its result or exception, in
    any thread; it must not raise or block."""

    item: Item
    request: Request
    done: Callable[[Result | Exception], object]


class _Member(Generic[Item, Result]):
    """One item, and the thread that waits for its result."""

    __slots__ = ("failure", "is_settled", "item", "request", "result", "wake")

    def __init__(self, item: Item, request: Request) -> None:
        self.item = item
        self.request = request
        self.wake = threading.Lock()
        self.wake.acquire()
        self.is_settled = False
        self.result: Result | None = None
        self.failure: Exception | None = None

    def settle(self, outcome: Result | Exception) -> None:
        if isinstance(outcome, Exception):
            self.failure = outcome
        else:
            self.result = outcome
        self.is_settled = True

    def notify(self) -> None:
        """Called when the member is settled, or must lead the next group."""
        self.wake.release()

    def too_late(self) -> Exception | None:
        """The failure of a member that no group may take any more. A thread that waits finds that
        out itself."""
        return None


class _Submitted(_Member[Item, Result]):
    """A member without a thread. ``lead`` starts a thread that leads a group with it."""

    __slots__ = ("_done", "_lead", "_until")

    def __init__(
        self,
        submission: Submission[Item, Result],
        lead: Callable[[_Submitted[Item, Result]], object],
        wait_seconds: float,
    ) -> None:
        super().__init__(submission.item, submission.request)
        self._done = submission.done
        self._lead = lead
        self._until = time.monotonic() + wait_seconds

    def notify(self) -> None:
        if not self.is_settled:
            self._lead(self)
        elif self.failure is not None:
            self._done(self.failure)
        else:
            self._done(self.result)  # type: ignore[arg-type]  # it is settled without a failure

    def too_late(self) -> Exception | None:
        with handling(self.request):
            failure = over()
        if failure is None and time.monotonic() > self._until:
            return _busy()
        return failure


class GroupCommit(Generic[Item, Result]):
    """Runs ``commit`` for groups of items, at most ``groups`` groups at one time. Thread-safe."""

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        max_items: int,
        wait_seconds: float,
        groups: int = 1,
    ) -> None:
        """``commit`` takes 1 to ``max_items`` items in the order of their arrival and returns one
        result, or one exception, for each; an exception that it raises is the result of all items.
        It runs as the request of its one item, or as a request that is wanted as long as that of
        one of the items is. An item that no group takes within ``wait_seconds`` fails."""
        self._commit = commit
        self._max_items = max_items
        self._wait_seconds = wait_seconds
        self._idle = groups
        self._lock = threading.Lock()
        self._waiting: deque[_Member[Item, Result]] = deque()

    def run(self, item: Item) -> Result:
        """The result of ``item``, or its exception. TooLate or Unwanted if its client leaves before
        a group takes it; a group that has taken it commits it all the same."""
        stop_if_over()
        member: _Member[Item, Result] = _Member(item, current_request())
        with self._lock:
            leads = self._idle > 0
            if leads:
                self._idle -= 1
            else:
                self._waiting.append(member)
        if not leads:
            self._wait(member)
        if not member.is_settled:
            self._lead(member)
        if member.failure is not None:
            raise member.failure
        return member.result  # type: ignore[return-value]  # it is settled without a failure

    def submit(
        self,
        submissions: Sequence[Submission[Item, Result]],
        start: Callable[[Callable[[], None]], object],
    ) -> None:
        """Add items that arrive together. ``start`` must run a function in another thread, which
        one of the items may need to lead a group. Returns at once.

        An item whose client has left, or that has waited too long, fails when the next group
        begins."""
        if not submissions:
            return
        lead = partial(self._lead_in_thread, start)
        members = [_Submitted(one, lead, self._wait_seconds) for one in submissions]
        with self._lock:
            leads = self._idle > 0
            if leads:
                self._idle -= 1
            self._waiting.extend(members[1:] if leads else members)
        if leads:
            members[0].notify()

    def _lead_in_thread(
        self, start: Callable[[Callable[[], None]], object], member: _Submitted[Item, Result]
    ) -> None:
        start(partial(self._lead_submitted, member))

    def _lead_submitted(self, member: _Submitted[Item, Result]) -> None:
        self._lead(member)
        member.notify()

    def _wait(self, member: _Member[Item, Result]) -> None:
        """Until the member is settled, or leads."""
        until = time.monotonic() + self._wait_seconds
        while not member.wake.acquire(timeout=max(0.001, seconds_left(LOOK_SECONDS))):
            failure = over()
            if failure is None and time.monotonic() > until:
                failure = _busy()
            if failure is None:
                continue
            with self._lock:
                try:
                    self._waiting.remove(member)
                except ValueError:
                    # A group has taken it. That ends within the limits of the database.
                    until = float("inf")
                    continue
            raise failure

    def _lead(self, leader: _Member[Item, Result]) -> None:
        members = [leader]
        try:
            with self._lock:
                while self._waiting and len(members) < self._max_items:
                    members.append(self._waiting.popleft())
            self._settle(members)
        finally:
            with self._lock:
                next_leader = self._waiting.popleft() if self._waiting else None
                if next_leader is None:
                    self._idle += 1
            if next_leader is not None:
                next_leader.notify()
            for member in members[1:]:
                member.notify()

    def _settle(self, members: Sequence[_Member[Item, Result]]) -> None:
        outcomes: Sequence[Result | Exception]
        for member in members:
            failure = member.too_late()
            if failure is not None:
                member.settle(failure)
        members = [member for member in members if not member.is_settled]
        if not members:
            return
        try:
            with handling(_request_of(members)):
                outcomes = self._commit([member.item for member in members])
        except Exception as error:
            outcomes = copies(error, len(members))
        for member, outcome in zip(members, outcomes, strict=True):
            member.settle(outcome)


def _busy() -> Unavailable:
    return unavailable("the database is busy with other calls")


def _request_of(members: Sequence[_Member[Item, Result]]) -> Request:
    """The request that the group's work belongs to."""
    if len(members) == 1:
        return members[0].request
    requests = [member.request for member in members]

    def remaining_seconds() -> float | None:
        longest = 0.0
        for request in requests:
            remaining = request.remaining_seconds()
            if remaining is None:
                return None
            longest = max(longest, remaining)
        return longest

    return Request(
        remaining_seconds=remaining_seconds,
        is_wanted=lambda: any(request.is_wanted() for request in requests),
    )


def copies(error: Exception, count: int) -> list[Exception]:
    """The same failure for ``count`` threads: a traceback belongs to one."""
    return [error, *(_copy(error) for _ in range(1, count))]


def _copy(error: Exception) -> Exception:
    if isinstance(error, TollwireError):
        copy: Exception = type(error)(
            error.reason, error.message, metadata=error.metadata, violations=error.violations
        )
    else:
        copy = RuntimeError(str(error))
    copy.__cause__ = error
    return copy
