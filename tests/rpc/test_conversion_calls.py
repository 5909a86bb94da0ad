"""Calls read from messages, ratings written into them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import (
    BadCall,
    Call,
    ConsideredRate,
    Direction,
    Disposition,
    Explanation,
    ExplanationStep,
    RatedCall,
    RatingStatus,
    UnratedReason,
)
from tollwire.service.rpc.conversion import calls
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

NOW_NS = 1_772_445_600_123_456_789
START = Timestamp(seconds=1_700_000_000, nanos=999_999_999)


def message(**changes: Any) -> types_pb2.Call:
    fields: dict[str, Any] = {
        "tenant_id": 7,
        "extension_id": 8,
        "caller_number": "101",
        "destination_number": "sip:+44 20@x",
        "direction": types_pb2.DIRECTION_OUTBOUND,
        "disposition": types_pb2.DISPOSITION_ANSWERED,
        "duration_seconds": 63,
        "started_at": START,
        "ended_at": Timestamp(seconds=1_700_000_070),
        "call_id": "a",
    }
    fields.update(changes)
    return types_pb2.Call(**{name: value for name, value in fields.items() if value is not None})


def read(sent: types_pb2.Call, now_ns: int | None = None) -> Call:
    return calls.required_call(sent, present=True, now_ns=now_ns)


def wrong_fields(sent: types_pb2.Call, now_ns: int | None = None) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        read(sent, now_ns)
    assert all(violation.description for violation in refused.value.violations)
    return sorted(violation.field for violation in refused.value.violations)


def test_every_field_arrives() -> None:
    assert read(message()) == Call(
        tenant_id=7,
        extension_id=8,
        caller_number="101",
        destination_number="sip:+44 20@x",
        direction=Direction.OUTBOUND,
        disposition=Disposition.ANSWERED,
        duration_seconds=63,
        started_at_ns=1_700_000_000_999_999_999,
        ended_at_ns=1_700_000_070_000_000_000,
        call_id="a",
    )


def test_optional_fields_may_be_missing() -> None:
    call = read(message(extension_id=None, caller_number=None, ended_at=None, call_id=None), NOW_NS)
    assert (call.extension_id, call.caller_number, call.call_id) == (0, "", "")
    assert call.ended_at_ns is None


def test_a_missing_start_is_now_or_wrong() -> None:
    assert read(message(started_at=None, ended_at=None), NOW_NS).started_at_ns == NOW_NS
    assert wrong_fields(message(started_at=None), None) == ["call.started_at"]
    # Set to the epoch is not missing.
    assert read(message(started_at=Timestamp()), NOW_NS).started_at_ns == 0


@pytest.mark.parametrize(
    ("seconds", "nanos", "duration_seconds"),
    [
        (0, 999_999_999, 0),
        (1, 999_999_998, 0),
        (1, 999_999_999, 1),
        (61, 0, 60),
        (61, 10**9 - 1, 61),
    ],
)
def test_a_missing_duration_is_whole_seconds_from_start_to_end(
    seconds: int, nanos: int, duration_seconds: int
) -> None:
    ended_at = Timestamp(seconds=START.seconds + seconds, nanos=nanos)
    call = read(message(duration_seconds=None, ended_at=ended_at))
    assert call.duration_seconds == duration_seconds


def test_a_given_duration_is_taken_as_it_is() -> None:
    assert read(message(duration_seconds=0)).duration_seconds == 0
    assert read(message(duration_seconds=2**31 - 1)).duration_seconds == 2**31 - 1


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"tenant_id": 0}, ["tenant_id"]),
        ({"tenant_id": -1}, ["tenant_id"]),
        ({"extension_id": -1}, ["extension_id"]),
        ({"caller_number": "x" * 257}, ["caller_number"]),
        ({"caller_number": "a\0"}, ["caller_number"]),
        ({"destination_number": "x" * 257}, ["destination_number"]),
        ({"destination_number": "\0"}, ["destination_number"]),
        ({"direction": 0}, ["direction"]),
        ({"direction": 99}, ["direction"]),
        ({"disposition": 0}, ["disposition"]),
        ({"disposition": -5}, ["disposition"]),
        ({"duration_seconds": -1}, ["duration_seconds"]),
        ({"duration_seconds": 2**31}, ["duration_seconds"]),
        ({"duration_seconds": 2**63 - 1}, ["duration_seconds"]),
        ({"duration_seconds": None, "ended_at": None}, ["duration_seconds"]),
        ({"started_at": Timestamp(nanos=-1)}, ["started_at"]),
        ({"started_at": Timestamp(seconds=-1)}, ["started_at"]),
        ({"started_at": Timestamp(seconds=2**62)}, ["started_at"]),
        ({"ended_at": Timestamp(seconds=START.seconds)}, ["ended_at"]),
        ({"ended_at": Timestamp(seconds=1), "duration_seconds": None}, ["ended_at"]),
        ({"ended_at": Timestamp(), "duration_seconds": None}, ["duration_seconds"]),
        ({"ended_at": Timestamp(nanos=1)}, ["ended_at"]),
        ({"started_at": Timestamp(seconds=9_223_372_036)}, ["ended_at", "started_at"]),
        ({"ended_at": Timestamp(seconds=9_223_372_036)}, ["ended_at"]),
        ({"ended_at": Timestamp(nanos=10**9)}, ["ended_at"]),
        ({"ended_at": Timestamp(nanos=10**9), "duration_seconds": None}, ["ended_at"]),
        ({"ended_at": Timestamp(seconds=250_000_000_000)}, ["ended_at"]),
        ({"call_id": "x" * 256}, ["call_id"]),
        ({"call_id": "x\0"}, ["call_id"]),
        (
            {"tenant_id": 0, "direction": 9, "started_at": Timestamp(nanos=-1), "call_id": "\0"},
            ["call_id", "direction", "started_at", "tenant_id"],
        ),
    ],
)
def test_every_wrong_field_is_named_at_once(changes: dict[str, Any], fields: list[str]) -> None:
    assert wrong_fields(message(**changes)) == [f"call.{field}" for field in fields]
    # In a batch the same call is a result: its first wrong field, by its path from the call.
    (bad,) = calls.read_calls([message(**changes)], now_ns=None)
    assert isinstance(bad, BadCall)
    assert bad.field in fields
    assert bad.reason == "INVALID_FIELD"
    assert bad.message
    assert bad.call_id == ("" if "call_id" in fields else "a")


def test_everything_missing() -> None:
    assert wrong_fields(types_pb2.Call()) == [
        *("call.direction", "call.disposition", "call.duration_seconds", "call.started_at"),
        "call.tenant_id",
    ]
    with pytest.raises(InvalidInput) as refused:
        calls.required_call(types_pb2.Call(), present=False, now_ns=None)
    assert [violation.field for violation in refused.value.violations] == ["call"]


def test_a_bad_call_of_a_batch_leaves_the_others_alone() -> None:
    batch = calls.read_calls(
        [message(), message(direction=99, call_id="b"), message(tenant_id=9)], now_ns=None
    )
    assert [getattr(item, "tenant_id", None) for item in batch] == [7, None, 9]
    assert batch[1] == BadCall("direction", "unknown direction 99", "INVALID_FIELD", "b", 63)


def test_a_batch_has_a_limit() -> None:
    assert len(calls.read_calls([message()] * 10_000, now_ns=None)) == 10_000
    with pytest.raises(InvalidInput) as refused:
        calls.read_calls([message()] * 10_001, now_ns=None)
    assert [violation.field for violation in refused.value.violations] == ["calls"]


RATED = RatedCall(
    call_id="a",
    status=RatingStatus.RATED,
    bill_seconds=66,
    cost_e8=999_999_999_999_999_9999_0000,
    rate_id=5,
    version_id=9,
    matched_prefix="447",
    destination="UK mobile",
    cost_per_minute_e8=1500_0000,
    billing_increment=6,
    rate_revision=12,
)


def written(rated: RatedCall) -> types_pb2.RatedCall:
    into = types_pb2.RatedCall()
    calls.write_rated(rated, into)
    return into


def test_a_rated_call() -> None:
    assert written(RATED) == types_pb2.RatedCall(
        call_id="a",
        status=types_pb2.RATING_STATUS_RATED,
        bill_seconds=66,
        cost="999999999999999.9999",
        rate_id=5,
        matched_prefix="447",
        destination="UK mobile",
        cost_per_minute="0.1500",
        billing_increment=6,
        rate_revision=12,
    )


def test_a_cost_of_0_differs_from_an_unknown_cost() -> None:
    free = written(
        RatedCall("", RatingStatus.NOT_BILLABLE, bill_seconds=0, cost_e8=0, rate_revision=3)
    )
    assert free.HasField("cost") and free.cost == "0.0000"
    assert free.HasField("bill_seconds") and free.bill_seconds == 0
    unknown = written(RatedCall("", RatingStatus.UNRATED, UnratedReason.NO_RATE, rate_revision=3))
    assert not unknown.HasField("cost") and not unknown.HasField("bill_seconds")
    assert unknown == types_pb2.RatedCall(
        status=types_pb2.RATING_STATUS_UNRATED,
        unrated_reason=types_pb2.UNRATED_REASON_NO_RATE,
        rate_revision=3,
    )


def test_a_blocked_call_shows_the_rate_that_blocks_it() -> None:
    blocked = written(
        RatedCall(
            call_id="",
            status=RatingStatus.UNRATED,
            unrated_reason=UnratedReason.BLOCKED,
            rate_id=5,
            matched_prefix="",
            destination="nowhere",
            cost_per_minute_e8=0,
            billing_increment=60,
        )
    )
    assert (blocked.rate_id, blocked.destination) == (5, "nowhere")
    assert (blocked.cost_per_minute, blocked.billing_increment) == ("0.0000", 60)
    assert not blocked.HasField("cost")


def test_a_bad_call_of_a_batch_shows_its_error() -> None:
    bad = BadCall("tenant_id", "there is no tenant 9", "TENANT_NOT_FOUND", "b")
    assert written(RatedCall("b", RatingStatus.UNRATED, error=bad)) == types_pb2.RatedCall(
        call_id="b",
        status=types_pb2.RATING_STATUS_UNRATED,
        error=types_pb2.CallError(
            reason="TENANT_NOT_FOUND", field="tenant_id", message="there is no tenant 9"
        ),
    )


def test_an_explanation() -> None:
    shown = calls.explanation(
        Explanation(
            "447",
            (
                ConsideredRate(1, "447", "mobile", None, 1, False, "expired"),
                ConsideredRate(2, "44", "UK", -1, None, True, "won", True, True),
            ),
            (ExplanationStep("cost", "1 + 1", "2"),),
        )
    )
    assert shown == pb.Explanation(
        normalized_number="447",
        considered=[
            pb.ConsideredRate(
                rate_id=1,
                prefix="447",
                destination="mobile",
                effective_to=Timestamp(nanos=1),
                reason="expired",
            ),
            pb.ConsideredRate(
                rate_id=2,
                prefix="44",
                destination="UK",
                effective_from=Timestamp(seconds=-1, nanos=999_999_999),
                won=True,
                reason="won",
                blocked=True,
                in_effect=True,
            ),
        ],
        steps=[pb.ExplanationStep(name="cost", working="1 + 1", result="2")],
    )
