"""Group commit: the leader, the waiting callers, and the result of each caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.world import at_once
from tollwire.service.domain.errors import Reason, TooLate, Unavailable, Unwanted
from tollwire.service.domain.request import Request
from tollwire.service.domain.thread_context import current_request, handling
from tollwire.service.record.group_commit import GroupCommit, Submission

SECONDS = 20


class Commits:
    """A commit function that can be held, with the groups of its calls."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.requests: list[Request] = []
        self.threads: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.groups.append(list(items))
        self.requests.append(current_request())
        self.threads.append(threading.get_ident())
        assert self.may_go_on.wait(SECONDS)
        return [item if isinstance(item, Exception) else f"done {item}" for item in items]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "the condition does not become true"
        time.sleep(0.001)


class Threads:
    """Threads that each run an item, started one after the other."""

    def __init__(self, groups: GroupCommit[Any, Any], commits: Commits) -> None:
        self._groups = groups
        self._commits = commits
        self._threads: list[threading.Thread] = []
        self.results: dict[Any, Any] = {}

    def start(self, item: Any, request: Request | None = None) -> None:
        def run() -> None:
            with handling(request or Request()):
                try:
                    self.results[item] = self._groups.run(item)
                except Exception as error:
                    self.results[item] = error

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)

    def start_leader(self, item: Any) -> None:
        """Start a thread whose group is held."""
        self._commits.may_go_on.clear()
        before = len(self._commits.groups)
        self.start(item)
        until(lambda: len(self._commits.groups) > before)

    def start_waiting(self, *items: Any, request: Request | None = None) -> None:
        for item in items:
            count = self.waiting()
            self.start(item, request)
            until(lambda count=count: self.waiting() > count)

    def waiting(self) -> int:
        return len(self._groups._waiting)

    def finish(self) -> None:
        self._commits.may_go_on.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), "a caller hangs"


@pytest.fixture
def commits() -> Commits:
    return Commits()


@pytest.fixture
def groups(commits: Commits) -> GroupCommit[Any, Any]:
    return GroupCommit(commits, max_items=4, wait_seconds=SECONDS)


@pytest.fixture
def threads(groups: GroupCommit[Any, Any], commits: Commits) -> Threads:
    return Threads(groups, commits)


def test_a_lone_item_is_committed_at_once_by_its_own_thread(
    groups: GroupCommit[Any, Any], commits: Commits
) -> None:
    request = Request(id="mine")
    with handling(request):
        assert groups.run("a") == "done a"
        assert groups.run("b") == "done b"
    assert commits.groups == [["a"], ["b"]]
    assert commits.threads == [threading.get_ident()] * 2
    assert commits.requests == [request, request]


def test_items_that_arrive_meanwhile_are_the_next_group(threads: Threads, commits: Commits) -> None:
    threads.start_leader("a")
    threads.start_waiting("b", "c", "d")
    threads.finish()
    assert commits.groups == [["a"], ["b", "c", "d"]]
    assert threads.results == {item: f"done {item}" for item in "abcd"}


def test_a_group_has_a_maximal_size(threads: Threads, commits: Commits) -> None:
    threads.start_leader("a")
    threads.start_waiting(*"bcdefg")
    threads.finish()
    assert commits.groups == [["a"], list("bcde"), list("fg")]


def test_each_caller_gets_its_own_outcome(threads: Threads) -> None:
    refused = ValueError("c")
    threads.start_leader("a")
    threads.start_waiting("b", refused, "d")
    threads.finish()
    assert threads.results == {
        "a": "done a",
        "b": "done b",
        refused: refused,
        "d": "done d",
    }


