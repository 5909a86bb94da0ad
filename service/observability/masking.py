"""Masks telephone numbers in texts: all digits but the last two.

Five or more digits, also with the usual separators between them, are a telephone number. The length
stays visible, and the last two digits help to recognise a known number. IP addresses and dates are
not masked. Must not depend on logs.
"""

from __future__ import annotations

import re

# Shorter numbers are internal extensions, years, ports or counts.
MIN_DIGITS = 5
SHOWN_DIGITS = 2

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS = rf"(?<![\d.]){_OCTET}(?:\.{_OCTET}){{3}}(?::[0-9]{{1,5}})?(?![\d.]|[ -]\d)"
_DATE = (
    r"(?<!\d)(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:[ T][0-2][0-9]:[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,9})?)?)?(?![\d-])"
)
# Between two digits: up to three separators. These are the characters that the normalization of
# numbers removes (docs/api.md).
_NUMBER = rf"\d(?:[-\t\x20\xa0.()/]{{0,3}}\d){{{MIN_DIGITS - 1},}}"

_FOUND = re.compile(rf"(?P<kept>{_ADDRESS}|{_DATE})|{_NUMBER}")
_DIGIT = re.compile(r"\d")


def mask(text: str) -> str:
    """The text with its telephone numbers masked."""
    return _FOUND.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    if found["kept"] is not None:
        return found[0]
    number = found[0]
    hidden = len(_DIGIT.findall(number)) - SHOWN_DIGITS
    return _DIGIT.sub("*", number, count=hidden)
