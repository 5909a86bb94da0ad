"""Rating rule 2: normalisation of dialled numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore import normalize_number, normalize_prefix
from tests import oracle
from tests.core.decks import dialling_rules, numbers

UK = ("44", "0", "00")


@pytest.mark.parametrize(
    ("number", "digits"),
    [
        ("447911123456", "447911123456"),
        ("+447911123456", "447911123456"),
        ("+44 20 7946-0000", "442079460000"),
        ("(+44) 20.7946/0000", "442079460000"),
        ("sip:+4930123456@example.com", "4930123456"),
        ("SIPS:4930123456;user=phone", "4930123456"),
        ("Tel:+49-30-123456", "4930123456"),
        ("sip:tel:49", None),  # one scheme, once
        ("49;ext=5@host", "49"),
        ("49@host;x", "49"),
        ("49@\ud800", "49"),  # text after "@" is ignored
        ("49@bücher", "49"),
        ("++49", None),
        ("4+9", None),
        ("49x", None),
        ("49é", None),
        ("49\ud800", None),
        ("４９", None),  # digits that are not ASCII
        ("٤٩", None),
        ("49\u00a030", None),  # a space that is not ASCII
        ("49\t30", None),
        ("49\x0030", None),
        ("", None),
        ("+", None),
        ("-", None),
        ("sip:", None),
        ("sip:@host", None),
        ("sip", None),
        ("tel", None),
        ("9" * 32, "9" * 32),
        ("9" * 33, None),
        ("+" + "9" * 32, "9" * 32),
        ("-" * 500 + "9" * 32 + "-" * 500, "9" * 32),
        ("0", "0"),
    ],
)
def test_without_dialling_rules(number: str, digits: str | None) -> None:
    assert normalize_number(number) == digits


@pytest.mark.parametrize(
    ("number", "rules", "digits"),
    [
        ("02079460000", UK, "442079460000"),
        ("0044207946", UK, "44207946"),
        ("+02079460000", UK, "02079460000"),  # no rule applies after a "+"
        ("+0044", UK, "0044"),
        ("442079460000", UK, "442079460000"),
        ("(0)20 7946", UK, "44207946"),
        ("0", UK, "44"),
        ("00", UK, None),  # no digit is left
        ("00" + "1" * 32, UK, "1" * 32),
        ("00" + "1" * 33, UK, None),
        ("0" + "1" * 30, UK, "44" + "1" * 30),
        ("0" + "1" * 31, UK, None),  # longer than as it was sent
        ("0" + "1" * 32, UK, None),
        ("0123", ("", "0", ""), "0123"),  # a national prefix has no effect without a country code
        ("0123", ("44", "", ""), "0123"),
        ("011442079", ("1", "1", "011"), "442079"),
        ("12125550100", ("1", "1", "011"), "12125550100"),
        ("00123", ("44", "00", "0"), "0123"),  # the international prefix comes first
        ("0" * 16 + "5", ("", "", "0" * 16), "5"),
        ("1", ("", "", "12"), "1"),  # shorter than the prefix
    ],
)
def test_with_dialling_rules(number: str, rules: tuple[str, str, str], digits: str | None) -> None:
    assert normalize_number(number, *rules) == digits


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("rule", ["+44", "4 4", "é", "٤", "4" * 17, "\ud800"])
def test_dialling_rules_are_digits(position: int, rule: str) -> None:
    rules = ["", "", ""]
    rules[position] = rule
    with pytest.raises(ValueError, match=["country", "national", "international"][position]):
        normalize_number("1", *rules)


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("", ""),
        ("44", "44"),
        ("+44", "44"),
        ("0044", "0044"),
        ("+" + "4" * 32, "4" * 32),
        ("+" + "4" * 33, None),
        # A text that is not a prefix must not become another prefix.
        *[
            (text, None)
            for text in (
                *("79298 3-9", "4470-4479", "44/45", "447.0", "44,45", "44;45", "44;x", "+44 (20)"),
                *("tel:44", "sip:44", "44@x", " 44", "44 ", "+ 44", "44+", "4+4", "-44", "44\0"),
                *("44\n", "\t44", "44\u00a0", "４４", "٤٤", "44x", "4e1", "0x44", "'44", "4_4"),
            )
        ],
        ("+", None),  # only the empty text is the catch-all
        (" ", None),
        ("sip:", None),
        ("@", None),
        ("4" * 32, "4" * 32),
        ("4" * 33, None),
        ("++4", None),
        ("++", None),
        ("x", None),
        ("é", None),
        ("\ud800", None),
    ],
)
def test_prefixes(text: str, prefix: str | None) -> None:
    assert normalize_prefix(text) == prefix


@given(numbers | st.text(), dialling_rules)
def test_numbers_as_the_oracle(number: str, rules: tuple[str, str, str]) -> None:
    assert normalize_number(number, *rules) == oracle.normalize(number, *rules)


@given(numbers | st.text())
def test_prefixes_as_the_oracle(text: str) -> None:
    assert normalize_prefix(text) == oracle.normalize_prefix(text)


def test_only_text_is_a_number() -> None:
    for wrong in (None, 49, b"49"):
        with pytest.raises(TypeError):
            normalize_number(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            normalize_prefix(wrong)  # type: ignore[arg-type]
