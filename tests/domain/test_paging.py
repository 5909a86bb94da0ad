"""Page sizes and page tokens."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.paging import (
    MAX_PAGE_BYTES,
    cut,
    decode_token,
    encode_token,
    fitting,
    page_size,
)

_KEY = (7, "44", -5)
_TYPES = (int, str, int)


def _refuses(token: str, filters: object = "f") -> InvalidInput:
    with pytest.raises(InvalidInput) as raised:
        decode_token(token, filters, _TYPES)
    assert [violation.field for violation in raised.value.violations] == ["page_token"]
    return raised.value


def _forged(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("requested", "size"),
    [(0, 50), (1, 1), (50, 50), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)],
)
def test_page_size(requested: int, size: int) -> None:
    assert page_size(requested) == size


@pytest.mark.parametrize("requested", [-1, -(2**31)])
def test_a_negative_page_size_is_refused(requested: int) -> None:
    with pytest.raises(InvalidInput) as raised:
        page_size(requested)
    assert [violation.field for violation in raised.value.violations] == ["page_size"]


@pytest.mark.parametrize(
    ("sizes", "page_size", "shown"),
    [
        ([], 3, 0),
        ([1, 2, 3], 3, 3),
        ([1, 2, 3], 2, 2),
        ([MAX_PAGE_BYTES, 0, 1], 3, 2),
        ([MAX_PAGE_BYTES + 1, 0], 3, 1),
        ([5, MAX_PAGE_BYTES - 5, 1], 3, 2),
        ([5, MAX_PAGE_BYTES - 4], 3, 1),
    ],
)
def test_a_page_ends_by_number_and_by_size(sizes: list[int], page_size: int, shown: int) -> None:
    assert fitting(sizes, page_size, lambda size: size) == sizes[:shown]


@pytest.mark.parametrize(
    ("found", "page_size", "shown"),
    [([], 2, 0), ([5, 6], 2, 2), ([5, 6, 7], 2, 2), ([5, MAX_PAGE_BYTES], 2, 1)],
)
def test_a_page_has_a_token_if_items_follow(found: list[int], page_size: int, shown: int) -> None:
    page = cut(found, page_size, "f", lambda item: (item, "x", 0), lambda item: item)
    assert page.items == found[:shown]
    key = decode_token(page.next_page_token, "f", _TYPES)
    assert key is None if shown == len(found) else key == [found[shown - 1], "x", 0]
    assert len(cut(found, page_size, "f", lambda item: (item,)).items) == min(len(found), 2)


def test_a_token_gives_its_key_back() -> None:
    token = encode_token("f", _KEY)
    assert decode_token(token, "f", _TYPES) == [7, "44", -5]
    assert token.isascii()
    assert "=" not in token


def test_no_token_is_the_first_page() -> None:
    assert decode_token("", "f", _TYPES) is None


@pytest.mark.parametrize("filters", ["g", ("f",), None])
def test_a_token_is_valid_for_its_own_list_only(filters: object) -> None:
    error = _refuses(encode_token("f", _KEY), filters)
    assert "with these filters" in error.message


@pytest.mark.parametrize(
    "token", ["x", "xxxx", "{}", "é", "a" * 5000, "W10", "bnVsbA", "====", "+/+/", "\0"]
)
def test_a_damaged_token_is_refused(token: str) -> None:
    _refuses(token)


@pytest.mark.parametrize(
    "key",
    [
        (),
        (7, "44"),
        (7, "44", -5, 1),
        ("7", "44", -5),
        (7, 44, -5),
        (7, "44", None),
        (True, "44", -5),
        (7.0, "44", -5),
        (2**63, "44", -5),
        (-(2**63), "44", -5),
        (7, "4\0", -5),
        (7, "\ud800", -5),
        (7, ["44"], -5),
    ],
)
def test_a_forged_token_is_refused(key: tuple[Any, ...]) -> None:
    digest = json.loads(base64.urlsafe_b64decode(encode_token("f", ()) + "=="))[0]
    assert decode_token(_forged(digest, *_KEY), "f", _TYPES) is not None
    _refuses(_forged(digest, *key))


def test_a_token_nested_without_end_is_refused() -> None:
    _refuses(base64.urlsafe_b64encode(b"[" * 3000).decode())
