"""Bytes of valid and damaged protobuf messages, for parsers that must accept what the library
does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from hypothesis import strategies as st

from tests.fuzz.fields import varint

EDGES = [0, 1, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
NUMBERS = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)
TEXTS = st.one_of(
    st.text(max_size=12).map(str.encode),
    st.binary(max_size=12),
    st.sampled_from(
        [b"\x00", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"12345678\xc3", b"\xe2\x82"]
    ),
)
# How many bytes a varint is longer than necessary.
PADDING = st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 8, 9, 10])


def framed(body: bytes, tag: int = 1 << 3 | 2) -> bytes:
    return varint(tag) + varint(len(body)) + body


@st.composite
def field_bytes(
    draw: st.DrawFn, tags: Sequence[int], nested: Collection[int], depth: int = 0
) -> bytes:
    """A field with one of these tags or another; ``nested`` are those that hold messages."""
    unknown = st.builds(
        lambda number, wire_type: number << 3 | wire_type,
        st.sampled_from([0, 1, 3, 5, 8, 10, 11, 100, 2**29 - 1]),
        st.integers(0, 7),
    )
    # Half of the tags are known ones.
    tag = draw(st.sampled_from(tags) | unknown)
    start = varint(tag, draw(PADDING))
    wire_type = tag & 7
    if wire_type == 0:
        return start + varint(draw(NUMBERS), draw(PADDING))
    if wire_type == 2:
        body = draw(TEXTS)
        if tag in nested or (depth < 3 and draw(st.booleans())):
            inner = st.lists(field_bytes(tags, nested, depth + 1), max_size=3)
            body = b"".join(draw(inner))
        lie = draw(st.sampled_from([0] * 20 + [-1, 1, 2**31, 2**32]))
        return start + varint(max(0, len(body) + lie), draw(PADDING)) + body
    if wire_type == 3 and depth < 3:
        inner_bytes = b"".join(draw(st.lists(field_bytes(tags, nested, depth + 1), max_size=2)))
        end = draw(st.sampled_from([tag + 1, tag + 1, tag + 1, tag + 9, None]))
        return start + inner_bytes + (varint(end) if end is not None else b"")
    return start + draw(st.binary(min_size=8, max_size=8))[: 4 if wire_type == 5 else 8]


def message_bytes(tags: Sequence[int], nested: Collection[int]) -> st.SearchStrategy[bytes]:
    """A message of such fields."""
    return st.lists(field_bytes(tags, nested), max_size=8).map(b"".join)


def damaged(message: bytes, data: st.DataObject) -> Iterator[bytes]:
    """The message cut at any byte, and with any one byte changed. Nothing for an empty message."""
    if message:
        yield message[: data.draw(st.integers(0, len(message) - 1))]
        changed = bytearray(message)
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        yield bytes(changed)
