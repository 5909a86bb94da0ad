"""CdrService, calls and uploads that are recorded."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.rpc.servicers.examples import (
    CALL,
    CALL_MESSAGE,
    CDR,
)
from tests.rpc.servicers.fakes import (
    UNARY_NAMES,
    Fake,
    UnaryRow,
    check_unary,
    method,
    stream,
)
from tollwire.service.domain.model import (
    BadCall,
    Page,
)
from tollwire.service.domain.record_model import (
    ChunkResult,
    FailedRecord,
    UnratedOutcome,
    Upload,
    UploadFailure,
)
from tollwire.service.record.recording import content_of
from tollwire.service.rpc.conversion import cdrs as conversion
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2

UNARY: list[UnaryRow] = [
    (
        "CdrService/GetUpload",
        cdr_pb.GetUploadRequest(upload_id=6),
        Upload(6, 1, 1, 0, 0, 0, 0, 7, None, None, 5, 5),
        ("get", 6),
        None,
    ),
    (
        "CdrService/ListUploads",
        cdr_pb.ListUploadsRequest(page_size=9, page_token="t"),
        Page([Upload(6, 1, 1, 0, 0, 0, 0, 7, None, None, 5, 5)], "next"),
        ("list", 9, "t"),
        None,
    ),
    (
        "CdrService/ListUploadFailures",
        cdr_pb.ListUploadFailuresRequest(
            upload_id=6, reason="INVALID_FIELD", page_size=9, page_token="t"
        ),
        Page(
            [
                FailedRecord(
                    UploadFailure(3, "a", "INVALID_FIELD", "no"),
                    CALL_MESSAGE.SerializeToString(),
                    5,
                )
            ],
            "next",
        ),
        ("list_failures", 6, "INVALID_FIELD", 9, "t"),
        cdr_pb.ListUploadFailuresResponse(
            failures=[
                cdr_pb.FailedRecord(
                    index=3,
                    call_id="a",
                    reason="INVALID_FIELD",
                    message="no",
                    call=CALL_MESSAGE,
                    created_at=Timestamp(nanos=5),
                )
            ],
            next_page_token="next",
        ),
    ),
    (
        "CdrService/RateUnrated",
        cdr_pb.RateUnratedRequest(tenant_id=7, started_after=Timestamp(nanos=1)),
        UnratedOutcome(3, 2, 1),
        ("rate_unrated", 7, 1, None),
        cdr_pb.RateUnratedResponse(examined=3, rated=2, still_unrated=1),
    ),
]


@pytest.mark.parametrize(UNARY_NAMES, UNARY, ids=[row[0] for row in UNARY])
def test_unary_methods(
    server: Any,
    subject: Fake,
    path: str,
    request_message: Any,
    answer: Any,
    call: tuple[Any, ...],
    response: Any,
) -> None:
    check_unary(server, subject, path, request_message, answer, call, response)


def test_an_upload_continues_under_the_id_from_the_server(server: Any, subject: Fake) -> None:
    subject.answers = [ChunkResult(6, offset, 1, 0, 0, 0, 0, ()) for offset in (1, 2, 3, 4)]
    requests = [
        cdr_pb.UploadCdrsRequest(calls=[CALL_MESSAGE]),
        cdr_pb.UploadCdrsRequest(offset=1, calls=[CALL_MESSAGE]),
        cdr_pb.UploadCdrsRequest(upload_id=6, offset=2, calls=[CALL_MESSAGE]),
        cdr_pb.UploadCdrsRequest(offset=3, calls=[types_pb2.Call(call_id="bad")]),
    ]
    sent = [request.SerializeToString() for request in requests]
    _, answers = stream(server, "CdrService/UploadCdrs", sent)
    responses = [cdr_pb.UploadCdrsResponse.FromString(answer) for answer in answers]
    assert [response.upload_id for response in responses] == [6] * 4
    assert [response.committed_offset for response in responses] == [1, 2, 3, 4]
    assert [call[:3] for call in subject.calls] == [
        *(("commit", 0, 0), ("commit", 6, 1), ("commit", 6, 2), ("commit", 6, 3))
    ]
    chunks = [call[3] for call in subject.calls]
    assert chunks[0].records.content(0)[2:] == content_of(CALL)[2:]
    assert [len(chunk.bad) for chunk in chunks] == [0, 0, 0, 1]


def test_an_upload_requires_the_start_of_a_call(server: Any, subject: Fake) -> None:
    subject.answers = [ChunkResult(6, 1, 0, 0, 0, 1, 0, ())]
    sent = types_pb2.Call()
    sent.CopyFrom(CALL_MESSAGE)
    sent.ClearField("started_at")
    request = cdr_pb.UploadCdrsRequest(calls=[sent])
    stream(server, "CdrService/UploadCdrs", [request.SerializeToString()])
    assert subject.calls[0][3].bad == {0: BadCall("started_at", "is required", duration_seconds=63)}


def test_a_call_is_recorded_from_its_bytes(server: Any, subject: Fake) -> None:
    subject.answers = [CDR]
    request = cdr_pb.CreateCdrRequest(call=CALL_MESSAGE).SerializeToString()
    rpc = server.invoke_unary_unary(method("CdrService/CreateCdr"), (), request, 10)
    answer, _, code, _ = rpc.termination()
    assert code is grpc.StatusCode.OK
    assert types_pb2.Cdr.FromString(answer) == conversion.cdr(CDR)
    ((name, records),) = subject.calls
    assert name == "record"
    assert records.content(0)[2:] == content_of(CALL)[2:]


def test_a_call_that_comes_in_parts_is_read_by_the_library(server: Any, subject: Fake) -> None:
    subject.answers = [CDR]
    first = types_pb2.Call(tenant_id=CALL_MESSAGE.tenant_id)
    rest = types_pb2.Call()
    rest.CopyFrom(CALL_MESSAGE)
    rest.ClearField("tenant_id")
    parts = [cdr_pb.CreateCdrRequest(call=part).SerializeToString() for part in (first, rest)]
    rpc = server.invoke_unary_unary(method("CdrService/CreateCdr"), (), b"".join(parts), 10)
    answer, _, code, _ = rpc.termination()
    assert code is grpc.StatusCode.OK
    assert types_pb2.Cdr.FromString(answer) == conversion.cdr(CDR)
    assert subject.calls == [("create", CALL)]
