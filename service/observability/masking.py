"""Telephone numbers in texts that are not for everybody: all digits but the last two are hidden.

Whatever could be a number counts as one: five digits or more, also with the separators that people
and switches write between them. So lengths stay visible, and who knows a number recognises its end.
Addresses of machines and dates look alike and are left as they are. Knows nothing of logs.
"""

from __future__ import annotations

import re

# Fewer are dialled within an office, and as often years, ports or counts.
LEAST_DIGITS = 5
SHOWN_DIGITS = 2

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS = rf"(?<![\d.]){_OCTET}(?:\.{_OCTET}){{3}}(?::[0-9]{{1,5}})?(?![\d.]|[ -]\d)"
_DATE = (
    r"(?<!\d)(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:[ T][0-2][0-9]:[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,9})?)?)?(?![\d-])"
)
# Between two digits: what rule 2 of the contract removes from a number, up to three of them.
_NUMBER = rf"\d(?:[-\t\x20\xa0.()/]{{0,3}}\d){{{LEAST_DIGITS - 1},}}"

_FOUND = re.compile(rf"(?P<kept>{_ADDRESS}|{_DATE})|{_NUMBER}")
_DIGIT = re.compile(r"\d")


def mask(text: str) -> str:
    """The text without its telephone numbers."""
    return _FOUND.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    if found["kept"] is not None:
        return found[0]
    number = found[0]
    hidden = len(_DIGIT.findall(number)) - SHOWN_DIGITS
    return _DIGIT.sub("*", number, count=hidden)
