"""Uploads as messages."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.core.protobuf import framed, varint
from tollwire.service.domain.errors import Unwanted
from tollwire.service.domain.record_model import (
    ChunkResult,
    ControlTotals,
    FailedRecord,
    Upload,
    UploadFailure,
)
from tollwire.service.domain.request import Request
from tollwire.service.domain.thread_context import handling
from tollwire.service.rpc.conversion import uploads
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import types_pb2


def test_a_chunk() -> None:
    result = ChunkResult(1, 2, 3, 4, 5, 6, 7, (UploadFailure(8, "a", "CDR_CONFLICT", "no"),))
    assert uploads.chunk_result(result) == pb.UploadCdrsResponse(
        upload_id=1,
        committed_offset=2,
        created=3,
        duplicates=4,
        conflicts=5,
        rejected=6,
        unrated=7,
        failures=[pb.UploadFailure(index=8, call_id="a", reason="CDR_CONFLICT", message="no")],
    )


def test_the_judging_of_a_chunk_ends_with_the_client() -> None:
    looks = iter([True] * 3 + [False])
    with handling(Request(is_wanted=lambda: next(looks))), pytest.raises(Unwanted):
        uploads.chunk(framed(b"", 26) * 10_000)
    assert list(looks) == []


def test_an_upload() -> None:
    assert uploads.upload(
        Upload(1, 2, 3, 4, 5, 6, 7, 10, None, None, 8, 9)
    ) == pb.GetUploadResponse(
        upload_id=1,
        committed_offset=2,
        created=3,
        duplicates=4,
        conflicts=5,
        rejected=6,
        unrated=7,
        created_at=Timestamp(nanos=8),
        updated_at=Timestamp(nanos=9),
        duration_seconds=10,
    )


def test_a_reversed_upload() -> None:
    upload = Upload(1, 2, 3, 4, 5, 6, 7, 10, None, None, 8, 9, reversed_at_ns=11)
    assert uploads.upload(upload).reversed_at == Timestamp(nanos=11)


@pytest.mark.parametrize("seconds", [10, 11])
def test_an_upload_whose_sender_has_stated_totals(seconds: int) -> None:
    message = uploads.upload(Upload(1, 2, 2, 0, 0, 0, 0, 10, 2, seconds, 8, 9))
    assert message.control_totals == pb.ControlTotals(calls=2, duration_seconds=seconds)
    assert message.HasField("control_totals_match")
    assert message.control_totals_match == (seconds == 10)


def test_a_chunk_with_control_totals() -> None:
    result = ChunkResult(1, 2, 2, 0, 0, 0, 0, (), ControlTotals(2, 10), control_totals_match=False)
    message = uploads.chunk_result(result)
    assert message.settled_totals == pb.ControlTotals(calls=2, duration_seconds=10)
    assert message.HasField("control_totals_match")
    assert not message.control_totals_match


def test_a_failed_record_is_shown_as_it_was_sent() -> None:
    sent = types_pb2.Call(call_id="a\0", direction=99, duration_seconds=-1)
    sent.started_at.nanos = -5
    failed = FailedRecord(UploadFailure(8, "", "INVALID_FIELD", "no"), sent.SerializeToString(), 9)
    assert uploads.failed_record(failed) == pb.FailedRecord(
        index=8, reason="INVALID_FIELD", message="no", call=sent, created_at=Timestamp(nanos=9)
    )


def test_a_failed_record_with_deep_unknown_fields_can_be_read_by_clients() -> None:
    group = 20
    depth = 98  # the deepest that protobuf reads within a call of an upload
    deep = varint(group << 3 | 3) * depth + varint(group << 3 | 4) * depth
    content = types_pb2.Call(call_id="a").SerializeToString() + deep
    assert pb.UploadCdrsRequest.FromString(framed(content, 3 << 3 | 2)).calls[0].call_id == "a"
    message = uploads.failed_record(FailedRecord(UploadFailure(0, "a", "", ""), content, 0))
    page = pb.ListUploadFailuresResponse(failures=[message])
    read = pb.ListUploadFailuresResponse.FromString(page.SerializeToString())
    assert read.failures[0].call == types_pb2.Call(call_id="a")
