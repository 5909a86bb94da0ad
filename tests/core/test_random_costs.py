"""Random costs against the oracle: prices of 0 to 8 decimals, costs of 4 to 8, every rounding.

The terms are drawn where errors are likely: totals at, just below and just above a rounding step
and a tie, costs at the limit, prices around 2^32 (below, the core has a fast path), intervals,
minimums and fees. ``make test-costs`` compares ten million; the test suite some thousands.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from fractions import Fraction

from ratingcore import charge, max_cost
from tests import oracle
from tests.oracle import OracleInterval, OracleRate

ROUNDINGS = ((1, "HALF_UP"), (2, "HALF_EVEN"), (3, "UP"), (4, "DOWN"))
DEFAULT_COMPARISONS = 20_000
MAX_PRICE_E8 = 9_999_999_999_999_999
MAX_SECONDS = 2**31 - 1
INCREMENTS = (1, 1, 6, 7, 30, 60, 86_400)

Terms = tuple[int, int, int, int, int, tuple[tuple[int, int, int], ...]]


def _price(draw: random.Random) -> int:
    """With 0 to 8 decimals."""
    decimals = draw.randint(0, 8)
    match draw.randrange(8):
        case 0:
            price = draw.choice((0, MAX_PRICE_E8, 2**32 - 1, 2**32, 2**32 + 1))
        case 1:
            price = draw.randint(0, MAX_PRICE_E8)
        case _:
            price = draw.randint(0, 10 ** draw.randint(1, 10))
    return price - price % 10 ** (8 - decimals)


def _seconds(draw: random.Random) -> int:
    if draw.random() < 0.1:
        return draw.choice((0, 1, MAX_SECONDS, draw.randint(0, MAX_SECONDS)))
    return draw.randint(0, 4_000)


def _any(draw: random.Random, decimals: int) -> Terms:
    starts = ()
    if draw.random() < 0.3:
        starts = tuple(sorted(draw.sample(range(1, 3_000), draw.randint(1, 5))))
    return (
        _seconds(draw),
        _price(draw),
        draw.choice(INCREMENTS),
        draw.choice((0, 0, _price(draw))),
        draw.choice((0, 0, 30, _seconds(draw))),
        tuple((start, _price(draw), draw.choice(INCREMENTS)) for start in starts),
    )


def _at_a_step(draw: random.Random, decimals: int) -> Terms:
    """One second at a price with a remainder of 0, a half or a whole step, or next to it."""
    step = 60 * 10 ** (8 - decimals)
    rest = draw.choice((0, step // 2)) + draw.choice((-1, 0, 0, 1))
    price = max(0, draw.randint(0, 10 ** draw.randint(1, 8)) * step + rest)
    return 1, min(price, MAX_PRICE_E8), 1, draw.choice((0, 0, 1, 5 * 10**7)), 0, ()


def _at_the_limit(draw: random.Random, decimals: int) -> Terms:
    """The highest cost, or one next to it, from an interval of one second and the fee."""
    step = 10 ** (8 - decimals)
    wanted = 60 * step * max_cost(decimals) + draw.choice((0, 30 * step)) + draw.randint(-2, 2)
    seconds = draw.randint(1_000_000_000, MAX_SECONDS - 1)
    price = min(wanted // seconds, MAX_PRICE_E8)
    fee, last = divmod(wanted - seconds * price, 60)
    if fee > MAX_PRICE_E8:
        fee, last = MAX_PRICE_E8, last + 60 * (fee - MAX_PRICE_E8)
    return seconds + 1, price, 1, fee, 0, ((seconds, min(last, MAX_PRICE_E8), 1),)


DRAWS: tuple[Callable[[random.Random, int], Terms], ...] = (_any, _any, _at_a_step, _at_the_limit)


def _expected(terms: Terms, rounding: str, decimals: int) -> tuple[int, str] | None:
    seconds, price, increment, fee, minimum, intervals = terms
    rate = OracleRate(
        "",
        Fraction(price, 10**8),
        increment,
        Fraction(fee, 10**8),
        minimum,
        tuple(
            OracleInterval(start, Fraction(cost, 10**8), step) for start, cost, step in intervals
        ),
    )
    bill_seconds, exact = oracle.bill(rate, seconds)
    cost = oracle.round_cost(exact, rounding, decimals)
    if oracle.is_refused(cost, decimals):
        return None
    return bill_seconds, oracle.show(cost, decimals)


def _found(terms: Terms, rounding: int, decimals: int) -> tuple[int, str] | None:
    try:
        bill_seconds, scaled = charge(*terms, rounding, decimals)
    except OverflowError:
        return None
    text = f"{scaled:0{decimals + 1}d}"
    return bill_seconds, f"{text[:-decimals]}.{text[-decimals:]}"


def compare(count: int, seed: int) -> tuple[list[object], dict[str, int]]:
    """The failed comparisons, and the number of comparisons of each kind."""
    draw = random.Random(seed)
    wrong: list[object] = []
    kinds: dict[str, int] = {}
    made = 0
    while made < count:
        decimals = draw.randint(4, 8)
        drawn = draw.choice(DRAWS)
        terms = drawn(draw, decimals)
        number, name = draw.choice(ROUNDINGS)
        expected = _expected(terms, name, decimals)
        if _found(terms, number, decimals) != expected:
            wrong.append((terms, name, decimals))
        kind = "refused" if expected is None else drawn.__name__.strip("_")
        kinds[kind] = kinds.get(kind, 0) + 1
        made += 1
    return wrong, kinds


def test_random_costs(record_property: Callable[[str, object], None]) -> None:
    count = int(os.environ.get("TOLLWIRE_TEST_COMPARISONS", DEFAULT_COMPARISONS))
    began = time.monotonic()
    wrong, kinds = compare(count, int(os.environ.get("TOLLWIRE_TEST_SEED", "1")))
    assert wrong == []
    assert sum(kinds.values()) == count
    assert set(kinds) == {"any", "at_a_step", "at_the_limit", "refused"}
    if count > DEFAULT_COMPARISONS:
        seconds = time.monotonic() - began
        record_property("random costs", f"{count:,} compared in {seconds:.0f} s, {kinds}, 0 differ")
