"""Rating of columns: the same outcomes as call after call, and errors for wrong buffers."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore import Columns, Deck, Matches
from tests.core.decks import (
    PlainCall,
    PlainRate,
    batch_outcomes,
    calls,
    columns_of,
    deck_of,
    dialling_rules,
    outcome,
    rate_lists,
)


@given(rate_lists, st.integers(1, 4), dialling_rules, st.lists(calls, max_size=80))
def test_as_single_calls(
    rates: list[PlainRate],
    rounding: int,
    dialling: tuple[str, str, str],
    tried: list[PlainCall],
) -> None:
    deck = deck_of(rates, rounding, dialling)
    assert batch_outcomes(deck, tried) == [outcome(deck, call) for call in tried]


@pytest.mark.parametrize("size", [5, 100, 2_000, 30_000])
def test_decks_of_all_sizes_as_single_calls(size: int) -> None:
    """With direct tables of 0 to 4 digits, and shorter and longer numbers."""
    random_ = random.Random(size)

    def digits(least: int, most: int) -> str:
        return "".join(random_.choices("0123456789", k=random_.randint(least, most)))

    prefixes = sorted({digits(1, 9) for _ in range(size)} | {"", "7" * 32})
    rates = [
        PlainRate(
            prefix,
            random_.randrange(100_000),
            random_.choice([1, 6, 60]),
            from_ns=random_.choice([None, None, None, 5]),
            blocked=random_.random() < 0.05,
        )
        for prefix in prefixes[size % 2 :]
    ]
    deck = deck_of(rates, dialling=("49", "0", "00"))
    tried = [
        PlainCall(
            random_.choice(["", "", "+", "0", "00", "sip:"])
            + random_.choice([random_.choice(prefixes), ""])
            + digits(0, 17)
            + random_.choice(["", "", "", " ", "x"]),
            random_.choice([4, 5]),
            random_.randrange(4_000),
            random_.random() < 0.9,
        )
        for _ in range(3_000)
    ]
    assert batch_outcomes(deck, tried) == [outcome(deck, call) for call in tried]


@given(rate_lists, dialling_rules, st.lists(calls, max_size=40))
def test_matches_alone(
    rates: list[PlainRate], dialling: tuple[str, str, str], tried: list[PlainCall]
) -> None:
    deck = deck_of(rates, 1, dialling)
    numbers, offsets, _, starts, _ = columns_of(tried)
    matches = deck.match_columns(numbers, offsets, starts)
    ratings = [deck.rate(call.number, call.at_ns, 1, True) for call in tried]
    assert list(matches.rate_index) == [rating.rate_index for rating in ratings]
    assert list(matches.prefix_length) == [len(rating.matched_prefix) for rating in ratings]


@pytest.fixture
def deck() -> Deck:
    return deck_of([PlainRate("44", 600, 1), PlainRate("1", 60, 60)])


CALLS = [PlainCall("4420"), PlainCall("1", 5, 7), PlainCall("9"), PlainCall("44", billable=False)]


def test_the_columns_of_the_result(deck: Deck) -> None:
    columns = deck.rate_columns(*columns_of(CALLS))
    formats = {name: column.format for name, column in columns._asdict().items()}
    assert formats == {
        "status": "B",
        "unrated_reason": "B",
        "bill_seconds": "q",
        "cost_scaled": "Q",
        "rate_index": "i",
        "prefix_length": "B",
    }
    assert list(columns.status) == [1, 1, 3, 2]
    assert list(columns.unrated_reason) == [0, 0, 1, 0]
    assert list(columns.bill_seconds) == [60, 60, 0, 0]
    assert list(columns.cost_scaled) == [600, 60, 0, 0]
    assert list(columns.prefix_length) == [2, 1, 0, 0]
    assert [deck.rate_at(i).prefix if i >= 0 else None for i in columns.rate_index] == [
        "44",
        "1",
        None,
        None,
    ]


def test_no_calls(deck: Deck) -> None:
    columns = deck.rate_columns(*columns_of([]))
    assert [len(column) for column in columns] == [0] * 6
    assert len(deck.match_columns(b"", array("q", [0]), array("q")).rate_index) == 0


def test_all_kinds_of_buffers(deck: Deck) -> None:
    arguments = columns_of(CALLS)
    want = [list(column) for column in deck.rate_columns(*arguments)]
    for convert in (
        memoryview,
        lambda buffer: memoryview(buffer).toreadonly(),
        lambda buffer: buffer if isinstance(buffer, bytes) else array("l", buffer),
        lambda buffer: bytearray(buffer) if isinstance(buffer, bytes) else buffer,
        lambda buffer: memoryview(buffer)[:],
    ):
        converted: list[Any] = [convert(buffer) for buffer in arguments]
        got = deck.rate_columns(*converted)
        assert [list(column) for column in got] == want


def test_numbers_need_not_begin_at_0(deck: Deck) -> None:
    numbers, offsets, durations, starts, billable = columns_of(CALLS)
    shifted = array("q", [offset + 3 for offset in offsets])
    got = deck.rate_columns(b"xxx" + numbers + b"yyy", shifted, durations, starts, billable)
    assert list(got.cost_scaled) == [600, 60, 0, 0]


@pytest.mark.parametrize(
    ("position", "wrong"),
    [
        (0, array("q", [1])),
        (0, memoryview(b"44201944" * 2)[::2]),
        (0, memoryview(b"44201944").cast("B", (2, 4))),
        (1, array("q", [0, 4, 5, 6])),
        (1, array("q", [0, 4, 5, 6, 8, 8])),
        (1, array("q")),
        (1, array("i", [0, 4, 5, 6, 8])),
        (1, array("Q", [0, 4, 5, 6, 8])),
        (1, array("d", [0, 4, 5, 6, 8])),
        (1, bytes(40)),
        (1, memoryview(array("q", [0, 9, 4, 9, 5, 9, 6, 9, 8, 9]))[::2]),
        (1, array("q", [0, 4, 5, 6, 9])),
        (1, array("q", [0, 4, 5, 6, 2**63 - 1])),
        (1, array("q", [-1, 4, 5, 6, 8])),
        (1, array("q", [-(2**63), 4, 5, 6, 8])),
        (1, array("q", [0, 5, 4, 6, 8])),
        (2, array("q", [1, 1, 1])),
        (2, array("q", [1, 1, -1, 1])),
        (2, array("q", [1, 1, 1, 2**31])),
        (2, array("i", [1, 1, 1, 1])),
        (3, array("q", [0, 0, 0])),
        (3, array("q", [0, 0, 0, 0, 0])),
        (3, array("d", [0, 0, 0, 0])),
        (4, b"\1\1\1"),
        (4, b"\1\1\1\1\1"),
        (4, array("q", [1, 1, 1, 1])),
    ],
)
def test_wrong_buffers(deck: Deck, position: int, wrong: Any) -> None:
    arguments: list[Any] = list(columns_of(CALLS))
    arguments[position] = wrong
    with pytest.raises(ValueError):
        deck.rate_columns(*arguments)
    if position in (0, 1, 3):
        with pytest.raises(ValueError):
            deck.match_columns(arguments[0], arguments[1], arguments[3])


@pytest.mark.parametrize("position", range(5))
def test_not_buffers(deck: Deck, position: int) -> None:
    for wrong in (None, 5, "text", [1, 2, 3, 4]):
        arguments: list[Any] = list(columns_of(CALLS))
        arguments[position] = wrong
        with pytest.raises(TypeError):
            deck.rate_columns(*arguments)


def test_errors_name_the_wrong_argument(deck: Deck) -> None:
    many = CALLS * 30
    numbers, offsets, durations, starts, billable = columns_of(many)
    durations[77] = -5
    with pytest.raises(ValueError, match=r"durations\[77\] .* -5"):
        deck.rate_columns(numbers, offsets, durations, starts, billable)
    offsets[100] = 0
    durations[77] = 5
    with pytest.raises(ValueError, match=r"offsets\[99\] and offsets\[100\]"):
        deck.rate_columns(numbers, offsets, durations, starts, billable)


def test_buffers_are_given_back(deck: Deck) -> None:
    numbers, offsets, durations, starts, billable = columns_of(CALLS)
    growing = bytearray(numbers)
    deck.rate_columns(growing, offsets, durations, starts, billable)
    with pytest.raises(ValueError):
        deck.rate_columns(growing, offsets, durations, starts, b"")
    growing.append(0)  # a BufferError if a view of it existed
    durations.append(0)


def test_indexes_of_no_rate(deck: Deck) -> None:
    group = deck_of([PlainRate("4", from_ns=5), PlainRate("5")])
    wrong = [index for index in range(-2, 6) if not _has(group, index)]
    assert len(wrong) == 6  # of -2 to 5, all but the two rates
    for index in (-1, 2, 2**31, 2**40, -(2**40)):
        with pytest.raises(IndexError):
            deck.rate_at(index)
    with pytest.raises(OverflowError):
        deck.rate_at(2**64)
    with pytest.raises(TypeError):
        deck.rate_at(0.0)  # type: ignore[arg-type]


def _has(deck: Deck, index: int) -> bool:
    try:
        deck.rate_at(index)
    except IndexError:
        return False
    return True


def test_results_are_written_into_given_buffers(deck: Deck) -> None:
    arguments = columns_of(CALLS)
    numbers, offsets, _, starts, _ = arguments
    want = [list(column) for column in deck.rate_columns(*arguments)]
    out = deck.rate_columns(*columns_of([PlainCall("9")] * len(CALLS)))
    assert deck.rate_columns(*arguments, out) is out
    assert [list(column) for column in out] == want
    own = Columns(
        memoryview(bytearray(4)),
        memoryview(bytearray(4)),
        memoryview(array("l", [7] * 4)),
        memoryview(array("L", [7] * 4)),
        memoryview(array("i", [7] * 4)),
        memoryview(bytearray(4)),
    )
    deck.rate_columns(*arguments, out=own)
    assert [list(column) for column in own] == want
    matches = deck.match_columns(numbers, offsets, starts)
    index, lengths = array("i", [7] * 4), bytearray(4)
    deck.match_columns(numbers, offsets, starts, Matches(memoryview(index), memoryview(lengths)))
    assert (list(index), list(lengths)) == (list(matches.rate_index), list(matches.prefix_length))


@pytest.mark.parametrize("name", Columns._fields)
def test_results_that_cannot_be_written(deck: Deck, name: str) -> None:
    out = deck.rate_columns(*columns_of(CALLS))
    column = getattr(out, name)
    wrong = [
        column.toreadonly(),
        column[:-1],
        column[::2],
        memoryview(array("d", [0] * len(CALLS))),
        memoryview(bytearray(len(CALLS))).cast("c" if column.itemsize > 1 else "f"),
        memoryview(column.tobytes() * 2).cast("B"),
    ]
    for instead in wrong:
        with pytest.raises(ValueError):
            deck.rate_columns(*columns_of(CALLS), out._replace(**{name: instead}))
    with pytest.raises(TypeError):
        deck.rate_columns(*columns_of(CALLS), out._replace(**{name: [0] * len(CALLS)}))


def test_columns_outlive_each_other(deck: Deck) -> None:
    """They are parts of one block, which is freed with the last of them."""
    costs = deck.rate_columns(*columns_of(CALLS * 1_000)).cost_scaled
    others = [deck.rate_columns(*columns_of(CALLS * 1_000)) for _ in range(5)]
    assert list(costs) == [600, 60, 0, 0] * 1_000
    assert len(others) == 5
