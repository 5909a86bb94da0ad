"""Requests drawn from descriptors: nearly correct ones with some odd values, and malformed ones.

The name of a field determines its plausible values: words of telephony, and values from the
server's own responses (``Known``). The module depends on no method.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict, deque
from collections.abc import Collection, Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.fields import (
    BYTES,
    EDGES,
    FIXED32,
    FIXED64,
    NOT_UTF8,
    TEXTS,
    VARINT,
    Field,
    Grammar,
    write,
)
from tests.fuzz.mutations import mutate

_NOON_SECONDS = 1_772_445_600
_PLAUSIBLE: dict[str, list[int | bytes]] = {
    "seconds": [_NOON_SECONDS, _NOON_SECONDS + 60, _NOON_SECONDS - 86_400, 0],
    "nanos": [0, 1, 999_999_999],
    "currency": [b"USD", b"EUR", b"JPY"],
    "country_code": [b"", b"44", b"1"],
    "national_prefix": [b"", b"0"],
    "international_prefix": [b"", b"00", b"011"],
    "cost_per_minute": [b"0.0100", b"0", b"99999999.9999"],
    "connect_fee": [b"", b"0.0500", b"0"],
    "billing_increment": [1, 6, 60],
    "start_seconds": [60, 120],
    "prefix": [b"44", b"447", b"1", b"999"],
    "destination_number": [b"447911123456", b"+15550100", b"101", b"anonymous"],
    "caller_number": [b"101", b"+15550100", b""],
    "number": [b"101", b"102", b"103"],
    "duration_seconds": [0, 1, 61, 86_400],
    "page_size": [0, 1, 2, 1000],
    "call_id": [b"", b"one", b"two", b"three"],
    "offset": [0, 1, 2],
    "time_zone": [b"", b"UTC", b"Europe/Berlin", b"America/St_Johns"],
    "search": [b"", b"44", b"%", b"_", b"\\", b"'"],
    "name": [b"Acme", b"desk", b"x"],
    "reason": [b"the switch was in test", b"INVALID_FIELD"],
    "service": [b"", b"tollwire.v1.RatingService", b"nobody"],
    "file_containing_symbol": [b"tollwire.v1.RatingService", b"tollwire.v1.Call", b".", b"x"],
    "file_by_filename": [b"tollwire/v1/types.proto", b"../../etc/passwd", b""],
}
_LONG_TEXTS = [b"9" * 10_000, b"\x00" * 5_000, "é".encode() * 65_536, b"x" * 1_000_000]
_STRANGE_TEXTS = [
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf1",
    b"1\r\n2",
    b"${x}",
    b"%s%n",
    b"'; --",
    b" ",
    b"-",
]
_STRANGE_TEXTS += ["١٢".encode(), "\U0010ffff".encode(), b"NaN", b"-1", b"1e9", b"0x1", b"W10="]
_DEEPEST = 6
# The number of values of a repeated field: few, and now and then many small ones.
_FEW = (0, 1, 1, 1, 2, 3)
_MANY = (50, 1000, 20_000)
_MOST_BYTES = 4_000_000


class Known:
    """Values of existing objects, by the fields that name them. Thread-safe.

    Spared objects are not remembered: some must exist at the end.
    """

    def __init__(self) -> None:
        self._spared: frozenset[int | bytes] = frozenset()
        self._lock = threading.Lock()
        self._values: defaultdict[str, deque[int | bytes]] = defaultdict(lambda: deque(maxlen=50))

    def spare(self, values: Collection[int | bytes]) -> None:
        self._spared |= frozenset(values)

    def learn(self, message: Message, depth: int = 0) -> None:
        """From a response of the server."""
        for field, value in message.ListFields():
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                continue
            for one in list(value)[:5] if field.is_repeated else [value]:
                if field.message_type is not None:
                    if depth < _DEEPEST:
                        self.learn(one, depth + 1)
                elif isinstance(one, str):
                    self._add(field, one.encode())
                elif isinstance(one, int) and field.enum_type is None:
                    self._add(field, one % 2**64)  # as a varint carries it

    def _add(self, field: FieldDescriptor, value: int | bytes) -> None:
        if value in self._spared or (isinstance(value, bytes) and len(value) > 4096):
            return
        with self._lock:
            for name in _told(field):
                self._values[name].append(value)

    def draw(self, field: FieldDescriptor, draw: random.Random) -> int | bytes | None:
        with self._lock:
            for name in _asked(field):
                if values := self._values.get(name):
                    return draw.choice(values)
        return None


def message_of(field: FieldDescriptor) -> Descriptor:
    """The message that has the field."""
    assert field.containing_type is not None
    return field.containing_type


def _told(field: FieldDescriptor) -> Iterator[str]:
    """The names under which a value is remembered: the id of a Tenant is a tenant_id."""
    yield field.name.removeprefix("next_")
    if field.name == "id":
        yield f"{message_of(field).name.lower()}_id"


def _asked(field: FieldDescriptor) -> Iterator[str]:
    """The names under which a value is looked up: the id of a GetTenantRequest is also a
    tenant_id."""
    if field.name == "id":
        words = message_of(field).name
        for verb in ("Get", "Delete", "Revoke", "Reverse", "Update"):
            words = words.removeprefix(verb)
        yield f"{words.removesuffix('Request').lower()}_id"
    yield field.name.removesuffix("s") if field.name.endswith("_ids") else field.name


class Drawer:
    """Draws requests. All randomness comes from the given ``random.Random``."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def request(self, message: Descriptor, draw: random.Random) -> bytes:
        """The bytes of one message: correct, odd in places, or malformed."""
        way = draw.random()
        oddness = 0.0 if way < 0.45 else 0.08 if way < 0.75 else 0.4 if way < 0.8 else 0.0
        data = write(list(self._fields(message, draw, oddness, 0)))[:_MOST_BYTES]
        return mutate(data, Grammar(message), draw) if way > 0.8 else data

    def _fields(
        self, message: Descriptor, draw: random.Random, oddness: float, depth: int
    ) -> Iterator[Field]:
        likely = draw.choice((0.3, 0.7, 0.95))
        for field in message.fields:
            if field.message_type is not None and depth >= _DEEPEST:
                continue
            times = draw.choice(_FEW) if field.is_repeated else draw.random() < likely
            if field.is_repeated and draw.random() < oddness / 8:
                drawn = self._field(field, draw, oddness, depth)
                most = _MOST_BYTES // max(1, len(write([drawn])))
                yield from [drawn] * min(draw.choice(_MANY), most)
            for _ in range(times):
                yield self._field(field, draw, oddness, depth)

    def _field(
        self, field: FieldDescriptor, draw: random.Random, oddness: float, depth: int
    ) -> Field:
        value: int | bytes | list[Field]
        if field.message_type is not None:
            value = list(self._fields(field.message_type, draw, oddness, depth + 1))
            return Field(field.number, BYTES, value)
        wire_type = _WIRE_TYPES.get(field.type, VARINT)
        if draw.random() < oddness:
            value = _odd_text(draw) if wire_type == BYTES else _odd_number(draw)
        else:
            value = self._right(field, wire_type, draw)
        return Field(field.number, wire_type, value)

    def _right(self, field: FieldDescriptor, wire_type: int, draw: random.Random) -> int | bytes:
        if field.enum_type is not None:
            return draw.choice([one.number for one in field.enum_type.values])
        known = self._known.draw(field, draw)
        plausible = _PLAUSIBLE.get(field.name, [])
        if known is not None and draw.random() < (0.3 if plausible else 0.9):
            return known
        if plausible:
            return draw.choice(plausible)
        if field.name == "paths":
            return draw.choice((b"name", b"cost_per_minute", b"prefix", b"currency", b"nothing"))
        return draw.choice((b"", b"1")) if wire_type == BYTES else draw.choice((0, 1, 2))


_WIRE_TYPES = {
    FieldDescriptor.TYPE_STRING: BYTES,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_FLOAT: FIXED32,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
}


def _odd_number(draw: random.Random) -> int:
    return draw.choice((draw.choice(EDGES), draw.choice(EDGES), draw.getrandbits(64)))


def _odd_text(draw: random.Random) -> bytes:
    return draw.choice(draw.choice((TEXTS, _STRANGE_TEXTS, _STRANGE_TEXTS, NOT_UTF8, _LONG_TEXTS)))
