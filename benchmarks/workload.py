"""The real deck and the real calls in the forms that the core, the wire and the databases take."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.harness import batches
from benchmarks.real_deck import SEED, DeckRow, real_numbers
from ratingcore import Columns, Deck, DeckBuilder
from tollwire.v1.cdr_service_pb2 import UploadCdrsRequest
from tollwire.v1.rating_service_pb2 import ImportRatesRequest, StreamRateCallsRequest
from tollwire.v1.types_pb2 import (
    DIRECTION_OUTBOUND,
    DISPOSITION_ANSWERED,
    IMPORT_MODE_REPLACE,
    RATED_CALL_VIEW_UNSPECIFIED,
    Call,
    Rate,
    RatedCallView,
)

STARTED_AT_S = 1_772_445_600  # 2026-03-02 10:00 UTC
CALLS_A_SECOND = 100
RATES_A_MESSAGE = 10_000


@dataclass(frozen=True, slots=True)
class RealCalls:
    """Answered outbound calls to distinct numbers, as a list and as the columns of the core."""

    numbers: list[str]
    text: bytes
    offsets: array[int]
    durations: array[int]
    started_at_ns: array[int]
    billable: bytes

    def __len__(self) -> int:
        return len(self.numbers)

    def parts(self, size: int) -> Iterator[RealCalls]:
        """The same calls, in parts of this size."""
        for start in range(0, len(self), size):
            end = min(start + size, len(self))
            text_start, text_end = self.offsets[start], self.offsets[end]
            yield RealCalls(
                numbers=self.numbers[start:end],
                text=self.text[text_start:text_end],
                offsets=array("q", (at - text_start for at in self.offsets[start : end + 1])),
                durations=self.durations[start:end],
                started_at_ns=self.started_at_ns[start:end],
                billable=self.billable[start:end],
            )

    def rated(self, deck: Deck) -> Columns:
        return deck.rate_columns(
            self.text, self.offsets, self.durations, self.started_at_ns, self.billable
        )


def real_calls(prefixes: Sequence[str], count: int, seed: int = SEED) -> RealCalls:
    drawn: dict[str, None] = {}
    numbers = real_numbers(prefixes, seed)
    while len(drawn) < count:
        drawn.update(dict.fromkeys(islice(numbers, count - len(drawn))))
    draw = random.Random(seed)
    distinct = list(drawn)
    return RealCalls(
        numbers=distinct,
        text="".join(distinct).encode(),
        offsets=array("q", accumulate(map(len, distinct), initial=0)),
        durations=array("q", (int(draw.lognormvariate(4.3, 1.2)) + 1 for _ in distinct)),
        started_at_ns=array(
            "q", ((STARTED_AT_S + n // CALLS_A_SECOND) * 10**9 for n in range(count))
        ),
        billable=b"\1" * count,
    )


def price_e8(row: DeckRow) -> int:
    return int(row.cost_per_minute.replace(".", "")) * 10_000


def core_deck(rows: Iterable[DeckRow]) -> Deck:
    builder = DeckBuilder()
    builder.put_many(
        (number, number, row.prefix, row.destination, price_e8(row), row.billing_increment)
        for number, row in enumerate(rows, 1)
    )
    return builder.build(1)


def row_of(deck: Deck, rate_index: int) -> int:
    """The index of a rate in the rows of ``core_deck``; the core has an order of its own."""
    return deck.rate_at(rate_index).version_id - 1


def import_messages(rows: Sequence[DeckRow], tenant_id: int) -> Iterator[ImportRatesRequest]:
    for part in batches(rows, RATES_A_MESSAGE):
        yield ImportRatesRequest(
            tenant_id=tenant_id,
            mode=IMPORT_MODE_REPLACE,
            rates=[
                Rate(
                    prefix=row.prefix,
                    destination=row.destination,
                    cost_per_minute=row.cost_per_minute,
                    billing_increment=row.billing_increment,
                )
                for row in part
            ],
        )


def random_ids(count: int, seed: int) -> list[str]:
    """call_ids as most switches create them: 32 random hexadecimal digits."""
    draw = random.Random(f"ids-{seed}")
    return [f"{draw.getrandbits(128):032x}" for _ in range(count)]


def ordered_ids(count: int, seed: int) -> list[str]:
    """call_ids that begin with the time, like UUIDs of version 7."""
    draw = random.Random(f"ids-{seed}")
    step_ms = 1000 // CALLS_A_SECOND
    return [
        f"{STARTED_AT_S * 1000 + n * step_ms:012x}{draw.getrandbits(80):020x}" for n in range(count)
    ]


def wire_calls(calls: RealCalls, tenant_id: int, call_ids: Sequence[str]) -> list[Call]:
    """The calls as messages: 63 bytes each, on the average, with ids of 16 characters."""
    return [
        Call(
            tenant_id=tenant_id,
            caller_number="493012345678",
            destination_number=number,
            direction=DIRECTION_OUTBOUND,
            disposition=DISPOSITION_ANSWERED,
            duration_seconds=duration,
            started_at=Timestamp(seconds=started_at_ns // 10**9),
            call_id=call_id,
        )
        for number, duration, started_at_ns, call_id in zip(
            calls.numbers, calls.durations, calls.started_at_ns, call_ids, strict=True
        )
    ]


def stream_messages(
    calls: Sequence[Call], size: int, view: RatedCallView.ValueType = RATED_CALL_VIEW_UNSPECIFIED
) -> list[bytes]:
    return [
        StreamRateCallsRequest(calls=part, view=view).SerializeToString()
        for part in batches(calls, size)
    ]


def upload_messages(calls: Sequence[Call], size: int) -> list[bytes]:
    """Chunks without their upload_id and offset: see ``chunk_header``."""
    return [UploadCdrsRequest(calls=part).SerializeToString() for part in batches(calls, size)]


def chunk_header(upload_id: int, offset: int) -> bytes:
    """The header that makes a serialised chunk part of an upload: protobuf merges consecutive
    messages."""
    return UploadCdrsRequest(upload_id=upload_id, offset=offset).SerializeToString()
