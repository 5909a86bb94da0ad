"""Prices in text, exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model import MAX_COST_E4, MAX_PRICE_E4
from service.money import CURRENCIES, format_e4, parse_price


@pytest.mark.parametrize(
    ("text", "price_e4"),
    [
        ("0", 0),
        ("0.0", 0),
        ("0.0000", 0),
        ("1", 1_0000),
        ("0.1", 1000),
        ("0.012", 120),
        ("0.0001", 1),
        ("007.5", 7_5000),
        ("0" * 500 + "1", 1_0000),
        ("99999999.9999", MAX_PRICE_E4),
    ],
)
def test_a_price_is_read_exactly(text: str, price_e4: int) -> None:
    assert parse_price(text) == price_e4


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1 ", " 1", "1\n", "+1", "-1", "-0", "1e3", "0x1", "1_000", "1,000.00", "0,5"),
        *(".5", "5.", ".", "1.2.3", "NaN", "Infinity", "٣", "１", "1.٣", "$1", "1\0"),
    ],
)
def test_what_is_no_plain_decimal_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a decimal number"):
        parse_price(text)


@pytest.mark.parametrize("text", ["0.00001", "0.00000", "1.23456", "1." + "0" * 5000])
def test_a_price_is_never_rounded(text: str) -> None:
    with pytest.raises(ValueError, match="at most 4 decimals"):
        parse_price(text)


@pytest.mark.parametrize("text", ["100000000", "100000000.0000", "999999999", "9" * 5000])
def test_a_price_has_an_upper_limit(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be 0 to 99999999\.9999"):
        parse_price(text)


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(ValueError, match="decimal") as raised:
        parse_price("x" * 10_000)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("amount_e4", "text"),
    [
        (0, "0.0000"),
        (1, "0.0001"),
        (-1, "-0.0001"),
        (1386, "0.1386"),
        (-1_0000, "-1.0000"),
        (12_3400, "12.3400"),
        (MAX_COST_E4, "999999999999999.9999"),
    ],
)
def test_an_amount_is_shown_with_four_decimals(amount_e4: int, text: str) -> None:
    assert format_e4(amount_e4) == text


@given(st.integers(0, MAX_PRICE_E4))
def test_what_is_shown_is_read_back(price_e4: int) -> None:
    assert parse_price(format_e4(price_e4)) == price_e4


def test_currencies_are_the_active_ones() -> None:
    assert {"USD", "EUR", "GBP", "JPY", "XOF", "ZWG", "XCG"} <= CURRENCIES
    assert not CURRENCIES & {"usd", "", "ZZZ", "XXX", "XTS", "XAU", "DEM", "HRK", "ANG", "BGN"}
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)