def test_an_error_of_the_commit_is_the_result_of_all_in_the_group() -> None:
    begun = threading.Event()
    go_on = threading.Event()

    def commit(items: Sequence[str]) -> list[str]:
        begun.set()
        assert go_on.wait(SECONDS)
        if "b" in items:
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, "away", metadata={"a": "b"})
        return list(items)

    groups: GroupCommit[str, str] = GroupCommit(commit, max_items=9, wait_seconds=SECONDS)
    threads = Threads(groups, Commits())
    threads.start("a")
    assert begun.wait(SECONDS)
    threads.start_waiting("b", "c", "d")
    go_on.set()
    threads.join()
    assert threads.results.pop("a") == "a"
    failures = list(threads.results.values())
    assert [(type(one), one.reason, one.message, one.metadata) for one in failures] == [
        (Unavailable, Reason.DATABASE_UNAVAILABLE, "away", {"a": "b"})
    ] * 3
    # An exception that several threads raise would mix their tracebacks.
    assert len({id(one) for one in failures}) == 3
    assert groups.run("e") == "e"


def test_the_item_of_a_client_that_leaves_is_removed(threads: Threads, commits: Commits) -> None:
    is_wanted = True
    threads.start_leader("a")
    threads.start_waiting("b", request=Request(is_wanted=lambda: is_wanted))
    threads.start_waiting("c")
    is_wanted = False
    until(lambda: "b" in threads.results)
    assert isinstance(threads.results["b"], Unwanted)
    threads.finish()
    assert commits.groups == [["a"], ["c"]]


def test_a_deadline_that_passes_while_the_item_waits(threads: Threads, commits: Commits) -> None:
    ends_at = time.monotonic() + 0.1
    threads.start_leader("a")
    threads.start_waiting(
        "b", request=Request(remaining_seconds=lambda: max(0.0, ends_at - time.monotonic()))
    )
    until(lambda: "b" in threads.results)
    assert isinstance(threads.results["b"], TooLate)
    threads.finish()
    assert commits.groups == [["a"]]


def test_an_item_without_a_group_in_time_fails(commits: Commits) -> None:
    groups: GroupCommit[Any, Any] = GroupCommit(commits, max_items=4, wait_seconds=0.1)
    threads = Threads(groups, commits)
    threads.start_leader("a")
    threads.start_waiting("b")
    until(lambda: "b" in threads.results)
    assert isinstance(threads.results["b"], Unavailable)
    threads.finish()
    assert commits.groups == [["a"]]


def test_a_client_that_leaves_a_group_does_not_end_it(threads: Threads, commits: Commits) -> None:
    wanted = {"b": True, "c": True}
    threads.start_leader("a")
    for item in "bc":
        threads.start_waiting(item, request=Request(is_wanted=lambda item=item: wanted[item]))
    commits.may_go_on.set()
    until(lambda: len(threads.results) == 3)
    request = commits.requests[1]
    assert request.is_wanted()
    wanted["b"] = False
    assert request.is_wanted()
    wanted["c"] = False
    assert not request.is_wanted()


def test_a_group_has_the_time_of_the_client_that_waits_longest(
    threads: Threads, commits: Commits
) -> None:
    threads.start_leader("a")
    threads.start_waiting("b", request=Request(remaining_seconds=lambda: 7.0))
    threads.start_waiting("c", request=Request(remaining_seconds=lambda: 9.0))
    threads.finish()
    assert commits.requests[1].remaining_seconds() == 9.0
    threads.start_leader("d")
    threads.start_waiting("e", request=Request(remaining_seconds=lambda: 7.0))
    threads.start_waiting("f")
    threads.finish()
    assert commits.requests[3].remaining_seconds() is None


def test_every_item_of_many_threads_is_committed_once(commits: Commits) -> None:
    groups: GroupCommit[Any, Any] = GroupCommit(commits, max_items=7, wait_seconds=SECONDS)
    items = [[f"{thread}-{number}" for number in range(100)] for thread in range(16)]
    results = at_once(*(lambda mine=mine: [groups.run(item) for item in mine] for mine in items))
    assert results == [[f"done {item}" for item in mine] for mine in items]
    committed = [item for group in commits.groups for item in group]
    assert sorted(committed) == sorted(item for mine in items for item in mine)
    assert max(len(group) for group in commits.groups) <= 7
    assert groups._idle == 1


