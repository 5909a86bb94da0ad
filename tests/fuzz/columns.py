"""The columns of a batch, with wrong offsets and columns of different lengths: compares each call
with a single rating of it, and detects reads outside the columns.

The columns are encoded as a message, so that the fuzzer mutates them like messages.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from typing import cast

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor

from ratingcore import UNRATED, Columns, Deck, Rating
from tests.fuzz.agreement import Difference, accepted_alike, message_class, parsed
from tests.fuzz.fields import BYTES, Field, Grammar, write
from tests.rpc.known_decks import DECKS, NOW_NS

MAX_SECONDS = 2**31 - 1
_COLUMNS = ("numbers", "offsets", "durations", "started_at_ns", "billable")
_TENANTS = (1, 2, 3)
_NUMBERS = b"0|1|12|+123|0012|3210321032103210|sip:+12@x|tel:0-12||anonymous|2222|23|\xff|01"


def _message() -> descriptor_pb2.DescriptorProto:
    fields = [
        descriptor_pb2.FieldDescriptorProto(
            name=name,
            number=number,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        )
        for number, name in enumerate(_COLUMNS, 1)
    ]
    return descriptor_pb2.DescriptorProto(name="Batch", field=fields)


_BATCH = message_class(_message())


@dataclass(frozen=True, slots=True)
class _Batches(Grammar):
    def make(self, draw: random.Random) -> bytes:
        """A batch with consistent columns."""
        count = draw.choice((0, 1, 2, 7, 31, 32, 33, 65))
        numbers = [draw.choice(_NUMBERS.split(b"|")) for _ in range(count)]
        ends = [0]
        for number in numbers:
            ends.append(ends[-1] + len(number))
        values = (
            b"".join(numbers),
            array("q", ends).tobytes(),
            array("q", draw.choices((0, 1, 59, 60, 61, 121, MAX_SECONDS), k=count)).tobytes(),
            array("q", draw.choices((NOW_NS - 1, NOW_NS, 0, -1), k=count)).tobytes(),
            bytes(draw.choices((1, 1, 1, 0, 255), k=count)),
        )
        return write([Field(number, BYTES, value) for number, value in enumerate(values, 1)])


GRAMMAR = _Batches(cast(Descriptor, _BATCH.DESCRIPTOR))


def check(data: bytes) -> int | None:
    batch = parsed(_BATCH, data)
    if batch is None:
        return None
    offsets, durations, starts = (
        array("q", column[: len(column) // 8 * 8])
        for column in (batch.offsets, batch.durations, batch.started_at_ns)
    )
    fits = (
        len(offsets) == len(durations) + 1
        and len(starts) == len(batch.billable) == len(durations)
        and all(0 <= duration <= MAX_SECONDS for duration in durations)
        and list(offsets) == sorted(offsets)
        and (not durations or 0 <= offsets[0] <= offsets[-1] <= len(batch.numbers))
    )
    for tenant_id in _TENANTS:
        deck = DECKS.deck(tenant_id).deck
        try:
            rated = deck.rate_columns(batch.numbers, offsets, durations, starts, batch.billable)
        except ValueError:
            rated = None
        if not accepted_alike(rated, fits or None) or rated is None:
            return None
        for at, (duration, start) in enumerate(zip(durations, starts, strict=True)):
            number = batch.numbers[offsets[at] : offsets[at + 1]]
            _compare(deck, rated, at, number, (start, duration, bool(batch.billable[at])))
    return len(durations)


def _compare(
    deck: Deck, columns: Columns, at: int, number: bytes, rest: tuple[int, int, bool]
) -> None:
    try:
        text = number.decode()
    except UnicodeDecodeError:
        return  # no str to rate on its own; the text after an "@" is free
    alone = deck.rate(text, *rest)
    found = _essence(columns, at)
    if found != (expected := _alone(alone)):
        raise Difference(f"call {at}, {text!r}, {rest}: {found} is not {expected}")


def _essence(columns: Columns, at: int) -> tuple[object, ...]:
    rated = columns.status[at] not in (0, UNRATED)
    return (
        columns.status[at],
        columns.unrated_reason[at],
        columns.bill_seconds[at] if rated else None,
        columns.cost_scaled[at] if rated else None,
        columns.rate_index[at],
    )


def _alone(rating: Rating) -> tuple[object, ...]:
    return (
        rating.status,
        rating.unrated_reason,
        rating.bill_seconds,
        rating.cost_scaled,
        rating.rate_index,
    )
