"""Counting outcomes: all of them, and without a loss between threads."""

from __future__ import annotations

import threading

import pytest

import ratingcore
from ratingcore.wire.tally import Tally

OUTCOMES = [
    (ratingcore.RATED, 0),
    (ratingcore.NOT_BILLABLE, 0),
    (ratingcore.UNRATED, ratingcore.NO_RATE),
    (ratingcore.UNRATED, ratingcore.BLOCKED),
    (ratingcore.UNRATED, ratingcore.INVALID_NUMBER),
]


def test_each_outcome_has_a_count_of_its_own() -> None:
    tally = Tally()
    for calls, (status, reason) in enumerate(OUTCOMES, 1):
        tally.add(status, reason, calls)
    assert tally.counts() == {outcome: calls for calls, outcome in enumerate(OUTCOMES, 1)}
    assert (tally.calls(), tally.unrated()) == (15, 12)
    other = Tally()
    assert (other.counts(), other.calls(), other.unrated()) == ({}, 0, 0)
    other.add_all(tally)
    other.add_all(tally)
    assert other.counts() == {outcome: 2 * calls for calls, outcome in enumerate(OUTCOMES, 1)}


@pytest.mark.parametrize("outcome", [(0, 0), (4, 0), (1, 1), (2, 3), (3, 0), (3, 4)])
def test_an_unknown_outcome_is_not_counted(outcome: tuple[int, int]) -> None:
    tally = Tally()
    with pytest.raises(ValueError, match="no outcome"):
        tally.add(*outcome)
    assert tally.counts() == {}


def test_threads_lose_no_count() -> None:
    tally = Tally()

    def count() -> None:
        for _ in range(20_000):
            tally.add(ratingcore.RATED)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.calls() == 80_000