class Submissions:
    """Items without a thread of their own, and the threads that lead their groups."""

    def __init__(self, groups: GroupCommit[Any, Any]) -> None:
        self._groups = groups
        self._pool = ThreadPoolExecutor(1)
        self.results: dict[Any, Any] = {}

    def submit(self, *items: Any, request: Request | None = None) -> None:
        self._groups.submit(
            [
                Submission(item, request or Request(), partial(self.results.__setitem__, item))
                for item in items
            ],
            self._pool.submit,
        )

    def await_results(self, count: int) -> dict[Any, Any]:
        until(lambda: len(self.results) == count)
        self._pool.shutdown()
        return self.results


@pytest.fixture
def submissions(groups: GroupCommit[Any, Any]) -> Submissions:
    return Submissions(groups)


def test_items_that_are_submitted_together_are_one_group_of_another_thread(
    submissions: Submissions, commits: Commits
) -> None:
    refused = ValueError("b")
    submissions.submit()
    submissions.submit("a", refused, "c")
    assert submissions.await_results(3) == {"a": "done a", refused: refused, "c": "done c"}
    assert commits.groups == [["a", refused, "c"]]
    assert threading.get_ident() not in commits.threads


def test_submitted_items_and_threads_share_groups(
    submissions: Submissions, threads: Threads, commits: Commits, groups: GroupCommit[Any, Any]
) -> None:
    threads.start_leader("a")
    submissions.submit("b", "c")
    threads.start_waiting("d", "e")
    submissions.submit("f")
    threads.finish()
    assert submissions.await_results(3) == {item: f"done {item}" for item in "bcf"}
    assert threads.results == {item: f"done {item}" for item in "ade"}
    assert commits.groups == [["a"], list("bcde"), ["f"]]
    until(lambda: groups._idle == 1)


def test_a_submitted_item_whose_client_has_left_is_not_committed(
    submissions: Submissions, threads: Threads, commits: Commits
) -> None:
    threads.start_leader("a")
    submissions.submit("b", request=Request(is_wanted=lambda: False))
    submissions.submit("c", request=Request(remaining_seconds=lambda: 0.0))
    submissions.submit("d")
    threads.finish()
    results = submissions.await_results(3)
    assert (type(results["b"]), type(results["c"])) == (Unwanted, TooLate)
    assert commits.groups == [["a"], ["d"]]


def test_a_submitted_item_that_no_group_takes_in_time_fails(commits: Commits) -> None:
    groups: GroupCommit[Any, Any] = GroupCommit(commits, max_items=4, wait_seconds=0.05)
    threads, submissions = Threads(groups, commits), Submissions(groups)
    threads.start_leader("a")
    submissions.submit("b")
    time.sleep(0.1)
    threads.finish()
    assert isinstance(submissions.await_results(1)["b"], Unavailable)
    assert commits.groups == [["a"]]


def test_every_item_of_threads_and_submissions_is_committed_once(commits: Commits) -> None:
    groups: GroupCommit[Any, Any] = GroupCommit(commits, max_items=7, wait_seconds=SECONDS)
    many = [Submissions(groups) for _ in range(4)]
    items = [[f"{thread}-{number}" for number in range(100)] for thread in range(8)]
    submitted = [[f"s{number}-{item}" for item in range(100)] for number in range(4)]

    def submit(to: Submissions, mine: list[str]) -> None:
        for start in range(0, 100, 5):
            to.submit(*mine[start : start + 5])

    at_once(
        *(lambda mine=mine: [groups.run(item) for item in mine] for mine in items),
        *(
            lambda to=to, mine=mine: submit(to, mine)
            for to, mine in zip(many, submitted, strict=True)
        ),
    )
    for to, mine in zip(many, submitted, strict=True):
        assert to.await_results(100) == {item: f"done {item}" for item in mine}
    committed = [item for group in commits.groups for item in group]
    assert sorted(committed) == sorted(item for mine in items + submitted for item in mine)
    assert max(len(group) for group in commits.groups) <= 7
    assert groups._idle == 1
