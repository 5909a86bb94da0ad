"""Chunks of uploads, from bytes: the core accepts and refuses the same as the protobuf library, and
finds the same violations in a call as the service."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from ratingcore.record import upload
from ratingcore.record.upload import read_upload
from ratingcore.wire.rate_calls import MalformedRequest
from tests.core.protobuf import damaged, framed, varint
from tests.core.test_callparse import CALLS, FIELDS
from tests.rpc.upload_chunks import compared
from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import MAX_BATCH_CALLS, BadCall
from tollwire.service.rpc.conversion import calls, uploads
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import types_pb2

CHUNKS = st.lists(
    CALLS.map(lambda body: framed(body, 3 << 3 | 2))
    | FIELDS
    | FIELDS.map(lambda body: framed(body, 4 << 3 | 2)),
    max_size=3,
)


@settings(max_examples=100, deadline=None)
@given(CHUNKS.map(b"".join), st.data())
def test_the_same_is_accepted_and_read(request_bytes: bytes, data: st.DataObject) -> None:
    compared(request_bytes)
    for other in damaged(request_bytes, data):
        compared(other)


NUMBERS = st.sampled_from(["", "4420", "+44 20 é", "1\0", "é" * 256, "é" * 257, "1" * 257])
CALL_IDS = st.sampled_from(["", "a", "é" * 255, "é" * 256, "x" * 256, "\0"])
LAST_SECOND = 2**63 // 10**9 - 1  # before 2262-04-11T23:47:16Z
STAMPS = st.none() | st.builds(
    Timestamp,
    seconds=st.sampled_from(
        [-1, 0, 1, 2**33, LAST_SECOND - 1, LAST_SECOND, LAST_SECOND + 1, 2**34, 2**63 - 1, -(2**63)]
    ),
    nanos=st.sampled_from([-1, 0, 0, 1, 999_999_999, 10**9]),
)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        types_pb2.Call,
        tenant_id=st.sampled_from([1, 1, 2**63 - 1, 0, -1]),
        extension_id=st.sampled_from([0, 0, 2**63 - 1, -1]),
        caller_number=NUMBERS,
        destination_number=NUMBERS,
        direction=st.sampled_from([1, 2, 3, 3, 0, 4, -1]),
        disposition=st.sampled_from([1, 2, 6, 6, 0, 7, -1]),
        duration_seconds=st.sampled_from([None, None, 0, 1, 2**31 - 1, 2**31, -1, 2**32]),
        started_at=STAMPS,
        ended_at=STAMPS,
        call_id=CALL_IDS,
        occurrence=st.sampled_from([0, 0, 1, 2, 2**31 - 1, -1]),
        unreadable=st.sampled_from([None, None, None, types_pb2.UnreadableRecord(line=2)]),
    )
)
def test_the_same_breaks_the_rules(call: types_pb2.Call) -> None:
    assert compared(pb.UploadCdrsRequest(calls=[call]).SerializeToString()) == 1


PLAIN = types_pb2.Call(
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
GOOD = {
    "tenant_id": (1, 2**63 - 1),
    "extension_id": (0, 2**63 - 1),
    "caller_number": ("", "é" * 256),
    "destination_number": ("", "é" * 256),
    "direction": (1, 3),
    "disposition": (1, 6),
    "duration_seconds": (0, 2**31 - 1),
    "call_id": ("", "é" * 255),
}
BAD = {
    "tenant_id": (0, -1),
    "extension_id": (-1,),
    "caller_number": ("é" * 257, "\0"),
    "destination_number": ("é" * 257, "\0"),
    "direction": (0, 4, -1),
    "disposition": (0, 7, -1),
    "duration_seconds": (-1, 2**31),
    "call_id": ("é" * 256, "\0"),
}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_each_rule_at_its_edge(name: str) -> None:
    for value in (*GOOD[name], *BAD[name]):
        call = types_pb2.Call()
        call.CopyFrom(PLAIN)
        setattr(call, name, value)
        request_bytes = pb.UploadCdrsRequest(calls=[call]).SerializeToString()
        assert compared(request_bytes) == 1
        assert bool(uploads.chunk(request_bytes)[2].bad) == (value in BAD[name])


def test_a_plain_request_cut_at_every_byte() -> None:
    request = pb.UploadCdrsRequest(upload_id=2**40, offset=300, calls=[PLAIN, PLAIN])
    request_bytes = request.SerializeToString()
    found = {compared(request_bytes[:size]) for size in range(len(request_bytes) + 1)}
    assert found == {None, 0, 1, 2}
    assert uploads.chunk(request_bytes)[:2] == (2**40, 300)


@pytest.mark.parametrize("depth", range(97, 102))
def test_nesting_is_limited_alike(depth: int) -> None:
    group = varint(100 << 3 | 3) * depth + varint(100 << 3 | 4) * depth
    for request_bytes in (group, framed(group, 3 << 3 | 2)):
        compared(request_bytes)


def test_a_scalar_that_comes_again_replaces_the_first() -> None:
    first = pb.UploadCdrsRequest(upload_id=1, offset=2, calls=[PLAIN]).SerializeToString()
    second = pb.UploadCdrsRequest(upload_id=3, offset=4, calls=[PLAIN]).SerializeToString()
    upload_id, offset, chunk = uploads.chunk(first + second)
    assert (upload_id, offset, len(chunk)) == (3, 4, 2)


@pytest.mark.parametrize(
    "totals",
    [
        b"",
        b"\x08\x05\x10\x07",
        b"\x08" + varint(2**64 - 1) + b"\x10" + varint(2**63),
        b"\x08\x05\x08\x06",
        b"\x0a\x01x\x10\x01",  # a wire type that the field does not have
        b"\x08\x05\x10",
        b"\x08" + b"\xff" * 10,
        b"\x00\x00",
        b"\x0c",
    ],
)
def test_control_totals(totals: bytes) -> None:
    tag = 4 << 3 | 2
    plain = pb.UploadCdrsRequest(calls=[PLAIN]).SerializeToString()
    for request in (
        framed(totals, tag),
        framed(totals, tag) + plain + framed(b"\x10\x09", tag),
        framed(b"\x08\x63\x10\x09", tag) + framed(totals, tag) + plain,
        framed(totals, tag)[:-1],
    ):
        compared(request)


@pytest.mark.parametrize("depth", range(97, 102))
def test_nesting_within_control_totals_is_limited_alike(depth: int) -> None:
    group = varint(100 << 3 | 3) * depth + varint(100 << 3 | 4) * depth
    compared(framed(group, 4 << 3 | 2))


def test_a_call_without_a_violation_is_refused_too() -> None:
    """If core and service ever disagree, the record is stored as failed and the chunk continues."""
    bad = calls.bad_call(PLAIN.SerializeToString())
    assert bad == BadCall("", calls.UNEXPLAINED, "INVALID_FIELD", "été", 63)


def test_too_many_calls() -> None:
    one = framed(PLAIN.SerializeToString(), 3 << 3 | 2)
    assert len(uploads.chunk(one * MAX_BATCH_CALLS)[2]) == MAX_BATCH_CALLS
    with pytest.raises(InvalidInput, match="at most 10000 in one message, got 10002"):
        uploads.chunk(one * (MAX_BATCH_CALLS + 2))
    _, _, call_count, records, _ = read_upload(one * 5, 3)
    assert (call_count, len(records)) == (5, 3)
    with pytest.raises(MalformedRequest):
        read_upload(one * 5 + b"\x1a", 3)


def test_the_field_numbers_are_those_of_the_descriptor() -> None:
    fields = {field.name: field for field in pb.UploadCdrsRequest.DESCRIPTOR.fields}
    for field in pb.ControlTotals.DESCRIPTOR.fields:
        fields[f"control_totals.{field.name}"] = field
    tags = {
        name: field.number << 3 | (2 if field.message_type else 0) for name, field in fields.items()
    }
    assert upload.request_tags() == tags


@pytest.mark.parametrize("number", [3, 4, 10])
def test_a_text_that_comes_again_is_the_last_one(number: int) -> None:
    """The content of the others does not matter."""
    call = types_pb2.Call(
        tenant_id=1,
        caller_number="1000",
        destination_number="4420",
        direction=types_pb2.DIRECTION_OUTBOUND,
        disposition=types_pb2.DISPOSITION_ANSWERED,
        duration_seconds=1,
        started_at=Timestamp(seconds=1),
        call_id="a",
    ).SerializeToString()
    nul = framed(b"\0", number << 3 | 2)
    for body, bad_count in ((nul + call, 0), (call + nul, 1)):
        request = framed(body, 3 << 3 | 2)
        assert compared(request) == 1
        assert len(uploads.chunk(request)[2].bad) == bad_count
