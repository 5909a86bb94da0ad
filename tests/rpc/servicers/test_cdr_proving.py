"""CdrService, verification and the ledger."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.rpc.servicers.fakes import (
    UNARY_NAMES,
    Fake,
    UnaryRow,
    check_unary,
    method,
)
from tollwire.service.domain.record_model import (
    CdrDifference,
    LedgerDifference,
    LedgerDifferenceKind,
    LedgerProgress,
    LedgerRoot,
    VerificationFilter,
    VerificationProgress,
)
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2

UNARY: list[UnaryRow] = [
    (
        "CdrService/GetLedgerRoot",
        cdr_pb.GetLedgerRootRequest(),
        LedgerRoot("3-1:ab", 4, 1),
        ("root",),
        cdr_pb.LedgerRoot(root="3-1:ab", entries=4, created_at=Timestamp(nanos=1)),
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


def test_verification(server: Any, subject: Fake) -> None:
    wrong = CdrDifference(3, 7, "a", "cost", "0.0041", "0.0040", "no")
    subject.answers = [
        iter(
            [
                VerificationProgress(20, 40.5, (wrong,), 1, False),
                VerificationProgress(30, 40.5, (), 1, True),
            ]
        )
    ]
    request = cdr_pb.VerifyCdrsRequest(tenant_id=7, started_before=Timestamp(nanos=1), upload_id=6)
    rpc = server.invoke_unary_stream(method("CdrService/VerifyCdrs"), (), request, 10)
    assert rpc.take_response() == cdr_pb.VerifyCdrsResponse(
        checked=20,
        checked_per_second=40.5,
        differences=[
            cdr_pb.CdrDifference(
                cdr_id=3,
                tenant_id=7,
                call_id="a",
                field="cost",
                stored="0.0041",
                recomputed="0.0040",
                message="no",
            )
        ],
        different=1,
    )
    last = cdr_pb.VerifyCdrsResponse(checked=30, checked_per_second=40.5, done=True, different=1)
    assert rpc.take_response() == last
    assert rpc.termination()[1] is grpc.StatusCode.OK
    assert subject.calls == [("verify", VerificationFilter(7, None, 1, 6))]


def test_a_verification_reports_its_progress(server: Any, subject: Fake) -> None:
    difference = LedgerDifference(LedgerDifferenceKind.ROWS, "gone", 1, 2, 3, 4)
    subject.answers = [
        iter(
            [
                LedgerProgress(5, 6, 7.5, (difference,), done=False),
                LedgerProgress(8, 9, 0.0, (), done=True),
            ]
        )
    ]
    request = cdr_pb.VerifyLedgerRequest(root="3-1:ab")
    rpc = server.invoke_unary_stream(method("CdrService/VerifyLedger"), (), request, 10)
    told = cdr_pb.LedgerDifference(
        kind=types_pb2.LEDGER_DIFFERENCE_KIND_ROWS,
        chain=1,
        seq=2,
        first_id=3,
        row_count=4,
        message="gone",
    )
    assert [rpc.take_response() for _ in range(2)] == [
        cdr_pb.VerifyLedgerResponse(
            entries_checked=5, rows_checked=6, rows_per_second=7.5, differences=[told]
        ),
        cdr_pb.VerifyLedgerResponse(entries_checked=8, rows_checked=9, done=True),
    ]
    assert rpc.termination()[1] is grpc.StatusCode.OK
    assert subject.calls == [("verify", "3-1:ab", [])]
