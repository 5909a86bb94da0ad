"""Texts with telephone numbers, and their masked forms."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tollwire.service.observability import request_ids
from tollwire.service.observability.masking import mask

DIGITS = st.text("0123456789", min_size=7, max_size=32)
# In the notation of dates and addresses of machines.
LIKE_ANOTHER = re.compile(r"(19|20)\d\d-\d\d-\d\d|(\d{1,3}\.){3}\d{1,3}")
SEPARATORS = st.sampled_from(["", "", " ", "-", ".", "/", "(", ")", ") ", " (", "\u00a0"])


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("447911123456", "**********56"),
        ("call to '+44 20 7946 0958' failed", "call to '+** ** **** **58' failed"),
        ("sip:+4930901820@example.org;user=phone", "sip:+********20@example.org;user=phone"),
        ("(0)30/90 18-20", "(*)**/** **-20"),
        ("a447911123456b", "a**********56b"),
        ("key (1, 447911123456) exists", "key (1, **********56) exists"),
        ("12345", "***45"),
        ("1234 rows, line 17, 10 s", "1234 rows, line 17, 10 s"),
        ("", ""),
        # Machines and dates.
        ("127.0.0.1:50051 is taken", "127.0.0.1:50051 is taken"),
        ("at 10.20.30.40, port 5432", "at 10.20.30.40, port 5432"),
        ("2026-11-23 13:04:05.123456 UTC", "2026-11-23 13:04:05.123456 UTC"),
        ("until 2026-11-23T13:04", "until 2026-11-23T13:04"),
        # Texts that only look like numbers.
        ("447.911.123.456", "***.***.***.*56"),
        ("127.0.0.1 447911123456", "***.*.*.* **********56"),
        ("2026-11-23 447911123456", "2026-11-23 **********56"),
        ("1.2.3.4.5", "*.*.*.4.5"),
    ],
)
def test_texts(text: str, masked: str) -> None:
    assert mask(text) == masked


@given(DIGITS, st.data(), st.text("abc: '", max_size=5))
def test_however_a_number_is_written(digits: str, data: st.DataObject, around: str) -> None:
    written = "".join(digit + data.draw(SEPARATORS) for digit in digits)
    masked = mask(f"{around}{written}{around}")
    assert len(masked) == len(f"{around}{written}{around}")
    assume(LIKE_ANOTHER.search(written) is None)
    assert sum(character.isdigit() for character in masked) <= 2


def test_a_client_names_its_request() -> None:
    name = str(uuid.uuid4())
    assert request_ids.taken(name) == name
    assert request_ids.shown(name, mask) == name
    assert request_ids.taken("order-17/a") == "order-17/a"
    for unusable in (None, "", b"bytes", "x" * 129, "two words", "line\nbreak", "é"):
        assert request_ids.taken(unusable) != unusable
        assert request_ids.taken(unusable)


def test_a_name_that_may_be_a_number_is_masked() -> None:
    assert request_ids.shown("447911123456", mask) == "**********56"
    assert request_ids.shown("call-447911123456", mask) == "call-**********56"
    # The form of a UUID, but without a letter.
    assert "4479111234567890" not in request_ids.shown("4479111234567890" * 2, mask)
    own = request_ids.new()
    assert request_ids.shown(own, mask) == own
    assert request_ids.new() != own
