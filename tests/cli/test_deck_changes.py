"""The price changes of a deck, before it is imported."""

from __future__ import annotations

from typing import Any

import pytest

from tollwire.service.cli.deck_changes import (
    CHEAPER,
    DEARER,
    GONE,
    NEW,
    OTHER,
    Change,
    deck_changes,
)
from tollwire.v1.types_pb2 import Interval, Rate

NOW = (1_000_000, 5)


def rate(
    prefix: str, price: str, start: int | None = None, end: int | None = None, **more: Any
) -> Rate:
    made = Rate(prefix=prefix, cost_per_minute=price, billing_increment=60, **more)
    if start is not None:
        made.effective_from.seconds = start
    if end is not None:
        made.effective_to.seconds = end
    return made


def changes(
    present: list[Rate], deck: list[Rate], *, replace: bool = True, start: int | None = None
) -> list[Change]:
    at = None if start is None else (start, 0)
    return list(deck_changes(present, deck, NOW, at, replace=replace))


def kinds(found: list[Change]) -> list[tuple[str, str]]:
    return [(one.kind, one.prefix) for one in found]


@pytest.mark.parametrize(
    ("old", "new", "kind", "percent"),
    [
        ("0.02", "0.03", DEARER, "+50.0"),
        ("0.02", "0.0200", None, ""),
        ("0.00000002", "0.00000001", CHEAPER, "-50.0"),
        ("0", "0.01", DEARER, ""),
        ("1", "0", CHEAPER, "-100.0"),
    ],
)
def test_prices(old: str, new: str, kind: str | None, percent: str) -> None:
    found = changes([rate("44", old)], [rate("+44", new)])
    assert [(one.kind, one.percent) for one in found] == ([] if kind is None else [(kind, percent)])


def test_new_and_deleted_rates_in_both_modes() -> None:
    present, deck = [rate("44", "1")], [rate("33", "2")]
    assert kinds(changes(present, deck)) == [(NEW, "33"), (GONE, "44")]
    assert kinds(changes(present, deck, replace=False)) == [(NEW, "33")]
    ended = rate("44", "1", end=NOW[0])
    assert kinds(changes([ended], deck)) == [(NEW, "33")]


def test_other_terms() -> None:
    part = Interval(start_seconds=60, cost_per_minute="0.50", billing_increment=1)
    found = changes(
        [rate("44", "1"), rate("33", "1")],
        [rate("44", "1", intervals=[part], connect_fee="0.10"), rate("33", "2", blocked=True)],
    )
    assert kinds(found) == [(OTHER, "33"), (OTHER, "44")]
    assert (found[0].old_price, found[0].new_price) == ("1.0000", "blocked")
    assert found[1].other == "connect_fee 0 -> 0.1; intervals none -> 60 s: 0.5/1"


def test_a_deck_that_begins_at_a_date_is_compared_at_that_date() -> None:
    later = NOW[0] + 100
    present = [rate("44", "1", end=later + 1), rate("33", "1", end=later)]
    (dearer, new) = changes(present, [rate("44", "2"), rate("33", "2")], start=later)
    assert kinds([dearer, new]) == [(DEARER, "44"), (NEW, "33")]
    assert dearer.start == (later, 0)


def test_a_merged_rate_behind_a_later_rate_changes_nothing() -> None:
    present = [rate("44", "1", start=NOW[0] - 5)]
    assert changes(present, [rate("44", "2")], replace=False) == []
    assert kinds(changes(present, [rate("44", "2")])) == [(DEARER, "44")]


def test_each_step_of_a_deck_is_a_change() -> None:
    deck = [
        rate("44", "2"),
        rate("44", "3", start=NOW[0] + 9),
        rate("44", "9", end=NOW[0] - 9, start=1),
    ]
    found = changes([rate("44", "1")], deck)
    assert [(one.old_price, one.new_price, one.start) for one in found] == [
        ("1.0000", "3.0000", (NOW[0] + 9, 0)),
        ("1.0000", "2.0000", None),
    ]
