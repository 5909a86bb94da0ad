"""Rating rules 5 to 8: billed seconds and cost."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ratingcore
from ratingcore import DOWN, HALF_EVEN, HALF_UP, UP
from tests import oracle
from tests.core.decks import (
    ROUNDING_NAMES,
    PlainRate,
    durations,
    increments,
    interval_lists,
    prices,
)

MAX_PRICE_E8 = 9_999_999_999_999_999
MAX_SECONDS = 2_147_483_647
MAX_COST_E8 = 999_999_999_999_999_999


def charge(*arguments: Any, **named: Any) -> tuple[int, int]:
    """With 8 decimals a cost has the scale of the prices, so that the tests need only one scale."""
    return ratingcore.charge(*arguments, **{"cost_decimals": 8, **named})


@pytest.mark.parametrize(
    ("duration", "price_e8", "increment", "billed"),
    [
        (7, 200, 6, (12, 40)),
        (63, 1500, 6, (66, 1650)),
        (1, 120, 60, (60, 120)),
        (0, 1500, 6, (0, 0)),
        (6, 200, 6, (6, 20)),
        (1, 1, 1, (1, 0)),
        (60, 200, 1, (60, 200)),  # 0.02 a minute for 60 s is 0.02, not 0.0198
        (60, 500, 60, (60, 500)),
        (MAX_SECONDS, 0, 86_400, (24_856 * 86_400, 0)),
        (MAX_SECONDS, 60, 1, (MAX_SECONDS, MAX_SECONDS)),
    ],
)
def test_whole_increments(
    duration: int, price_e8: int, increment: int, billed: tuple[int, int]
) -> None:
    assert charge(duration, price_e8, increment) == billed


@pytest.mark.parametrize("increment", [1, 6, 60, 86_400])
@pytest.mark.parametrize("rounding", [HALF_UP, HALF_EVEN, UP, DOWN])
def test_the_smallest_charge_is_one_increment(increment: int, rounding: int) -> None:
    price_e8 = 600
    assert charge(1, price_e8, increment, rounding=rounding) == (increment, increment * 10)


def test_a_call_of_no_seconds_costs_nothing() -> None:
    assert charge(0, 1500, 60, 700, 30, [(10, 5, 5)], UP) == (0, 0)


def test_the_connect_fee_is_added_once() -> None:
    assert charge(61, 600, 60, connect_fee_e8=123) == (120, 1323)


@pytest.mark.parametrize(
    ("duration", "bill_seconds"), [(0, 0), (1, 30), (29, 30), (30, 30), (31, 36), (36, 36)]
)
def test_minimum(duration: int, bill_seconds: int) -> None:
    assert charge(duration, 60, 6, minimum_seconds=30)[0] == bill_seconds


def test_the_minimum_comes_before_the_increment() -> None:
    assert charge(1, 60, 60, minimum_seconds=61)[0] == 120


# A call of 1 s at increment 1 costs price / 60: the price determines the remainder.
@pytest.mark.parametrize(
    ("price_e8", "half_up", "half_even", "up", "down"),
    [
        (0, 0, 0, 0, 0),
        (1, 0, 0, 1, 0),
        (29, 0, 0, 1, 0),  # one below the tie
        (30, 1, 0, 1, 0),  # the tie, with an even neighbour below
        (31, 1, 1, 1, 0),  # one above
        (59, 1, 1, 1, 0),
        (60, 1, 1, 1, 1),
        (61, 1, 1, 2, 1),
        (89, 1, 1, 2, 1),
        (90, 2, 2, 2, 1),  # the tie, with an even neighbour above
        (91, 2, 2, 2, 1),
    ],
)
def test_roundings(price_e8: int, half_up: int, half_even: int, up: int, down: int) -> None:
    assert charge(1, price_e8, 1, rounding=HALF_UP) == (1, half_up)
    assert charge(1, price_e8, 1, rounding=HALF_EVEN) == (1, half_even)
    assert charge(1, price_e8, 1, rounding=UP) == (1, up)
    assert charge(1, price_e8, 1, rounding=DOWN) == (1, down)


def test_only_the_total_is_rounded() -> None:
    # Three parts of 20 sixtieths each: rounded separately, their sum would be 0 or 3.
    assert charge(3, 20, 1, 0, 0, [(1, 20, 1), (2, 20, 1)]) == (3, 1)


@pytest.mark.parametrize(
    ("duration", "bill_seconds", "cost_sixtieths"),
    [
        (1, 30, 30 * 100),
        (30, 30, 30 * 100),
        (31, 60, 60 * 100),
        (59, 60, 60 * 100),
        (60, 60, 60 * 100),  # the next part has 0 seconds
        (61, 66, 60 * 100 + 6 * 50),
        (66, 66, 60 * 100 + 6 * 50),
        (99, 102, 60 * 100 + 42 * 50),  # rounded up past 100, which the call does not reach
        (100, 100, 60 * 100 + 40 * 50),  # reached: billed to 100, not to 102
        (101, 110, 60 * 100 + 40 * 50 + 10 * 7),
        (111, 120, 60 * 100 + 40 * 50 + 20 * 7),
    ],
)
def test_intervals(duration: int, bill_seconds: int, cost_sixtieths: int) -> None:
    intervals = [(60, 50, 6), (100, 7, 10)]
    assert charge(duration, 100, 30, 0, 0, intervals, DOWN) == (bill_seconds, cost_sixtieths // 60)


def test_the_minimum_applies_before_the_intervals() -> None:
    assert charge(1, 60, 1, 0, 100, [(60, 120, 60)]) == (120, 60 + 120)


def test_free_first_minute() -> None:
    assert charge(60, 0, 60, 0, 0, [(60, 600, 1)]) == (60, 0)
    assert charge(61, 0, 60, 0, 0, [(60, 600, 1)]) == (61, 10)


def test_an_interval_after_the_end_has_no_effect() -> None:
    assert charge(7, 200, 6, 0, 0, [(MAX_SECONDS, MAX_PRICE_E8, 1)]) == charge(7, 200, 6)


class TestOverflow:
    """The largest cost with 8 decimals is 9,999,999,999.99999999."""

    # bill_seconds * price + 60 * fee = 60 * MAX_COST_E8 + rest, with a rest below 60.
    seconds = 2_000_000_000

    def total(self, rest: int) -> dict[str, Any]:
        """Terms whose exact cost is MAX_COST_E8 + rest / 60."""
        wanted = 60 * MAX_COST_E8 + rest
        # Three parts: one at the highest price, one second for the remainder, and the fee.
        price_e8 = 29_999_999_900
        left = wanted - (self.seconds - 1) * price_e8
        fee, last = divmod(left, 60)
        last += 60 * max(0, fee - MAX_PRICE_E8)
        fee = min(fee, MAX_PRICE_E8)
        assert 0 <= last <= MAX_PRICE_E8
        return {
            "duration_seconds": self.seconds,
            "cost_per_minute_e8": price_e8,
            "billing_increment": 1,
            "connect_fee_e8": fee,
            "intervals": [(self.seconds - 1, last, 1)],
        }

    @pytest.mark.parametrize(
        ("rest", "rounding"),
        [(0, HALF_UP), (0, UP), (29, HALF_UP), (29, HALF_EVEN), (59, DOWN)],
    )
    def test_the_largest_cost(self, rest: int, rounding: int) -> None:
        billed = charge(**self.total(rest), rounding=rounding)
        assert billed == (self.seconds, MAX_COST_E8)

    @pytest.mark.parametrize(
        ("rest", "rounding"),
        [(60, DOWN), (30, HALF_UP), (30, HALF_EVEN), (31, HALF_EVEN), (1, UP), (10**6, DOWN)],
    )
    def test_a_cost_above_the_largest_is_refused(self, rest: int, rounding: int) -> None:
        with pytest.raises(OverflowError, match="its limit"):
            charge(**self.total(rest), rounding=rounding)

    def test_a_cost_far_above_the_largest_is_refused(self) -> None:
        # Beyond 2**64, also after the division.
        with pytest.raises(OverflowError, match="its limit"):
            charge(MAX_SECONDS, MAX_PRICE_E8, 86_400, MAX_PRICE_E8)

    def test_a_product_beyond_64_bits_is_no_overflow_yet(self) -> None:
        seconds, price_e8 = 5_999, MAX_PRICE_E8
        assert seconds * price_e8 > 2**64
        assert charge(seconds, price_e8, 1, rounding=DOWN) == (seconds, seconds * price_e8 // 60)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("duration_seconds", -1),
        ("duration_seconds", MAX_SECONDS + 1),
        ("cost_per_minute_e8", -1),
        ("cost_per_minute_e8", MAX_PRICE_E8 + 1),
        ("billing_increment", 0),
        ("billing_increment", -6),
        ("billing_increment", 86_401),
        ("connect_fee_e8", -1),
        ("connect_fee_e8", MAX_PRICE_E8 + 1),
        ("minimum_seconds", -1),
        ("minimum_seconds", MAX_SECONDS + 1),
        ("rounding", 0),
        ("rounding", 5),
    ],
)
def test_limits(field: str, wrong: int) -> None:
    terms: dict[str, Any] = {
        "duration_seconds": 1,
        "cost_per_minute_e8": 1,
        "billing_increment": 1,
    }
    with pytest.raises(ValueError, match=field):
        charge(**{**terms, field: wrong})


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("duration_seconds", MAX_SECONDS),
        ("cost_per_minute_e8", MAX_PRICE_E8),
        ("billing_increment", 86_400),
        ("connect_fee_e8", MAX_PRICE_E8),
        ("minimum_seconds", MAX_SECONDS),
        ("rounding", DOWN),
    ],
)
def test_limits_are_allowed(field: str, limit: int) -> None:
    terms: dict[str, Any] = {
        "duration_seconds": 1,
        "cost_per_minute_e8": 1,
        "billing_increment": 1,
    }
    charge(**{**terms, field: limit})


@pytest.mark.parametrize(
    ("intervals", "named"),
    [
        ([(0, 1, 1)], r"intervals\[0\].start_seconds"),
        ([(-1, 1, 1)], r"intervals\[0\].start_seconds"),
        ([(5, 1, 1), (5, 1, 1)], r"intervals\[1\].start_seconds"),
        ([(5, 1, 1), (4, 1, 1)], r"intervals\[1\].start_seconds"),
        ([(MAX_SECONDS, 1, 1), (MAX_SECONDS + 1, 1, 1)], r"intervals\[1\].start_seconds"),
        ([(1, -1, 1)], r"intervals\[0\].cost_per_minute_e8"),
        ([(1, MAX_PRICE_E8 + 1, 1)], r"intervals\[0\].cost_per_minute_e8"),
        ([(1, 1, 0)], r"intervals\[0\].billing_increment"),
        ([(1, 1, 1), (2, 1, 86_401)], r"intervals\[1\].billing_increment"),
        ([(second, 1, 1) for second in range(1, 66)], "at most 64"),
    ],
)
def test_limits_of_intervals(intervals: list[tuple[int, int, int]], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        charge(1, 1, 1, 0, 0, intervals)


def test_64_intervals() -> None:
    intervals = [(second, 60 * second, 1) for second in range(1, 65)]
    assert charge(65, 0, 1, 0, 0, intervals) == (65, sum(range(1, 65)))


@pytest.mark.parametrize("wrong", [1.0, "1", None, Fraction(1)])
def test_only_whole_numbers(wrong: object) -> None:
    for position in range(3):
        terms: list[Any] = [1, 1, 1]
        terms[position] = wrong
        with pytest.raises(TypeError):
            charge(*terms)
    with pytest.raises(TypeError):
        charge(1, 1, 1, intervals=[(1, wrong, 1)])  # type: ignore[list-item]


def test_numbers_beyond_64_bits() -> None:
    for position in range(3):
        terms: list[Any] = [1, 1, 1]
        terms[position] = 2**64
        with pytest.raises(OverflowError):
            charge(*terms)


@given(
    durations,
    prices,
    increments,
    prices,
    st.sampled_from([0, 0, 1, 30, 100]),
    interval_lists(),
    st.sampled_from([HALF_UP, HALF_EVEN, UP, DOWN]),
    st.integers(4, 8),
)
@example(MAX_SECONDS, MAX_PRICE_E8, 1, 0, 0, (), HALF_UP, 8)
@example(6_000, MAX_PRICE_E8, 1, 0, 0, (), DOWN, 8)
def test_as_the_oracle(
    duration: int,
    price_e8: int,
    increment: int,
    fee_e8: int,
    minimum: int,
    intervals: tuple[tuple[int, int, int], ...],
    rounding: int,
    cost_decimals: int,
) -> None:
    rate = PlainRate("", price_e8, increment, fee_e8, minimum, intervals).oracle()
    bill_seconds, exact = oracle.bill(rate, duration)
    cost = oracle.round_cost(exact, ROUNDING_NAMES[rounding], cost_decimals)
    arguments = (duration, price_e8, increment, fee_e8, minimum, intervals, rounding)
    if oracle.is_refused(cost, cost_decimals):
        with pytest.raises(OverflowError):
            charge(*arguments, cost_decimals=cost_decimals)
    else:
        scaled = int(cost * 10**cost_decimals)
        assert charge(*arguments, cost_decimals=cost_decimals) == (bill_seconds, scaled)


def test_every_increment_at_its_edges() -> None:
    """The core divides by multiplication. These numbers are the first that could be wrong."""
    longest = 2**31 - 1
    for increment in range(1, 86_401):
        last = longest // increment * increment
        for seconds in (1, increment, increment + 1, last - 1, last, min(last + 1, longest)):
            if seconds:
                whole = -(-seconds // increment) * increment
                assert charge(seconds, 60, increment) == (whole, whole), (seconds, increment)


@pytest.mark.parametrize("rounding", [HALF_UP, HALF_EVEN, UP, DOWN])
def test_prices_around_32_bits(rounding: int) -> None:
    """Below 2^32, the core has a fast path."""
    for price_e8 in (2**32 - 2, 2**32 - 1, 2**32, 2**32 + 1):
        for seconds in (1, 30, 59, 2**31 - 1):
            for fee_e8 in (0, MAX_PRICE_E8):
                whole, rest = divmod(seconds * price_e8 + 60 * fee_e8, 60)
                to_even = rest > 30 or (rest == 30 and whole % 2 == 1)
                up = {HALF_UP: rest >= 30, HALF_EVEN: to_even, UP: rest > 0, DOWN: False}
                want = whole + up[rounding]
                assert charge(seconds, price_e8, 1, fee_e8, rounding=rounding) == (seconds, want)
