"""Mutations of an input: fields changed, moved, repeated and nested, or bytes changed.

All random choices use the given ``random.Random``, so that a seed repeats a run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from google.protobuf.descriptor import Descriptor

from tests.fuzz.fields import (
    BYTES,
    EDGES,
    FIXED32,
    FIXED64,
    GROUP,
    GROUP_END,
    NOT_UTF8,
    TEXTS,
    VARINT,
    Field,
    Grammar,
    read,
    varint,
    write,
)

MAX_BYTES = 4096
_PADDING = (1, 2, 3, 4, 5, 6, 8, 9, 10)
_LIES = (-2, -1, 1, 2, 100, 2**31, 2**32, 2**63, 2**64)
_NUMBERS = (*range(16), 100, 2047, 2**28, 2**29 - 1, 2**29)

# The fields of one message within the tree, and its type if it is known.
Level = tuple[list[Field], Descriptor | None]


def mutate(data: bytes, grammar: Grammar, draw: random.Random) -> bytes:
    """Another input, at most MAX_BYTES long."""
    fields = read(data, grammar.message)
    if fields is None or draw.random() < 0.25:
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            data = draw.choice(_ON_BYTES)(data, draw)
    else:
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            _bend(fields, grammar, draw)
        data = write(fields)
    return data[:MAX_BYTES]


def _bend(fields: list[Field], grammar: Grammar, draw: random.Random) -> None:
    levels: list[Level] = []
    _levels(fields, grammar.message, levels)
    level, message = draw.choice(levels)
    if not level or draw.random() < 0.15:
        _insert(level, message, grammar, draw)
    else:
        draw.choice(_ON_FIELDS)(level, draw.randrange(len(level)), draw)


def _levels(fields: list[Field], message: Descriptor | None, found: list[Level]) -> None:
    found.append((fields, message))
    for one in fields:
        if isinstance(one.value, list):
            known = message.fields_by_number.get(one.number) if message is not None else None
            _levels(one.value, known.message_type if known is not None else None, found)


def _insert(
    level: list[Field], message: Descriptor | None, grammar: Grammar, draw: random.Random
) -> None:
    """Another field: one of the message's, or an unknown one."""
    if message is not None and message.fields and draw.random() < 0.6:
        made = grammar.field(draw.choice(list(message.fields)), draw)
    else:
        wire_type = draw.randrange(8)
        made = Field(draw.choice(_NUMBERS), wire_type, _value(wire_type, draw))
    level.insert(draw.randint(0, len(level)), made)


def _value(wire_type: int, draw: random.Random) -> int | bytes | list[Field]:
    if wire_type == GROUP:
        return _nested(draw)
    if wire_type == BYTES:
        return draw.choice(TEXTS + NOT_UTF8)
    if wire_type in (VARINT, FIXED32, FIXED64):
        return draw.choice(EDGES)
    return draw.randbytes(draw.randrange(4))


def _nested(draw: random.Random) -> list[Field]:
    """Nested groups: few, or about as many as the limit."""
    inner: list[Field] = []
    for _ in range(draw.choice((0, 1, 2, 95, 96, 97, 98, 99, 100, 101))):
        inner = [Field(draw.choice((1, 5, 100)), GROUP, inner)]
    return inner


def _delete(level: list[Field], at: int, draw: random.Random) -> None:
    del level[at]


def _repeat(level: list[Field], at: int, draw: random.Random) -> None:
    level.insert(draw.randint(0, len(level)), level[at])


def _shuffle(level: list[Field], at: int, draw: random.Random) -> None:
    draw.shuffle(level)


def _new_value(level: list[Field], at: int, draw: random.Random) -> None:
    one = level[at]
    if isinstance(one.value, int):
        near = one.value + draw.choice((-1, 1, 60))
        one.value = draw.choice((draw.choice(EDGES), draw.getrandbits(64), max(0, near)))
    elif isinstance(one.value, bytes):
        texts = draw.choice((TEXTS, TEXTS, NOT_UTF8))
        one.value = draw.choice((draw.choice(texts), _flip(one.value, draw), one.value + b"\0"))


def _pad(level: list[Field], at: int, draw: random.Random) -> None:
    level[at].padding = draw.choice(_PADDING)


def _pad_tag(level: list[Field], at: int, draw: random.Random) -> None:
    level[at].tag_padding = draw.choice(_PADDING)


def _lie(level: list[Field], at: int, draw: random.Random) -> None:
    level[at].lie = draw.choice(_LIES)


def _retype(level: list[Field], at: int, draw: random.Random) -> None:
    one = level[at]
    one.wire_type = draw.choice((VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32, 6, 7))
    if draw.random() < 0.7:
        one.value = _value(one.wire_type, draw)


def _renumber(level: list[Field], at: int, draw: random.Random) -> None:
    level[at].number = draw.choice(_NUMBERS)


def _wrap(level: list[Field], at: int, draw: random.Random) -> None:
    """A field within a group or a message of another field."""
    wire_type = draw.choice((GROUP, BYTES))
    level[at] = Field(draw.choice(_NUMBERS), wire_type, [level[at]])


def _end_wrongly(level: list[Field], at: int, draw: random.Random) -> None:
    level[at] = Field(draw.choice(_NUMBERS), GROUP, [level[at]], end=draw.choice((0, *_NUMBERS)))


_ON_FIELDS: Sequence[Callable[[list[Field], int, random.Random], None]] = (
    *(_delete, _repeat, _repeat, _shuffle, _new_value, _new_value, _new_value, _new_value),
    *(_pad, _pad_tag, _lie, _retype, _renumber, _wrap, _end_wrongly),
)


def _flip(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return draw.randbytes(1)
    changed = bytearray(data)
    at = draw.randrange(len(changed))
    changed[at] = draw.choice((changed[at] ^ 1 << draw.randrange(8), draw.randrange(256)))
    return bytes(changed)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randint(0, len(data))]


def _drop(data: bytes, draw: random.Random) -> bytes:
    start = draw.randint(0, len(data))
    return data[:start] + data[start + draw.randint(1, 8) :]


def _stuff(data: bytes, draw: random.Random) -> bytes:
    at = draw.randint(0, len(data))
    new = draw.choice((draw.randbytes(draw.randint(1, 8)), varint(draw.choice(EDGES))))
    return data[:at] + new + data[at:]


def _copy(data: bytes, draw: random.Random) -> bytes:
    start = draw.randint(0, len(data))
    at = draw.randint(0, len(data))
    return data[:at] + data[start : start + draw.randint(1, 64)] + data[at:]


_ON_BYTES: Sequence[Callable[[bytes, random.Random], bytes]] = (
    _flip,
    _flip,
    _cut,
    _drop,
    _stuff,
    _copy,
)
