"""CreateCdr's bytes: the core reads the request and writes the response like the protobuf library
and the service's own conversion."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from ratingcore import DeckBuilder
from ratingcore.record.key_order import in_key_order
from ratingcore.record.record_rating import rate_records
from ratingcore.record.records import Records
from ratingcore.record.single_calls import cdr_tags, created_cdr, joined, read_single_call
from tests.examples import examples
from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import Extension, Interval, Rate, Tenant
from tollwire.service.record.recording import content_of
from tollwire.service.record.single_calls import RecordedCall
from tollwire.service.rpc.conversion import calls, cdrs
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import types_pb2

TIMES = st.builds(
    Timestamp,
    seconds=st.integers(0, 9_223_372_035) | st.integers(-2, 9_223_372_037),
    nanos=st.integers(0, 999_999_999) | st.sampled_from([0, -1, 10**9]),
)
TEXTS = st.sampled_from(["", "44", "+44 20 7946 0000", "anonymous", "é", "\0", "4" * 300])
CALLS = st.builds(
    types_pb2.Call,
    tenant_id=st.sampled_from([1, 2, 2**63 - 1, 0, -1]),
    extension_id=st.sampled_from([0, 1, 300, -1]),
    caller_number=TEXTS,
    destination_number=TEXTS,
    direction=st.integers(0, 4),
    disposition=st.integers(0, 7),
    duration_seconds=st.none() | st.integers(0, 2**31 - 1) | st.sampled_from([-1, 2**31]),
    started_at=st.none() | TIMES,
    ended_at=st.none() | TIMES,
    call_id=TEXTS,
    occurrence=st.sampled_from([0, 1, 2, -1]),
)


def by_library(request: bytes) -> Any:
    """The content of the call that is to be recorded; the error if there is none."""
    try:
        message = pb.CreateCdrRequest.FromString(request)
        call = calls.required_call(message.call, present=message.HasField("call"), now_ns=None)
    except (DecodeError, InvalidInput) as error:
        return error
    return content_of(call)


def check(request: bytes) -> bool:
    """Whether the core takes the call itself, which it then reads as the library does."""
    records = read_single_call(request)
    expected = by_library(request)
    if records is None:
        return False
    assert not isinstance(expected, Exception), "only the core takes the call"
    assert len(records) == 1
    content = records.content(0)
    assert content[1] == expected.call_id or content[1].startswith("auto-")
    assert content == (expected[0], content[1], *expected[2:])
    return True


@given(CALLS)
@examples(1000)
def test_a_request_is_read_as_the_library_reads_it(call: types_pb2.Call) -> None:
    request = pb.CreateCdrRequest(call=call).SerializeToString()
    assert check(request) == (not isinstance(by_library(request), Exception))


@given(CALLS, st.data())
@examples(1000)
def test_damaged_requests(call: types_pb2.Call, data: st.DataObject) -> None:
    request = bytearray(pb.CreateCdrRequest(call=call).SerializeToString())
    if request:
        request[data.draw(st.integers(0, len(request) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(request[: data.draw(st.integers(0, len(request)))]))
    check(bytes(request))


def good_call(**fields: Any) -> types_pb2.Call:
    return types_pb2.Call(
        **(
            {
                "tenant_id": 1,
                "destination_number": "4420",
                "direction": types_pb2.DIRECTION_OUTBOUND,
                "disposition": types_pb2.DISPOSITION_ANSWERED,
                "duration_seconds": 7,
                "started_at": Timestamp(seconds=1_772_445_600),
                "call_id": "c1",
            }
            | fields
        )
    )


@pytest.mark.parametrize("number", [2, 3])
def test_a_call_that_comes_in_parts_is_left_to_the_library(number: int) -> None:
    parts = pb.CreateCdrRequest(call=good_call()).SerializeToString() * number
    assert read_single_call(parts) is None
    assert not isinstance(by_library(parts), Exception)


def test_a_request_without_a_call() -> None:
    assert read_single_call(b"") is None


def test_unknown_fields_are_skipped() -> None:
    request = pb.CreateCdrRequest(call=good_call()).SerializeToString()
    assert check(b"\x10\x05" + request + b"\x7a\x03abc")


def test_an_unreadable_record_is_no_call_to_record() -> None:
    call = good_call(unreadable=types_pb2.UnreadableRecord(line=1))
    request = pb.CreateCdrRequest(call=call).SerializeToString()
    assert read_single_call(request) is None
    assert isinstance(by_library(request), InvalidInput)


TENANTS = st.builds(
    Tenant,
    id=st.just(1),
    name=st.sampled_from(["", "Zoë", "n" * 200]),
    country_code=st.sampled_from(["", "44"]),
    created_at_ns=st.integers(0, 2**62),
    cost_decimals=st.integers(4, 8),
)
EXTENSIONS = st.none() | st.builds(
    Extension,
    id=st.integers(1, 2**63 - 1),
    tenant_id=st.just(1),
    number=st.sampled_from(["1", "é" * 64]),
    name=st.sampled_from(["", "Desk"]),
)
RATES = st.builds(
    Rate,
    id=st.integers(1, 2**63 - 1),
    tenant_id=st.just(1),
    prefix=st.sampled_from(["", "4", "44"]),
    destination=st.sampled_from(["", "UK", "ü" * 200]),
    cost_per_minute_e8=st.integers(0, 10**9) | st.integers(0, 10**13),
    billing_increment=st.integers(1, 86_400),
    connect_fee_e8=st.sampled_from([0, 1, 10**8]),
    minimum_seconds=st.sampled_from([0, 30]),
    intervals=st.just(()) | st.just((Interval(60, 5, 1),)),
    effective_from_ns=st.none(),
    effective_to_ns=st.none(),
    blocked=st.booleans(),
)


def rated(call: types_pb2.Call, rate: Rate, decimals: int) -> Records | None:
    """The call as a rated list of one, with the rate as the only one of its tenant; None if it is
    refused."""
    records = read_single_call(pb.CreateCdrRequest(call=call).SerializeToString())
    assert records is not None
    builder = DeckBuilder()
    builder.put(
        5,
        rate.id,
        rate.prefix,
        rate.destination,
        rate.cost_per_minute_e8,
        rate.billing_increment,
        rate.connect_fee_e8,
        rate.minimum_seconds,
        tuple(
            (one.start_seconds, one.cost_per_minute_e8, one.billing_increment)
            for one in rate.intervals
        ),
        None,
        None,
        rate.blocked,
    )
    deck = builder.build(9, 1, "", "", "", decimals)
    rate_records(records, in_key_order(records), {1: deck})
    return records


@given(
    rate=RATES,
    tenant=TENANTS,
    extension=EXTENSIONS,
    seconds=st.integers(0, 100_000),
    started_at=st.builds(
        Timestamp, seconds=st.integers(0, 9_223_372_035), nanos=st.integers(0, 999_999_999)
    ),
    number=st.sampled_from(["4420", "33", "anonymous", ""]),
    direction=st.integers(1, 3),
    cdr_id=st.integers(1, 2**63 - 1),
    created_at_ns=st.integers(0, 2**63 - 1),
    has_end=st.booleans(),
    call_id=st.sampled_from(["", "c1", "é" * 100]),
    extension_id=st.sampled_from([0, 7]),
)
@examples(1000)
def test_an_answer_has_the_bytes_that_the_library_writes(
    rate: Rate,
    tenant: Tenant,
    extension: Extension | None,
    seconds: int,
    started_at: Timestamp,
    number: str,
    direction: int,
    cdr_id: int,
    created_at_ns: int,
    has_end: bool,
    call_id: str,
    extension_id: int,
) -> None:
    call = good_call(
        destination_number=number,
        duration_seconds=seconds,
        started_at=started_at,
        ended_at=started_at if has_end and started_at.seconds else None,
        direction=direction,
        call_id=call_id,
        extension_id=extension_id,
    )
    records = rated(call, rate, tenant.cost_decimals)
    assert records is not None
    status, *_, version_id, _ = records.outcome(0)
    recorded = RecordedCall(
        cdr_id=cdr_id,
        records=records,
        position=0,
        created_at_ns=created_at_ns,
        tenant=tenant,
        extension=extension,
        rate=None if version_id is None else rate,
    )
    if status == 4:  # past the limit of costs: never recorded
        with pytest.raises(ValueError, match="was not recorded"):
            cdrs.recorded_call(recorded)
        return
    assert cdrs.recorded_call(recorded) == cdrs.cdr(recorded.cdr()).SerializeToString()


def test_an_unrated_call_has_no_answer() -> None:
    records = read_single_call(pb.CreateCdrRequest(call=good_call()).SerializeToString())
    assert records is not None
    records.set_first_generation()
    for arguments in ((0, 1, -1, 4), (0, 1, 1, 3), (0, 1, 1, 9)):
        with pytest.raises(ValueError, match="was not recorded"):
            created_cdr(records, *arguments, b"", None, None, None)
    with pytest.raises(IndexError):
        created_cdr(records, 1, 1, 1, 4, b"", None, None, None)


def test_lists_are_joined_in_order() -> None:
    requests = [
        pb.CreateCdrRequest(call=good_call(call_id=call_id, tenant_id=tenant_id))
        for call_id, tenant_id in (("a", 2), ("", 1), ("c", 2))
    ]
    lists = [read_single_call(one.SerializeToString()) for one in requests]
    contents = [one.content(0) for one in lists if one is not None]
    made = joined(one for one in lists if one is not None)
    del lists
    assert [made.content(position) for position in range(3)] == contents
    assert made.parties() == [(2, 0), (1, 0)]
    assert made.derived() == 1
    assert len(joined([])) == 0
    with pytest.raises(TypeError):
        joined([None])


def test_the_field_numbers_are_those_of_the_descriptors() -> None:
    tags = cdr_tags()
    assert tags.pop("call") == pb.CreateCdrRequest.DESCRIPTOR.fields_by_name["call"].number << 3 | 2
    fields = types_pb2.Cdr.DESCRIPTOR.fields_by_name
    for name, tag in tags.items():
        field = fields[name]
        by_length = field.message_type is not None or field.type == field.TYPE_STRING
        assert tag == field.number << 3 | (2 if by_length else 0), name
    # The others are of uploads, and of calls that were recorded before.
    assert fields.keys() - tags.keys() == {
        "upload_id",
        "reversal",
        "generation",
        "replaces_cdr_id",
        "replaced_by_cdr_id",
    }
