"""Control totals: the sender's counts, compared with the records that the server settled."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.integration.client import (
    NOON_NS,
    SECOND_NS,
    Client,
    chunk,
    invalid,
    make_call,
    timestamp,
)
from tests.integration.uploading import calls_of, counts
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

LONGEST = 2_147_483_647


def totals(calls: int, seconds: int) -> cdr_pb.ControlTotals:
    return cdr_pb.ControlTotals(calls=calls, duration_seconds=seconds)


def stating(
    calls: Sequence[types.Call], stated: cdr_pb.ControlTotals, offset: int = 0, upload_id: int = 0
) -> cdr_pb.UploadCdrsRequest:
    request = chunk(calls, offset, upload_id)
    request.control_totals.CopyFrom(stated)
    return request


def test_totals_that_match(client: Client, payer: int) -> None:
    calls = calls_of(payer, 0, 5)
    first, last = client.upload(chunk(calls[:3]), stating(calls[3:], totals(5, 35), 3))
    assert not first.HasField("settled_totals")
    assert not first.HasField("control_totals_match")
    assert (last.settled_totals, last.control_totals_match) == (totals(5, 35), True)
    upload = client.get_upload(last.upload_id)
    assert (upload.duration_seconds, upload.control_totals) == (35, totals(5, 35))
    assert upload.control_totals_match


@pytest.mark.parametrize("stated", [totals(4, 35), totals(6, 35), totals(5, 34), totals(0, 0)])
def test_totals_that_do_not_match(client: Client, payer: int, stated: cdr_pb.ControlTotals) -> None:
    calls = calls_of(payer, 0, 5)
    [answer] = client.upload(stating(calls, stated))
    assert answer.HasField("control_totals_match")
    assert (answer.settled_totals, answer.control_totals_match) == (totals(5, 35), False)
    assert counts(answer) == (5, 0, 0, 0, 0)  # the settled records stay
    upload = client.get_upload(answer.upload_id)
    assert upload.HasField("control_totals_match")
    assert (upload.control_totals, upload.control_totals_match) == (stated, False)


def test_they_may_be_sent_without_calls_and_again(client: Client, payer: int) -> None:
    calls = calls_of(payer, 0, 4)
    answers = client.upload(chunk(calls), stating([], totals(4, 28), 4))
    upload_id = answers[0].upload_id
    assert answers[1].control_totals_match
    assert client.upload(stating([], totals(4, 28), 4, upload_id)) == answers[1:]
    # Once more with the chunk that they belong to, which is settled already.
    [again] = client.upload(stating(calls, totals(4, 29), 0, upload_id))
    assert (again.created, again.settled_totals) == (4, totals(4, 28))
    assert not again.control_totals_match
    assert client.get_upload(upload_id).control_totals == totals(4, 29)
    # Later records make them wrong.
    client.upload(stating([], totals(4, 28), 4, upload_id), chunk(calls_of(payer, 4, 1), 4))
    upload = client.get_upload(upload_id)
    assert (upload.duration_seconds, upload.control_totals) == (35, totals(4, 28))
    assert not upload.control_totals_match


def test_every_record_counts(client: Client, payer: int) -> None:
    """Duplicates, conflicts and rejected ones too; those without a duration count 0."""

    def lasting(**fields: int) -> types.Call:
        return make_call(payer, "4420", None, call_id="x", **fields)

    backwards = lasting(ended_at=NOON_NS - SECOND_NS)
    out_of_range = lasting()
    out_of_range.ended_at.seconds = 2**62
    too_long = lasting(started_at=0)
    too_long.ended_at.CopyFrom(timestamp((LONGEST + 1) * SECOND_NS))
    before_1970 = lasting()
    before_1970.started_at.CopyFrom(timestamp(-5 * SECOND_NS))
    before_1970.ended_at.CopyFrom(timestamp(4 * SECOND_NS + 999_999_999))
    seconds_of = [
        (make_call(payer, "4420", 7, call_id="a"), 7),
        (make_call(payer, "4420", 7, call_id="a"), 7),  # duplicate
        (make_call(payer, "4420", 9, call_id="a"), 9),  # conflict
        (make_call(2**63 - 1, "4420", 11), 11),  # no such tenant
        (make_call(payer, "4420", LONGEST, call_id="\0"), LONGEST),
        (make_call(payer, "4420", -1), 0),
        (make_call(payer, "4420", LONGEST + 1, ended_at=NOON_NS + SECOND_NS), 0),
        (lasting(ended_at=NOON_NS + 5 * SECOND_NS - 1), 4),
        (lasting(ended_at=NOON_NS + 13 * SECOND_NS, direction=0), 13),
        (lasting(), 0),
        (backwards, 0),
        (out_of_range, 0),
        (too_long, 0),
        (before_1970, 9),
        (types.Call(), 0),
    ]
    calls = [call for call, _ in seconds_of]
    expected = totals(len(calls), sum(seconds for _, seconds in seconds_of))
    [answer] = client.upload(stating(calls, expected))
    assert counts(answer) == (2, 1, 1, 11, 0)
    assert answer.settled_totals == expected
    assert answer.control_totals_match
    for call, seconds in seconds_of:
        [one] = client.upload(stating([call], totals(1, seconds)))
        assert one.control_totals_match, (call, one.settled_totals)


def test_only_settled_records_count(client: Client, payer: int) -> None:
    calls = calls_of(payer, 0, 10)
    [first] = client.upload(chunk(calls[:4]))
    [second] = client.upload(stating(calls[2:8], totals(8, 56), 2, first.upload_id))
    assert (second.created, second.control_totals_match) == (4, True)


def test_invalid_totals(client: Client, payer: int) -> None:
    [answer] = client.upload(chunk([]))
    with invalid("control_totals.calls", "control_totals.duration_seconds"):
        client.upload(stating(calls_of(payer, 0, 1), totals(-1, -1), 0, answer.upload_id))
    upload = client.get_upload(answer.upload_id)
    assert (upload.committed_offset, upload.HasField("control_totals")) == (0, False)
