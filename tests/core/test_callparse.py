"""The parser of calls against the protobuf library: same bytes accepted, same values read."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from ratingcore.wire import call_parse
from tests.core.protobuf import damaged, field_bytes, framed, message_bytes, varint
from tests.examples import examples
from tests.fuzz.targets import fields_of
from tollwire.v1 import rating_service_pb2, types_pb2


def by_library(request: bytes) -> list[tuple[object, ...]] | None:
    try:
        message = rating_service_pb2.StreamRateCallsRequest.FromString(request)
    except DecodeError:
        return None
    return list(map(fields_of, message.calls))


def by_core(request: bytes) -> list[tuple[object, ...]] | None:
    try:
        return call_parse.parse_calls(request)
    except ValueError:
        return None


# The tags of Call, with the wire types of its fields.
TAGS = [8, 16, 26, 34, 40, 48, 56, 66, 74, 82, 88, 98]
NESTED = {66, 74, 98}
FIELDS = field_bytes(TAGS, NESTED)
CALLS = message_bytes(TAGS, NESTED)
REQUESTS = st.lists(CALLS.map(framed) | FIELDS, max_size=3).map(b"".join)


@examples(100)
@given(REQUESTS, st.data())
def test_the_same_is_accepted_and_read(request_bytes: bytes, data: st.DataObject) -> None:
    assert by_core(request_bytes) == by_library(request_bytes)
    for other in damaged(request_bytes, data):
        assert by_core(other) == by_library(other)


@examples(75)
@given(st.binary(max_size=64))
@example(b"")
def test_any_bytes(request_bytes: bytes) -> None:
    assert by_core(request_bytes) == by_library(request_bytes)


def test_a_plain_request_cut_at_every_byte() -> None:
    call = types_pb2.Call(
        tenant_id=7,
        extension_id=3,
        caller_number="14155550123",
        destination_number="+44 20 7946 0000",
        direction=types_pb2.DIRECTION_OUTBOUND,
        disposition=types_pb2.DISPOSITION_ANSWERED,
        duration_seconds=63,
        started_at=Timestamp(seconds=1_763_000_000, nanos=5),
        ended_at=Timestamp(seconds=1_763_000_063),
        call_id="été",
    )
    request = rating_service_pb2.StreamRateCallsRequest(calls=[call, call])
    request_bytes = request.SerializeToString()
    parsed = by_core(request_bytes)
    assert parsed is not None and len(parsed) == 2
    for size in range(len(request_bytes)):
        assert by_core(request_bytes[:size]) == by_library(request_bytes[:size])


@pytest.mark.parametrize("depth", range(95, 104))
def test_nesting_is_limited_alike(depth: int) -> None:
    group = varint(100 << 3 | 3) * depth + varint(100 << 3 | 4) * depth
    started_at = framed(group, 8 << 3 | 2)
    for request_bytes in (group, framed(group), framed(started_at)):
        assert by_core(request_bytes) == by_library(request_bytes)


def test_the_field_numbers_are_those_of_the_descriptor() -> None:
    fields_of = types_pb2.Call.DESCRIPTOR.fields_by_name
    bytes_types = {11, 9}  # TYPE_MESSAGE, TYPE_STRING
    tags = {
        name: field.number << 3 | (2 if field.type in bytes_types else 0)
        for name, field in fields_of.items()
    }
    assert call_parse.call_tags() == tags
    for request in (
        rating_service_pb2.StreamRateCallsRequest,
        rating_service_pb2.BatchRateCallsRequest,
    ):
        numbers = {field.name: field.number for field in request.DESCRIPTOR.fields}
        assert numbers == {"calls": 1, "min_rate_revision": 2, "view": 3}
