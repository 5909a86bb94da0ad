"""The parser of decks against the protobuf library: same bytes accepted, same values read."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from ratingcore.wire import rate_parse
from tests.core.protobuf import damaged, framed, message_bytes, varint
from tests.examples import examples
from tollwire.v1 import rating_service_pb2, types_pb2

Parsed = tuple[object, list[tuple[object, ...]]]

# The tags of the messages, with the wire types of their fields.
TAGS = [8, 16, 24, 34, 40, 26, 42, 48, 58, 64, 74, 82, 90, 96, 106, 114, 122, 18, 50, 56]
NESTED = {34, 74, 82, 90, 114, 122, 50}


def by_library(request: bytes) -> Parsed | None:
    try:
        message = rating_service_pb2.ImportRatesRequest.FromString(request)
    except DecodeError:
        return None

    def stamp(
        rate: types_pb2.Rate | rating_service_pb2.ImportRatesRequest, name: str
    ) -> tuple[int, int] | None:
        value: Timestamp = getattr(rate, name)
        return (value.seconds, value.nanos) if rate.HasField(name) else None

    head = (
        message.tenant_id,
        message.mode,
        message.dry_run,
        message.rate_count if message.HasField("rate_count") else None,
        stamp(message, "effective_from"),
        message.allow_gap,
        len(message.rates),
    )
    return head, [
        (
            rate.tenant_id,
            rate.prefix.encode(),
            rate.destination.encode(),
            rate.cost_per_minute.encode(),
            rate.billing_increment,
            rate.connect_fee.encode(),
            rate.minimum_seconds,
            bool(rate.intervals),
            stamp(rate, "effective_from"),
            stamp(rate, "effective_to"),
            rate.blocked,
        )
        for rate in message.rates
    ]


def by_core(request: bytes) -> Parsed | None:
    try:
        return rate_parse.read_head(request), rate_parse.parse_rates(request)
    except ValueError:
        return None


REQUESTS = st.one_of(
    message_bytes(TAGS, NESTED),
    st.lists(message_bytes(TAGS, NESTED).map(lambda rate: framed(rate, 34)), max_size=3).map(
        b"".join
    ),
)


@examples(120)
@given(REQUESTS, st.data())
def test_the_same_is_accepted_and_read(request_bytes: bytes, data: st.DataObject) -> None:
    assert by_core(request_bytes) == by_library(request_bytes)
    for other in damaged(request_bytes, data):
        assert by_core(other) == by_library(other)


@examples(100)
@given(st.binary(max_size=64))
@example(b"")
def test_any_bytes(request_bytes: bytes) -> None:
    assert by_core(request_bytes) == by_library(request_bytes)


def full_rate() -> types_pb2.Rate:
    return types_pb2.Rate(
        id=3,
        tenant_id=7,
        prefix="44",
        destination="Königreich",
        cost_per_minute="0.15",
        billing_increment=6,
        connect_fee="0.1",
        minimum_seconds=30,
        intervals=[types_pb2.Interval(start_seconds=60, cost_per_minute="1", billing_increment=1)],
        effective_from=Timestamp(seconds=-1, nanos=5),
        effective_to=Timestamp(seconds=1_763_000_063),
        blocked=True,
        etag="é",
        created_at=Timestamp(seconds=1),
        updated_at=Timestamp(nanos=2),
    )


def test_a_full_request_cut_at_every_byte() -> None:
    request_bytes = rating_service_pb2.ImportRatesRequest(
        tenant_id=7,
        mode=types_pb2.IMPORT_MODE_REPLACE,
        dry_run=True,
        rates=[full_rate()] * 2,
        effective_from=Timestamp(seconds=-1, nanos=5),
        allow_gap=True,
    ).SerializeToString()
    parsed = by_core(request_bytes)
    assert parsed is not None and len(parsed[1]) == 2
    for size in range(len(request_bytes)):
        assert by_core(request_bytes[:size]) == by_library(request_bytes[:size])


@pytest.mark.parametrize("depth", range(95, 104))
def test_nesting_is_limited_alike(depth: int) -> None:
    group = varint(100 << 3 | 3) * depth + varint(100 << 3 | 4) * depth
    for request_bytes in (
        group,
        framed(group, 34),
        framed(group, 50),
        framed(framed(group, 82), 34),
        framed(framed(group, 74), 34),
        framed(framed(group, 122), 34),
    ):
        assert by_core(request_bytes) == by_library(request_bytes)


def test_the_field_numbers_are_those_of_the_descriptors() -> None:
    """The parser must have all fields of a rate with text or messages, because it checks their
    content."""
    bytes_types = {11, 9}  # TYPE_MESSAGE, TYPE_STRING
    known = rate_parse.import_tags()
    for message in (
        rating_service_pb2.ImportRatesRequest,
        types_pb2.Rate,
        types_pb2.Interval,
    ):
        fields = message.DESCRIPTOR.fields
        tags = {f.name: f.number << 3 | (2 if f.type in bytes_types else 0) for f in fields}
        found = known[message.DESCRIPTOR.name]
        assert found.items() <= tags.items()
        assert {f.name for f in fields if f.type in bytes_types} <= found.keys()
    head = rating_service_pb2.ImportRatesRequest.DESCRIPTOR.fields_by_name
    assert known["ImportRatesRequest"].keys() == set(head)
