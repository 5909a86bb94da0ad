"""Shared by the tests of the core: plain rates, and decks of the core and of the oracle from
them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

import ratingcore
from ratingcore import Deck, DeckBuilder
from tests.oracle import OracleDeck, OracleInterval, OracleRate, OracleResult

ROUNDING_NAMES = {1: "HALF_UP", 2: "HALF_EVEN", 3: "UP", 4: "DOWN"}
STATUS_NAMES = {0: "", 1: "RATED", 2: "NOT_BILLABLE", 3: "UNRATED"}
REASON_NAMES = {0: "", 1: "NO_RATE", 2: "BLOCKED", 3: "INVALID_NUMBER"}


@dataclass(frozen=True)
class PlainRate:
    prefix: str
    price_e8: int = 100
    increment: int = 60
    connect_fee_e8: int = 0
    minimum_seconds: int = 0
    intervals: tuple[tuple[int, int, int], ...] = ()
    from_ns: int | None = None
    to_ns: int | None = None
    blocked: bool = False
    destination: str = "somewhere"

    def arguments(self, version_id: int) -> tuple[Any, ...]:
        """The arguments of DeckBuilder.put. A rate id is the version id plus 1000, so that a test
        can distinguish them."""
        return (
            version_id,
            version_id + 1000,
            self.prefix,
            self.destination,
            self.price_e8,
            self.increment,
            self.connect_fee_e8,
            self.minimum_seconds,
            self.intervals,
            self.from_ns,
            self.to_ns,
            self.blocked,
        )

    def put(self, builder: DeckBuilder, version_id: int) -> None:
        builder.put(*self.arguments(version_id))

    def oracle(self) -> OracleRate:
        return OracleRate(
            self.prefix,
            Fraction(self.price_e8, 10**8),
            self.increment,
            Fraction(self.connect_fee_e8, 10**8),
            self.minimum_seconds,
            tuple(
                OracleInterval(start, Fraction(price_e8, 10**8), increment)
                for start, price_e8, increment in self.intervals
            ),
            self.from_ns,
            self.to_ns,
            self.blocked,
        )


def deck_of(
    rates: Iterable[PlainRate],
    rounding: int = 1,
    dialling: Sequence[str] = (),
    cost_decimals: int = 8,
) -> Deck:
    """The version of each rate is its index in the list. Costs have the scale of prices by
    default."""
    builder = DeckBuilder()
    for version_id, rate in enumerate(rates):
        rate.put(builder, version_id)
    deck = builder.build(1, rounding, *(dialling or ("", "", "")), cost_decimals)
    deck._check()
    return deck


def oracle_of(
    rates: Iterable[PlainRate],
    rounding: int = 1,
    dialling: Sequence[str] = (),
    cost_decimals: int = 8,
) -> OracleDeck:
    return OracleDeck(
        [rate.oracle() for rate in rates],
        ROUNDING_NAMES[rounding],
        *(dialling or ("", "", "")),
        cost_decimals=cost_decimals,
    )


@dataclass(frozen=True)
class PlainCall:
    number: str
    at_ns: int = 0
    seconds: int = 60
    billable: bool = True


def outcome(deck: Deck, call: PlainCall) -> tuple[object, ...]:
    """Status, reason, billed seconds, cost, and the version that matched."""
    rating = deck.rate(call.number, call.at_ns, call.seconds, call.billable)
    return (
        STATUS_NAMES[rating.status],
        REASON_NAMES[rating.unrated_reason],
        rating.bill_seconds,
        rating.cost_scaled,
        rating.version_id if rating.rate_index >= 0 else None,
    )


def expected(oracle: OracleDeck, call: PlainCall) -> tuple[object, ...]:
    result: OracleResult = oracle.rate(call.number, call.at_ns, call.seconds, call.billable)
    cost_scaled = None if result.cost is None else result.cost * 10**oracle.cost_decimals
    return (result.status, result.reason, result.bill_seconds, cost_scaled, result.rate_index)


def columns_of(
    calls: Sequence[PlainCall],
) -> tuple[bytes, array[int], array[int], array[int], bytes]:
    """The arguments of Deck.rate_columns."""
    numbers = [call.number.encode("utf-8", "surrogatepass") for call in calls]
    offsets = array("q", [0])
    for number in numbers:
        offsets.append(offsets[-1] + len(number))
    return (
        b"".join(numbers),
        offsets,
        array("q", [call.seconds for call in calls]),
        array("q", [call.at_ns for call in calls]),
        bytes(call.billable for call in calls),
    )


def batch_outcomes(deck: Deck, calls: Sequence[PlainCall]) -> list[tuple[object, ...]]:
    """The same as ``outcome``, for all calls at once."""
    columns = deck.rate_columns(*columns_of(calls))
    outcomes: list[tuple[object, ...]] = []
    for status, reason, bill_seconds, cost_scaled, index, length in zip(*columns, strict=True):
        has_cost = status in (ratingcore.RATED, ratingcore.NOT_BILLABLE)
        if not has_cost:
            assert (bill_seconds, cost_scaled) == (0, 0)
        matched = deck.rate_at(index) if index >= 0 else None
        assert length == (len(matched.prefix) if matched else 0)
        outcomes.append(
            (
                STATUS_NAMES[status],
                REASON_NAMES[reason],
                bill_seconds if has_cost else None,
                cost_scaled if has_cost else None,
                matched.version_id if matched else None,
            )
        )
    return outcomes


# Few digits and few times, so that many prefixes are nested and many windows are adjacent.
digits = st.text("0123", max_size=6)
prefixes = digits | st.text("01", max_size=2) | st.text("5", min_size=30, max_size=32)
instants = st.integers(-3, 12)
far_instants = st.sampled_from([-(10**22), -(2**63), 2**63 - 1, 2**63, 10**22])
prices = st.integers(0, 30) | st.integers(0, 9_999_999_999_999_999)
increments = st.sampled_from([1, 6, 7, 30, 60, 86_400])
durations = st.integers(0, 200) | st.sampled_from([3_600, 86_400, 2_147_483_647])
dialling_rules = st.sampled_from(
    [("", "", ""), ("12", "0", "00"), ("3", "03", ""), ("", "", "01"), ("", "0", "")]
)


@st.composite
def interval_lists(draw: st.DrawFn) -> tuple[tuple[int, int, int], ...]:
    starts = sorted(draw(st.sets(st.integers(1, 150), max_size=3)))
    return tuple((start, draw(prices), draw(increments)) for start in starts)


@st.composite
def plain_rates(draw: st.DrawFn) -> PlainRate:
    window = sorted(
        [draw(st.none() | instants | far_instants), draw(st.none() | instants | far_instants)],
        key=lambda bound: (bound is not None, bound or 0),
    )
    begin, end = window if draw(st.booleans()) else window[::-1]
    if begin is not None and end is not None and begin >= end:
        begin, end = (end, begin) if begin > end else (begin, None)
    return PlainRate(
        draw(prefixes),
        draw(prices),
        draw(increments),
        draw(st.just(0) | prices),
        draw(st.sampled_from([0, 0, 1, 30, 100])),
        draw(st.just(()) | interval_lists()),
        begin,
        end,
        draw(st.sampled_from([False, False, False, True])),
        draw(st.sampled_from(["", "UK", "Zürich", "東京"])),
    )


def distinct(rates: Iterable[PlainRate]) -> list[PlainRate]:
    """Without rates whose prefix and start an earlier one has."""
    seen: dict[tuple[str, int | None], PlainRate] = {}
    for rate in rates:
        seen.setdefault((rate.prefix, rate.from_ns), rate)
    return list(seen.values())


rate_lists = st.lists(plain_rates(), max_size=30).map(distinct)

numbers = (
    st.text("0123", max_size=8)
    | st.text("5", min_size=28, max_size=34)
    | st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["", "+", "00", "0", "sip:", "SIPS:", "tel:+", "(+", " "]),
            st.text("0123 -./()", max_size=20),
            st.sampled_from(["", "@host", ";ext=1", "x", "é", "+", "\ud800"]),
        ),
    )
    | st.text(max_size=10)
)
calls = st.builds(
    PlainCall,
    numbers,
    instants | st.sampled_from([-(2**63), 2**63 - 1]),
    durations,
    st.sampled_from([True] * 9 + [False]),
)
