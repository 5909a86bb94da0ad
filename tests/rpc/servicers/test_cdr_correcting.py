"""CdrService, reversals."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.rpc.servicers.examples import (
    REVERSED_CDR,
    WHY,
)
from tests.rpc.servicers.fakes import (
    UNARY_NAMES,
    Fake,
    UnaryRow,
    check_unary,
    method,
)
from tollwire.service.domain.model import (
    CdrFilter,
    Direction,
    Disposition,
    Page,
    RatingStatus,
    UnratedReason,
)
from tollwire.service.domain.record_model import (
    ReversalFilter,
    ReversalProgress,
    ReversedCost,
    UploadReversal,
)
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2

UNARY: list[UnaryRow] = [
    (
        "CdrService/ReverseCdr",
        cdr_pb.ReverseCdrRequest(id=3, reason="why", requested_by="who"),
        REVERSED_CDR,
        ("reverse_cdr", 3, WHY),
        None,
    ),
    (
        "CdrService/ReverseUpload",
        cdr_pb.ReverseUploadRequest(upload_id=6, reason="why", requested_by="who"),
        UploadReversal(3, 2, 1),
        ("reverse_upload", 6, WHY),
        cdr_pb.ReverseUploadResponse(cdrs=3, reversed=2, reversed_before=1),
    ),
    (
        "CdrService/ListReversals",
        cdr_pb.ListReversalsRequest(
            tenant_id=7, created_after=Timestamp(nanos=1), upload_id=6, page_size=9, page_token="t"
        ),
        Page([REVERSED_CDR], "next"),
        ("list", ReversalFilter(7, 1, None, 6), 9, "t"),
        None,
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


def test_a_bulk_reversal(server: Any, subject: Fake) -> None:
    subject.answers = [
        iter(
            [
                ReversalProgress(20, 15, 5, (ReversedCost("EUR", 15, 1650_0000, 2),), done=False),
                ReversalProgress(30, 25, 5, (), done=True),
            ]
        )
    ]
    request = cdr_pb.ReverseCdrsRequest(
        tenant_id=7,
        ids=[3, 4],
        call_ids=["a"],
        upload_id=6,
        started_after=Timestamp(nanos=1),
        started_before=Timestamp(nanos=2),
        extension_id=8,
        extension_number="101",
        direction=types_pb2.DIRECTION_INBOUND,
        disposition=types_pb2.DISPOSITION_BUSY,
        status=types_pb2.RATING_STATUS_UNRATED,
        unrated_reason=types_pb2.UNRATED_REASON_BLOCKED,
        rate_id=9,
        matched_prefix="44",
        reason="why",
        requested_by="who",
        dry_run=True,
    )
    assert len(request.ListFields()) == len(request.DESCRIPTOR.fields)
    rpc = server.invoke_unary_stream(method("CdrService/ReverseCdrs"), (), request, 10)
    assert rpc.take_response() == cdr_pb.ReverseCdrsResponse(
        cdrs=20,
        reversed=15,
        reversed_before=5,
        costs=[cdr_pb.ReversedCost(currency="EUR", cdrs=15, cost="0.1650", unrated=2)],
    )
    last = cdr_pb.ReverseCdrsResponse(cdrs=30, reversed=25, reversed_before=5, done=True)
    assert rpc.take_response() == last
    assert rpc.termination()[1] is grpc.StatusCode.OK
    wanted = CdrFilter(
        tenant_id=7,
        ids=(3, 4),
        call_ids=("a",),
        upload_id=6,
        started_after_ns=1,
        started_before_ns=2,
        extension_id=8,
        extension_number="101",
        direction=Direction.INBOUND,
        disposition=Disposition.BUSY,
        status=RatingStatus.UNRATED,
        unrated_reason=UnratedReason.BLOCKED,
        rate_id=9,
        matched_prefix="44",
    )
    assert subject.calls == [("reverse_cdrs", wanted, WHY, True)]
