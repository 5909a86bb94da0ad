"""The bulk path from bytes to bytes: its responses equal those of the path of message objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

import ratingcore
from ratingcore.wire import rate_calls, rated_call_writer
from ratingcore.wire.tally import Tally
from tests.rpc.known_decks import CALLS, NOW_NS, by_messages
from tollwire.service.domain.errors import FailedPrecondition, InvalidInput, Reason, Unwanted
from tollwire.service.domain.request import Request
from tollwire.service.domain.thread_context import handling
from tollwire.service.rpc.bulk_rating import BulkRating
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

BULK = BulkRating(CALLS)

NUMBERS = st.one_of(
    st.text("0123", min_size=1, max_size=34),
    st.text("0123+-() sip:@;", max_size=20),
    st.sampled_from(["", "0", "00", "sip:+12@x", "tel:0-12", "é", "1\0", "1" * 256, "1" * 257]),
)
STAMPS = st.builds(
    Timestamp,
    seconds=st.sampled_from(
        [0, 1_762_999_999, 1_763_000_000, 1_763_000_001, -1, 2**62, 9223372035, 9223372036]
    ),
    nanos=st.sampled_from([0, 0, 0, 1, 999_999_999, -1, 10**9]),
)
WELL_FORMED = st.fixed_dictionaries(
    {
        "tenant_id": st.sampled_from([1, 1, 1, 2, 3, 2**40]),
        "destination_number": NUMBERS,
        "direction": st.sampled_from([2, 2, 2, 1, 3]),
        "disposition": st.sampled_from([1, 1, 1, 2, 6]),
        "duration_seconds": st.sampled_from([0, 1, 59, 60, 61, 121, 2**31 - 1]),
    },
    optional={
        "started_at": STAMPS,
        "ended_at": STAMPS,
        "call_id": st.text(max_size=8) | st.just("x" * 255) | st.just("é" * 250),
        "caller_number": st.text(max_size=8),
    },
)
ANYTHING = st.fixed_dictionaries(
    {},
    optional={
        "tenant_id": st.sampled_from([1, 2, 4, 0, -1, 2**63 - 1]),
        "extension_id": st.sampled_from([0, 1, -1]),
        "caller_number": NUMBERS,
        "destination_number": NUMBERS,
        "direction": st.sampled_from([0, 1, 2, 3, 4, -1, 99]),
        "disposition": st.sampled_from([0, 1, 6, 7, -1]),
        "duration_seconds": st.sampled_from([-1, 0, 60, 2**31 - 1, 2**31, 2**63 - 1]),
        "started_at": STAMPS,
        "ended_at": STAMPS,
        "call_id": st.text(max_size=4) | st.sampled_from(["x" * 255, "x" * 256, "\0"]),
    },
)
BATCHES = st.lists(
    st.builds(lambda fields: types_pb2.Call(**fields), WELL_FORMED | ANYTHING), max_size=80
)


def frozen_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tollwire.service.rpc.bulk_rating.time.time_ns", lambda: NOW_NS)


@settings(max_examples=200, deadline=None)
@given(BATCHES, st.sampled_from(types_pb2.RatedCallView.values()))
def test_the_bulk_path_equals_message_objects(
    batch: list[types_pb2.Call], view: types_pb2.RatedCallView
) -> None:
    request = pb.StreamRateCallsRequest(calls=batch, view=view).SerializeToString()
    tally = Tally()
    with pytest.MonkeyPatch.context() as monkeypatch:
        frozen_time(monkeypatch)
        response = BULK.rate(request, tally)
    answered = pb.StreamRateCallsResponse.FromString(response)
    assert answered == pb.StreamRateCallsResponse.FromString(by_messages(request))
    assert response == by_messages(request)
    whole = pb.StreamRateCallsResponse.FromString(
        by_messages(pb.StreamRateCallsRequest(calls=batch).SerializeToString())
    )
    good = [one for one in whole.rated if not one.HasField("error")]
    assert tally.counts() == Counter((one.status, one.unrated_reason) for one in good)
    assert tally.unrated() == sum(one.status == types_pb2.RATING_STATUS_UNRATED for one in good)
    assert tally.calls() == len(good)


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_000, 16_500, 70_000])
def test_answers_of_every_length(size: int) -> None:
    """The length before each result takes one, two or three bytes."""
    answer = types_pb2.RatedCall(destination="x" * size)
    refer: Callable[[bytes], bytes] = lambda _: answer.SerializeToString()  # noqa: E731
    request = pb.BatchRateCallsRequest(calls=[types_pb2.Call()] * 70).SerializeToString()
    response = rate_calls.rate_request(request, lambda _: None, refer, NOW_NS, 100)
    assert list(pb.BatchRateCallsResponse.FromString(response).rated) == [answer] * 70


def test_other_bytes_are_malformed() -> None:
    for request in (b"\x0a", b"\x0a\x02\x08", b"\xff", b"\x0a\x03\x22\x01\xff"):
        with pytest.raises(InvalidInput) as refused:
            BULK.rate(request, Tally())
        assert refused.value.reason is Reason.MALFORMED_REQUEST


def test_more_than_ten_thousand_calls_are_refused_as_a_whole() -> None:
    call = types_pb2.Call(tenant_id=1, direction=1, disposition=1, duration_seconds=1)
    at_most = pb.BatchRateCallsRequest(calls=[call] * 10_000)
    response = pb.BatchRateCallsResponse.FromString(BULK.rate(at_most.SerializeToString(), Tally()))
    assert len(response.rated) == 10_000
    at_most.calls.append(call)
    with pytest.raises(InvalidInput) as refused:
        BULK.rate(at_most.SerializeToString(), Tally())
    assert [violation.field for violation in refused.value.violations] == ["calls"]


def test_too_many_calls_are_counted_before_the_first_is_judged() -> None:
    def refer(call: bytes) -> bytes:
        raise AssertionError("a call was judged")

    for others in (b"", b"\x50\x01", b"\x52\x03\x0a\x01\x00"):
        empty = b"\x0a\x00" * 5_000 + others + b"\x0a\x00" * 5_001
        with pytest.raises(rate_calls.TooManyCalls):
            rate_calls.rate_request(empty, lambda tenant_id: None, refer, NOW_NS, 10_000)


def test_the_judging_of_calls_ends_with_the_client() -> None:
    looks = iter([True] * 3 + [False])
    with handling(Request(is_wanted=lambda: next(looks))), pytest.raises(Unwanted):
        BULK.rate(b"\x0a\x00" * 10_000, Tally())
    assert list(looks) == []


def test_a_request_sees_one_deck_of_each_tenant() -> None:
    """Although the decks change with each look-up, and with thousands of tenants in one request."""
    decks: list[ratingcore.Deck] = []

    def find_deck(tenant_id: int) -> ratingcore.Deck:
        decks.append(ratingcore.DeckBuilder().build(len(decks) + 1))
        return decks[-1]

    def refer(call: bytes) -> bytes:
        raise AssertionError(call)

    tenants = [*range(1, 3000), *range(1, 3000)]
    request = pb.StreamRateCallsRequest(
        calls=[
            types_pb2.Call(tenant_id=one, direction=1, disposition=1, duration_seconds=1)
            for one in tenants
        ]
    )
    response = pb.StreamRateCallsResponse.FromString(
        rate_calls.rate_request(request.SerializeToString(), find_deck, refer, NOW_NS, 10_000)
    )
    assert [rated.rate_revision for rated in response.rated] == tenants
    assert len(decks) == 2999


def test_a_demanded_revision_is_used_or_refused() -> None:
    call = types_pb2.Call(tenant_id=1, direction=1, disposition=1, duration_seconds=1)
    out_of_order = types_pb2.Call(tenant_id=1)
    for revision, calls in ((300, [call]), (1, [call, out_of_order]), (0, [out_of_order])):
        request = pb.BatchRateCallsRequest(calls=calls, min_rate_revision=revision)
        BULK.rate(request.SerializeToString(), Tally())
    for calls in ([call], [out_of_order]):
        request = pb.BatchRateCallsRequest(calls=calls, min_rate_revision=301)
        with pytest.raises(FailedPrecondition) as ahead:
            BULK.rate(request.SerializeToString(), Tally())
        assert ahead.value.reason is Reason.RATE_REVISION_AHEAD
        assert ahead.value.metadata["rate_revision"] == "300"
    below = pb.BatchRateCallsRequest(min_rate_revision=-1).SerializeToString()
    with pytest.raises(InvalidInput) as negative:
        BULK.rate(below, Tally())
    assert [one.field for one in negative.value.violations] == ["min_rate_revision"]


def test_a_view_that_does_not_exist_is_refused() -> None:
    for view in (3, -1, 2**31 - 1):
        request = pb.StreamRateCallsRequest(view=view).SerializeToString()
        with pytest.raises(InvalidInput) as refused:
            BULK.rate(request, Tally())
        (violation,) = refused.value.violations
        assert (violation.field, violation.description) == (
            "view",
            f"must be RATED_CALL_VIEW_FULL or RATED_CALL_VIEW_BASIC, got {view}",
        )


def stretches(plain: bytes) -> list[bytes]:
    """Encodings of an option: the shortest one, and longer ones."""
    longer = plain[:-1] + bytes([plain[-1] | 0x80, 0])
    wide_tag = bytes([plain[0] | 0x80, 0]) + plain[1:]
    return [plain, wide_tag, longer if len(longer) <= 11 else plain]


@given(
    st.lists(st.sampled_from([1, 200, 300, 301, 2**40, -1]), max_size=3),
    st.lists(st.sampled_from(types_pb2.RatedCallView.values()), max_size=3),
    st.data(),
)
def test_options_may_stand_anywhere_and_the_last_ones_count(
    revisions: list[int], views: list[types_pb2.RatedCallView], data: st.DataObject
) -> None:
    call = types_pb2.Call(tenant_id=1, direction=1, disposition=1, duration_seconds=1)
    out_of_order = types_pb2.Call(tenant_id=1, call_id="\x10\x05")
    options = [pb.BatchRateCallsRequest(min_rate_revision=revision) for revision in revisions]
    options += [pb.BatchRateCallsRequest(view=view) for view in views if view]
    parts = [
        data.draw(st.sampled_from(stretches(option.SerializeToString()))) for option in options
    ]
    parts += data.draw(
        st.lists(
            st.sampled_from([call, out_of_order]).map(
                lambda one: pb.BatchRateCallsRequest(calls=[one]).SerializeToString()
            )
        )
    )
    request = b"".join(data.draw(st.permutations(parts)))
    message = pb.BatchRateCallsRequest.FromString(request)
    least = message.min_rate_revision
    assert rate_calls.likely_options(message.SerializeToString()) == (least, message.view)
    if least < 0:
        with pytest.raises(InvalidInput):
            BULK.rate(request, Tally())
    elif least > 300 and message.calls:
        with pytest.raises(FailedPrecondition):
            BULK.rate(request, Tally())
    else:
        assert BULK.rate(request, Tally()) == by_messages(request)


@given(st.binary(max_size=40))
def test_likely_options_are_the_options_or_none(request_bytes: bytes) -> None:
    try:
        request = pb.BatchRateCallsRequest.FromString(request_bytes)
    except DecodeError:
        return
    options = request.min_rate_revision, request.view
    assert rate_calls.likely_options(request_bytes) in ((0, 0), options)


def test_an_error_of_the_decks_is_passed_on() -> None:
    def fail(_: object) -> bytes:
        raise RuntimeError("asked")

    for call in (types_pb2.Call(), types_pb2.Call(tenant_id=1, direction=1, disposition=1)):
        request = pb.StreamRateCallsRequest(calls=[call]).SerializeToString()
        with pytest.raises(RuntimeError, match="asked"):
            rate_calls.rate_request(request, fail, fail, NOW_NS, 1)


def test_the_field_numbers_are_those_of_the_descriptor() -> None:
    assert types_pb2.RATED_CALL_VIEW_BASIC == rate_calls.VIEW_BASIC
    bytes_types = {11, 9}  # TYPE_MESSAGE, TYPE_STRING
    tags = {
        field.name: field.number << 3 | (2 if field.type in bytes_types else 0)
        for field in types_pb2.RatedCall.DESCRIPTOR.fields
    }
    del tags["error"]  # never written by the core
    assert rated_call_writer.rated_call_tags() == tags
