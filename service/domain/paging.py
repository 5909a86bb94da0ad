"""Pages of lists, as in AIP-158: sizes are clamped, tokens are opaque.

A token contains the key of the last item of a page and a digest of the filters. So a list continues
exactly after that item, also if items were added or removed meanwhile, and a token is valid only
for its list. A token is not secret and may be forged, so its contents are checked like any input.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from tollwire.service.domain.errors import invalid_field
from tollwire.service.domain.model import MAX_ID, Page

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
# gRPC clients refuse responses above 4 MiB by default.
MAX_PAGE_BYTES = 2 * 2**20
_MAX_TOKEN_CHARS = 4096
# One message for all cases: it must not reveal that a token was issued to another caller.
_NOT_OF_THIS_LIST = (
    "was not returned by this list with these filters for this caller; start again without a"
    " page_token"
)

T = TypeVar("T")


class HasId(Protocol):
    @property
    def id(self) -> int: ...


def page_size(requested: int) -> int:
    """The number of items of a page: 0 means 50; more than 1000 means 1000."""
    if requested < 0:
        raise invalid_field("page_size", f"must be 0 or more, got {requested}")
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def fitting(found: list[T], size: int, bytes_of: Callable[[T], int]) -> list[T]:
    """The items of a page: the first ``size`` of ``found``, or fewer if they would exceed the
    maximum size of a page, but at least one. ``bytes_of``: the maximum size of an item."""
    page_bytes = 0
    for count, item in enumerate(found[:size]):
        page_bytes += bytes_of(item)
        if count and page_bytes > MAX_PAGE_BYTES:
            return found[:count]
    return found[:size]


def cut(
    found: list[T],
    size: int,
    filters: object,
    key: Callable[[T], Sequence[int | str]],
    bytes_of: Callable[[T], int] | None = None,
) -> Page[T]:
    """The page of a list, given its next items: ``size`` + 1 of them if there are as many. A page
    ends early if its items have more than MAX_PAGE_BYTES together. ``filters`` and ``key`` make the
    token of the next page; ``bytes_of`` returns the most bytes that an item has, None means that
    all items are short."""
    shown = found[:size] if bytes_of is None else fitting(found, size, bytes_of)
    if len(shown) == len(found):
        return Page(shown)
    return Page(shown, encode_token(filters, key(shown[-1])))


def by_id(item: HasId) -> tuple[int]:
    """The key of lists in the order of their ids."""
    return (item.id,)


def encode_token(filters: object, key: Sequence[int | str]) -> str:
    """The token of the page after the item with ``key``. Different ``filters`` must have different
    ``repr`` texts."""
    text = json.dumps([_digest(filters), *key], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(token: str, filters: object, types: Sequence[type] | None) -> list[Any] | None:
    """The key in ``token``; None if it is empty. ``types`` (int or str): those of the key's parts;
    None: any number of ints. InvalidInput for page_token if it is damaged, forged or of another
    list."""
    if not token:
        return None
    try:
        if len(token) > _MAX_TOKEN_CHARS:
            raise ValueError("too long")
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(parts, list) or not parts:
            raise ValueError("not a key")
        digest, *key = parts
        types = [int] * len(key) if types is None else types
        if len(key) != len(types):
            raise ValueError("not a key")
        if not all(_is_good(part, kind) for part, kind in zip(key, types, strict=True)):
            raise ValueError("not a key of this list")
    except (ValueError, RecursionError) as error:
        raise invalid_field("page_token", _NOT_OF_THIS_LIST) from error
    if digest != _digest(filters):
        raise invalid_field("page_token", _NOT_OF_THIS_LIST)
    return key


def _digest(filters: object) -> str:
    return hashlib.blake2b(repr(filters).encode(), digest_size=8).hexdigest()


def _is_good(part: object, kind: type) -> bool:
    """Whether the database can store the value: 64 bits; text without NUL and surrogates."""
    if type(part) is not kind:
        return False
    if isinstance(part, int):
        return -MAX_ID <= part <= MAX_ID
    return isinstance(part, str) and "\0" not in part and part.isascii()
