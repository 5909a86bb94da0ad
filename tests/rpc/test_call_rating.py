"""RateCall from bytes to bytes: its responses and refusals equal those of message objects."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from ratingcore import Deck
from ratingcore.wire.rate_calls import rate_lone_call, rate_lone_calls
from tests.rpc.test_bulk_rating import ANYTHING, CALLS, NOW_NS, WELL_FORMED
from tollwire.service.domain.errors import InvalidInput, Reason, TollwireError
from tollwire.service.observability import tallies
from tollwire.service.rpc.call_rating import CallRating
from tollwire.service.rpc.conversion import calls as conversion
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

RATING = CallRating(CALLS)
REQUESTS = st.builds(
    pb.RateCallRequest,
    call=st.builds(lambda fields: types_pb2.Call(**fields), WELL_FORMED | ANYTHING),
    explain=st.sampled_from([False, False, False, True]),
    min_rate_revision=st.sampled_from([0, 0, 0, 1, 300, 301, 10**9, -1]),
)
GOOD = types_pb2.Call(
    tenant_id=3, destination_number="12", direction=2, disposition=1, duration_seconds=61
)


def by_message(data: bytes) -> bytes:
    """The same through message objects, in the simplest way."""
    try:
        request = pb.RateCallRequest.FromString(data)
    except DecodeError:
        return b"malformed"
    response = pb.RateCallResponse()
    call = conversion.required_call(request.call, present=request.HasField("call"), now_ns=NOW_NS)
    if request.min_rate_revision < 0:
        raise InvalidInput(Reason.INVALID_FIELD, "min_rate_revision")
    if request.explain:
        rated, explained = CALLS.explain(call, request.min_rate_revision)
        response.explanation.CopyFrom(conversion.explanation(explained))
    else:
        rated = CALLS.rate(call, request.min_rate_revision)
    conversion.write_rated(rated, response.rated)
    return response.SerializeToString()


def outcome(rate: object, data: bytes) -> object:
    assert callable(rate)
    try:
        return rate(data)
    except TollwireError as error:
        if error.reason is Reason.MALFORMED_REQUEST:
            return b"malformed"
        if "min_rate_revision" in error.message and isinstance(error, InvalidInput):
            return "negative revision"
        return type(error), error.reason, error.message, error.metadata, error.violations


@pytest.fixture(autouse=True, scope="module")
def _frozen_time() -> object:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tollwire.service.rpc.call_rating.time.time_ns", lambda: NOW_NS)
        yield


@settings(max_examples=100, deadline=None)
@given(REQUESTS)
def test_it_equals_message_objects(request: pb.RateCallRequest) -> None:
    data = request.SerializeToString()
    assert outcome(RATING.rate, data) == outcome(by_message, data)


@settings(max_examples=100, deadline=None)
@given(REQUESTS, REQUESTS, st.binary(max_size=6), st.integers(0, 120))
def test_any_bytes_equal_message_objects(
    first: pb.RateCallRequest, second: pb.RateCallRequest, damage: bytes, at: int
) -> None:
    """Two concatenated requests are one to protobuf: the second call is merged into the first."""
    whole = first.SerializeToString() + second.SerializeToString()
    for data in (whole, whole[:at] + damage + whole[at + len(damage) :], whole[:at], damage):
        assert outcome(RATING.rate, data) == outcome(by_message, data)


def test_each_outcome_is_counted() -> None:
    def counted(call: types_pb2.Call, *, explain: bool = False) -> dict[tuple[str, str], int]:
        before = tallies.named(tallies.RATE_CALL)
        outcome(RATING.rate, pb.RateCallRequest(call=call, explain=explain).SerializeToString())
        after = tallies.named(tallies.RATE_CALL)
        more = {key: calls - before.get(key, 0) for key, calls in after.items()}
        return {key: calls for key, calls in more.items() if calls}

    inbound = types_pb2.Call(tenant_id=3, direction=1, disposition=1, duration_seconds=9)
    wrong = types_pb2.Call()
    wrong.CopyFrom(GOOD)
    wrong.destination_number = "none"
    for explain in (False, True):
        assert counted(GOOD, explain=explain) == {("RATED", ""): 1}
        assert counted(inbound, explain=explain) == {("NOT_BILLABLE", ""): 1}
        assert counted(wrong, explain=explain) == {("UNRATED", "INVALID_NUMBER"): 1}
        assert counted(types_pb2.Call(tenant_id=99), explain=explain) == {}


def test_a_call_with_a_price_makes_no_objects() -> None:
    request = pb.RateCallRequest(call=GOOD).SerializeToString()
    answer = rate_lone_call(request, CALLS.deck_in_memory, NOW_NS)
    assert answer is not None
    assert answer == by_message(request)
    inbound = types_pb2.Call(tenant_id=3, direction=1, disposition=1, duration_seconds=9)
    request = pb.RateCallRequest(call=inbound).SerializeToString()
    assert rate_lone_call(request, CALLS.deck_in_memory, NOW_NS) == by_message(request)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pb.RateCallRequest(explain=True, call=GOOD).SerializeToString(),
        pb.RateCallRequest(min_rate_revision=1, call=GOOD).SerializeToString(),
        2 * pb.RateCallRequest(call=GOOD).SerializeToString(),
        pb.RateCallRequest(call=types_pb2.Call(tenant_id=3)).SerializeToString(),
        pb.RateCallRequest(call=GOOD).SerializeToString()[:-1],
    ],
)
def test_other_requests_are_left_to_message_objects(data: bytes) -> None:
    assert rate_lone_call(data, CALLS.deck_in_memory, NOW_NS) is None


def test_a_tenant_that_is_not_in_memory_is_looked_up() -> None:
    asked: list[int] = []
    request = pb.RateCallRequest(call=GOOD).SerializeToString()
    assert rate_lone_call(request, asked.append, NOW_NS) is None
    assert asked == [3]


def test_several_requests_at_one_time_are_rated_as_each_alone() -> None:
    found: list[tuple[int, int]] = []

    def find_deck(index: int, tenant_id: int) -> Deck | None:
        found.append((index, tenant_id))
        return CALLS.deck_in_memory(tenant_id)

    good = pb.RateCallRequest(call=GOOD).SerializeToString()
    unknown = pb.RateCallRequest(call=GOOD)
    unknown.call.destination_number = "x"
    requests = [good, b"", b"\xff", unknown.SerializeToString(), good]
    answers = rate_lone_calls(requests, find_deck, NOW_NS)
    assert answers == [rate_lone_call(one, CALLS.deck_in_memory, NOW_NS) for one in requests]
    assert [answer is None for answer in answers] == [False, True, True, True, False]
    assert [index for index, _ in found] == [0, 3, 4]
    assert rate_lone_calls([], find_deck, NOW_NS) == []
