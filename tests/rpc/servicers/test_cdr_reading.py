"""CdrService, CDRs that are read: one, lists, exports, the feed."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.rpc.servicers.examples import (
    CDR,
    EXPLAINED,
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
    Page,
)
from tollwire.service.record.feed import FeedPart
from tollwire.service.rpc.conversion import cdrs as conversion
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import types_pb2

UNARY: list[UnaryRow] = [
    ("CdrService/GetCdr", cdr_pb.GetCdrRequest(id=1), CDR, ("get", 1), None),
    (
        "CdrService/ListCdrs",
        cdr_pb.ListCdrsRequest(tenant_id=7, page_size=9, page_token="t"),
        Page([CDR], "next"),
        ("list", CdrFilter(tenant_id=7), 9, "t"),
        None,
    ),
    (
        "CdrService/ExplainCdr",
        cdr_pb.ExplainCdrRequest(id=3, tenant_id=7, call_id="a"),
        EXPLAINED,
        ("explain_cdr", 3, 7, "a"),
        cdr_pb.ExplainCdrResponse(
            cdr=conversion.cdr(CDR),
            explanation=rating_pb.Explanation(normalized_number="44"),
            differences=[cdr_pb.CdrDifference(cdr_id=3, field="cost", stored="1", message="no")],
            unrated_steps=[
                cdr_pb.UnratedStep(
                    id=1,
                    unrated_reason=types_pb2.UNRATED_REASON_NO_RATE,
                    rate_revision=2,
                    new_unrated_reason=types_pb2.UNRATED_REASON_BLOCKED,
                    created_at=Timestamp(nanos=3),
                )
            ],
            ledger_entries=[
                cdr_pb.LedgerEntry(
                    kind=types_pb2.LEDGER_ENTRY_KIND_REVERSED,
                    chain=1,
                    seq=2,
                    first_id=3,
                    row_count=4,
                    row_id=5,
                    digest="ab",
                    hash="cd",
                    created_at=Timestamp(nanos=6),
                )
            ],
            replaces_cdr_id=8,
            replaced_by_cdr_id=9,
        ),
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


def test_the_feed(server: Any, subject: Fake) -> None:
    subject.answers = [iter([FeedPart([CDR], "c", caught_up=True), FeedPart([], "d", False)])]
    request = cdr_pb.WatchCdrsRequest(tenant_id=7, cursor="b", follow=True)
    rpc = server.invoke_unary_stream(method("CdrService/WatchCdrs"), (), request, 10)
    first, second = rpc.take_response(), rpc.take_response()
    assert (len(first.cdrs), first.cursor, first.caught_up) == (1, "c", True)
    assert (len(second.cdrs), second.cursor, second.caught_up) == (0, "d", False)
    assert rpc.termination()[1] is grpc.StatusCode.OK


def test_an_export(server: Any, subject: Fake) -> None:
    subject.answers = [iter([[CDR, CDR], [CDR]])]
    request = cdr_pb.ExportCdrsRequest(search="x")
    rpc = server.invoke_unary_stream(method("CdrService/ExportCdrs"), (), request, 10)
    assert [len(rpc.take_response().cdrs) for _ in range(2)] == [2, 1]
    assert rpc.termination()[1] is grpc.StatusCode.OK
    assert subject.calls == [("export", CdrFilter(search="x"))]
