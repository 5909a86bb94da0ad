"""Records that their sender could not read: stored with their bytes, counted, and never
recorded."""

from __future__ import annotations

import grpc
import pytest

from tests.integration.client import Client, chunk, make_call, refusal_of, refused
from tests.integration.test_upload_failures import failed
from tests.integration.uploading import calls_of, counts, stored_call_ids
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1.types_pb2 import Call, UnreadableRecord


def unreadable(line: int, text: bytes, message: str = "not CSV") -> Call:
    record = UnreadableRecord(line=line, text=text, header=b"tenant_id,call_id", message=message)
    return Call(unreadable=record)


def test_they_are_rejected_and_kept_with_their_bytes(client: Client, payer: int) -> None:
    good = calls_of(payer, 0, 3)
    bad = [
        unreadable(3, b'7,"Anna,\xff\0'),
        unreadable(5, b"", "x" * 5000),
        unreadable(0, b"1,2", ""),
    ]
    [answer] = client.upload(chunk([good[0], bad[0], good[1], *bad[1:], good[2]]))
    assert counts(answer) == (3, 0, 0, 3, 0)
    assert [(one.index, one.reason) for one in answer.failures] == [
        *((1, "UNREADABLE_RECORD"), (3, "UNREADABLE_RECORD"), (4, "UNREADABLE_RECORD"))
    ]
    assert [one.message for one in answer.failures] == [
        *("line 3: not CSV", f"line 5: {'x' * 1000}", "the sender could not read the record")
    ]
    listed = failed(client, answer.upload_id, reason="UNREADABLE_RECORD")
    assert [one.call for one in listed] == bad
    state = client.get_upload(answer.upload_id)
    assert (state.committed_offset, state.rejected) == (6, 3)
    assert state.duration_seconds == sum(call.duration_seconds for call in good)
    assert len(stored_call_ids(client, payer)) == 3


def test_any_chunks_of_them_are_answered_from_the_stored_ones(client: Client, payer: int) -> None:
    good = calls_of(payer, 0, 2)
    sent = [good[0], unreadable(3, b"a"), unreadable(4, b"a"), good[1]]
    [first] = client.upload(chunk(sent))
    upload_id = first.upload_id
    assert client.upload(chunk(sent, 0, upload_id)) == [first]
    for begin in range(4):
        for end in range(begin + 1, 5):
            [again] = client.upload(chunk(sent[begin:end], begin, upload_id))
            if (begin, end) != (0, 4):
                assert again.already_settled == end - begin
            expected = [one for one in first.failures if begin <= one.index < end]
            assert list(again.failures) == expected
    for other in (unreadable(3, b"b"), unreadable(2, b"a"), unreadable(3, b"a", "other"), good[0]):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_CHUNK_CHANGED"):
            client.upload(chunk([other], 1, upload_id))
    totals = cdr_pb.ControlTotals(calls=4, duration_seconds=state_seconds(client, upload_id))
    last_request = cdr_pb.UploadCdrsRequest(upload_id=upload_id, offset=4, control_totals=totals)
    [last] = client.upload(last_request)
    assert last.control_totals_match


def state_seconds(client: Client, upload_id: int) -> int:
    return client.get_upload(upload_id).duration_seconds


@pytest.mark.parametrize("complete", [False, True])
def test_other_methods_refuse_them(client: Client, payer: int, complete: bool) -> None:
    call = make_call(payer, "4420", 7, call_id="a") if complete else Call()
    call.unreadable.line = 3
    for send in (
        lambda: client.cdrs.CreateCdr(cdr_pb.CreateCdrRequest(call=call)),
        lambda: client.rating.RateCall(rating_pb.RateCallRequest(call=call)),
    ):
        with pytest.raises(grpc.RpcError) as error:
            send()
        found = refusal_of(error.value)
        assert found.reason == "INVALID_FIELD"
        assert "call.unreadable" in found.violations
    [rated] = client.rating.BatchRateCalls(rating_pb.BatchRateCallsRequest(calls=[call])).rated
    assert rated.error.reason == "INVALID_FIELD"
    [answer] = client.upload(chunk([call]))
    assert [one.reason for one in answer.failures] == ["UNREADABLE_RECORD"]
    assert not stored_call_ids(client, payer)
