"""The parser of calls against the protobuf library: same bytes accepted, same values read."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ratingcore import callparse
from tollwire.v1 import rating_service_pb2, types_pb2


def by_library(request: bytes) -> list[tuple[object, ...]] | None:
    try:
        message = rating_service_pb2.StreamRateCallsRequest.FromString(request)
    except DecodeError:
        return None

    def stamp(call: types_pb2.Call, name: str) -> tuple[int, int] | None:
        value: Timestamp = getattr(call, name)
        return (value.seconds, value.nanos) if call.HasField(name) else None

    return [
        (
            call.tenant_id,
            call.extension_id,
            call.caller_number.encode(),
            call.destination_number.encode(),
            call.direction,
            call.disposition,
            call.duration_seconds if call.HasField("duration_seconds") else None,
            stamp(call, "started_at"),
            stamp(call, "ended_at"),
            call.call_id.encode(),
        )
        for call in message.calls
    ]


def by_core(request: bytes) -> list[tuple[object, ...]] | None:
    try:
        return callparse.parse_calls(request)
    except ValueError:
        return None


def varint(value: int, padding: int = 0) -> bytes:
    """``padding`` more bytes than needed."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def framed(body: bytes, tag: int = 1 << 3 | 2) -> bytes:
    return varint(tag) + varint(len(body)) + body


EDGES = [0, 1, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
NUMBERS = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)
TEXTS = st.one_of(
    st.text(max_size=12).map(str.encode),
    st.binary(max_size=12),
    st.sampled_from(
        [b"\x00", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"12345678\xc3", b"\xe2\x82"]
    ),
)
PADDING = st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 8, 9, 10])
# Half of the tags are those of Call, in the wire types that they have there.
TAGS = st.sampled_from([8, 16, 26, 34, 40, 48, 56, 66, 74, 82]) | st.builds(
    lambda number, wire_type: number << 3 | wire_type,
    st.sampled_from([0, 1, 3, 5, 8, 10, 11, 100, 2**29 - 1]),
    st.integers(0, 7),
)


@st.composite
def fields(draw: st.DrawFn, depth: int = 0) -> bytes:
    tag = draw(TAGS)
    start = varint(tag, draw(PADDING))
    wire_type = tag & 7
    if wire_type == 0:
        return start + varint(draw(NUMBERS), draw(PADDING))
    if wire_type == 2:
        body = draw(TEXTS)
        if tag in (66, 74) or (depth < 3 and draw(st.booleans())):
            body = b"".join(draw(st.lists(fields(depth=depth + 1), max_size=3)))
        lie = draw(st.sampled_from([0] * 20 + [-1, 1, 2**31, 2**32]))
        return start + varint(max(0, len(body) + lie), draw(PADDING)) + body
    if wire_type == 3 and depth < 3:
        inner = b"".join(draw(st.lists(fields(depth=depth + 1), max_size=2)))
        end = draw(st.sampled_from([tag + 1, tag + 1, tag + 1, tag + 9, None]))
        return start + inner + (varint(end) if end is not None else b"")
    return start + draw(st.binary(min_size=8, max_size=8))[: 4 if wire_type == 5 else 8]


CALLS = st.lists(fields(), max_size=8).map(b"".join)
REQUESTS = st.lists(CALLS.map(framed) | fields(), max_size=3).map(b"".join)


@settings(max_examples=600, deadline=None)
@given(REQUESTS, st.data())
def test_the_same_is_accepted_and_read(request_bytes: bytes, data: st.DataObject) -> None:
    assert by_core(request_bytes) == by_library(request_bytes)
    if request_bytes:
        # Cut anywhere, and with any one byte changed.
        cut = request_bytes[: data.draw(st.integers(0, len(request_bytes) - 1))]
        assert by_core(cut) == by_library(cut)
        changed = bytearray(request_bytes)
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        assert by_core(bytes(changed)) == by_library(bytes(changed))


@settings(max_examples=300, deadline=None)
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
    assert callparse.call_tags() == tags
    for request in (
        rating_service_pb2.StreamRateCallsRequest,
        rating_service_pb2.BatchRateCallsRequest,
    ):
        numbers = {field.name: field.number for field in request.DESCRIPTOR.fields}
        assert numbers == {"calls": 1, "min_rate_revision": 2}
