"""Prices in text, exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollwire.service.domain.model import MAX_COST_E8, MAX_PRICE_E8
from tollwire.service.domain.money import (
    CURRENCIES,
    decimals_of,
    format_cost,
    format_price,
    parse_price,
)


@pytest.mark.parametrize(
    ("text", "price_e8"),
    [
        ("0", 0),
        ("0.0", 0),
        ("0.0000", 0),
        ("1", 1_0000_0000),
        ("0.1", 1000_0000),
        ("0.012", 120_0000),
        ("0.0001", 1_0000),
        ("0.00137", 13_7000),
        ("0.00750", 75_0000),
        ("0.012000000000", 120_0000),
        ("0.00000001", 1),
        ("0." + "0" * 5000, 0),
        ("007.5", 7_5000_0000),
        ("0" * 500 + "1", 1_0000_0000),
        ("99999999.9999", MAX_PRICE_E8 - 9999),
        ("99999999.99999999000", MAX_PRICE_E8),
    ],
)
def test_a_price_is_read_exactly(text: str, price_e8: int) -> None:
    assert parse_price(text) == price_e8


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1 ", " 1", "1\n", "+1", "-1", "-0", "1e3", "0x1", "1_000", "1,000.00", "0,5"),
        *(".5", "5.", ".", "1.2.3", "NaN", "Infinity", "٣", "１", "1.٣", "$1", "1\0"),
    ],
)
def test_texts_that_are_no_plain_decimal_number_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a decimal number"):
        parse_price(text)


@pytest.mark.parametrize(
    "text", ["0.000000001", "1.234567891", "0.0000000010", "1." + "0" * 5000 + "1"]
)
def test_a_price_is_never_rounded(text: str) -> None:
    with pytest.raises(ValueError, match="at most 8 decimals"):
        parse_price(text)


@pytest.mark.parametrize("text", ["100000000", "100000000.0000", "999999999", "9" * 5000])
def test_a_price_has_an_upper_limit(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be 0 to 99999999\.99999999;"):
        parse_price(text)


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(ValueError, match="decimal") as raised:
        parse_price("x" * 10_000)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("cost_e8", "decimals", "text"),
    [
        (0, 4, "0.0000"),
        (0, 8, "0.00000000"),
        (1_0000, 4, "0.0001"),
        (-1_0000, 4, "-0.0001"),
        (-1, 8, "-0.00000001"),
        (1386_0000, 4, "0.1386"),
        (1386_0000, 5, "0.13860"),
        (1386_1200, 6, "0.138612"),
        (-1_0000_0000, 7, "-1.0000000"),
        (12_3400_0000, 4, "12.3400"),
        (MAX_COST_E8, 4, "999999999999999.9999"),
    ],
)
def test_a_cost_is_shown_with_exactly_its_decimals(cost_e8: int, decimals: int, text: str) -> None:
    assert format_cost(cost_e8, decimals) == text
    assert decimals_of(cost_e8) <= decimals


@pytest.mark.parametrize(
    ("price_e8", "text"),
    [
        (0, "0.0000"),
        (200_0000, "0.0200"),
        (13_7000, "0.00137"),
        (1, "0.00000001"),
        (10, "0.0000001"),
        (75_0000, "0.0075"),
        (MAX_PRICE_E8, "99999999.99999999"),
    ],
)
def test_a_price_has_its_decimals_and_at_least_four(price_e8: int, text: str) -> None:
    assert format_price(price_e8) == text


@given(st.integers(0, MAX_PRICE_E8))
def test_a_shown_price_is_read_back(price_e8: int) -> None:
    assert parse_price(format_price(price_e8)) == price_e8


def test_currencies_are_the_active_ones() -> None:
    assert {"USD", "EUR", "GBP", "JPY", "XOF", "ZWG", "XCG"} <= CURRENCIES
    assert not CURRENCIES & {"usd", "", "ZZZ", "XXX", "XTS", "XAU", "DEM", "HRK", "ANG", "BGN"}
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)
