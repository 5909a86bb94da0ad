"""Protobuf messages as trees of fields, so that a fuzzer can make what the library does not write:
over-long varints, wrong lengths, groups with another end, fields in any order and number.

``Grammar`` describes a message by its compiled descriptor; it depends on no service.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = range(6)
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_WIRE_TYPES = {
    FieldDescriptor.TYPE_MESSAGE: BYTES,
    FieldDescriptor.TYPE_STRING: BYTES,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_FLOAT: FIXED32,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
}
# Values at which the meaning may change: the ends of each width, and the neighbours of limits.
EDGES = [0, 1, 2, 3, 6, 7, 59, 60, 127, 128, 255, 256, 16_383, 16_384, 10**9 - 1, 10**9]
EDGES += [2**31 - 1, 2**31, 2**32 - 1, 2**32, 9_223_372_036, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
EDGES += [2**64, 2**70 - 1]  # more bits than are kept
TEXTS = [b"", b"0", b"00", b"1", b"12", b"+12", b"0012", b"1\0", b"anonymous", b"sip:+12@host;x=1"]
TEXTS += ["é".encode(), "€uro".encode(), "𝄞".encode(), b"1" * 32, b"1" * 33, b"x" * 255, b"x" * 256]
TEXTS += [b"1" * 257, b"1234567\0", b"12345678\0", "1234567é".encode(), "é".encode() * 128]
NOT_UTF8 = [b"\xff", b"\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
NOT_UTF8 += [b"1234567\xe9", b"12345678\xc3", b"\xc3" * 9]


@dataclass(slots=True)
class Field:
    """One field on the wire. The last four make its encoding wrong or unusual."""

    number: int
    wire_type: int
    value: int | bytes | list[Field]
    tag_padding: int = 0  # additional bytes of the tag
    padding: int = 0  # additional bytes of the varint, or of the length
    lie: int = 0  # added to the length
    end: int | None = None  # the number that ends the group; 0: nothing ends it


# By the names of fields.
Values = Mapping[str, Sequence[int | bytes]]


@dataclass(frozen=True, slots=True)
class Grammar:
    """Messages of one type. By the names of fields: ``values`` that make a message that means
    something, others that are ``odd``, and the fields that are ``rare``."""

    message: Descriptor
    values: Values = field(default_factory=dict)
    odd: Values = field(default_factory=dict)
    rare: frozenset[str] = frozenset()

    def make(self, draw: random.Random) -> bytes:
        """A message that the library nearly always accepts, with up to a few calls or rates."""
        return write(list(self._fields(self.message, draw)))

    def _fields(self, message: Descriptor, draw: random.Random) -> Iterator[Field]:
        for known in message.fields:
            likely = 0.05 if known.name in self.rare else 0.95
            times = _times(draw) if known.is_repeated else draw.random() < likely
            for _ in range(times):
                yield self.field(known, draw)

    def field(self, known: FieldDescriptor, draw: random.Random) -> Field:
        wire_type = _WIRE_TYPES.get(known.type, VARINT)
        value: int | bytes | list[Field]
        if known.message_type is not None:
            value = list(self._fields(known.message_type, draw))
        elif known.name in self.values and draw.random() < 0.98:
            odd = known.name in self.odd and draw.random() < 0.05
            value = draw.choice((self.odd if odd else self.values)[known.name])
        else:
            value = draw.choice(TEXTS) if wire_type == BYTES else draw.choice(EDGES)
        return Field(known.number, wire_type, value)


def _times(draw: random.Random) -> int:
    """Mostly few, sometimes more calls than the core rates in one batch."""
    return draw.choice((0, 1, 1, 1, 2, 3)) if draw.random() < 0.98 else draw.randrange(60)


def varint(value: int, padding: int = 0) -> bytes:
    if value < 0x80 and not padding:
        return _ONE_BYTE[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


_ONE_BYTE = [bytes([value]) for value in range(0x80)]


def write(fields: Sequence[Field]) -> bytes:
    return b"".join(map(_write, fields))


def _write(one: Field) -> bytes:
    start = varint(one.number << 3 | one.wire_type, one.tag_padding)
    value = one.value
    if isinstance(value, int):
        if one.wire_type in _FIXED_BYTES:
            size = _FIXED_BYTES[one.wire_type]
            kept: int = value % 256**size
            return start + kept.to_bytes(size, "little")
        return start + varint(value, one.padding)
    body = value if isinstance(value, bytes) else write(value)
    if one.wire_type == GROUP:
        end = one.number if one.end is None else one.end
        return start + body + (varint(end << 3 | GROUP_END) if end else b"")
    return start + varint(max(0, len(body) + one.lie), one.padding) + body


def read(data: bytes, message: Descriptor | None) -> list[Field] | None:
    """The fields of a well-formed message, down to fields that hold no message by the descriptor.

    None: it is not well-formed, or not readable as simply as here.
    """
    at = 0
    fields = []
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire_type, number = tag & 7, tag >> 3
        known = message.fields_by_number.get(number) if message is not None else None
        if at < 0 or number == 0:
            return None
        if wire_type == VARINT:
            number_value, at = _read_varint(data, at)
            fields.append(Field(number, wire_type, number_value))
        elif wire_type in _FIXED_BYTES:
            end = at + _FIXED_BYTES[wire_type]
            fields.append(Field(number, wire_type, int.from_bytes(data[at:end], "little")))
            at = end
        elif wire_type == BYTES:
            size, at = _read_varint(data, at)
            body = data[at : at + size]
            at = at + size if at >= 0 else at
            inner = None
            if known is not None and known.message_type is not None:
                inner = read(body, known.message_type)
            fields.append(Field(number, wire_type, body if inner is None else inner))
        else:
            return None  # groups: their bytes are mutated as bytes
        if not 0 <= at <= len(data):
            return None
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The value and its end; -1 if it is truncated."""
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, -1
