"""RatingService: each method parses, calls the subject once, and answers."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from tests.rpc.servicers.examples import (
    CALL,
    CALL_MESSAGE,
    RATE,
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
    ImportMode,
    ImportOutcome,
    ImportPlan,
    Page,
    Rate,
    RatedCall,
    RatingStatus,
)
from tollwire.service.rating.deck_import import Intake, IntakeMemory
from tollwire.service.rpc.rating_service import RatingServicer
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import types_pb2

UNARY: list[UnaryRow] = [
    (
        "RatingService/CreateRate",
        rating_pb.CreateRateRequest(
            rate=types_pb2.Rate(tenant_id=7, cost_per_minute="0.15", billing_increment=6)
        ),
        RATE,
        ("create", Rate(tenant_id=7, cost_per_minute_e8=1500_0000, billing_increment=6)),
        None,
    ),
    ("RatingService/GetRate", rating_pb.GetRateRequest(id=3), RATE, ("get", 3), None),
    (
        "RatingService/ListRates",
        rating_pb.ListRatesRequest(tenant_id=7, search="s", page_size=9, page_token="t"),
        Page([RATE, RATE], "next"),
        ("list", 7, "s", 9, "t"),
        None,
    ),
    (
        "RatingService/UpdateRate",
        rating_pb.UpdateRateRequest(
            rate=types_pb2.Rate(id=3, connect_fee="1", etag="v4"),
            update_mask=FieldMask(paths=["connect_fee", "blocked"]),
        ),
        RATE,
        (
            "update",
            Rate(id=3, connect_fee_e8=10_000_0000, billing_increment=0),
            frozenset({"connect_fee_e8", "blocked"}),
            "v4",
        ),
        None,
    ),
    (
        "RatingService/DeleteRate",
        rating_pb.DeleteRateRequest(id=3, etag="v4"),
        None,
        ("delete", 3, "v4"),
        Empty(),
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


def test_calls_that_the_core_leaves_are_rated_by_the_subject(server: Any, subject: Fake) -> None:
    """Here no deck is in memory, so this is every call."""
    bad = types_pb2.Call(call_id="b")
    error = BadCall("direction", "is required: one of INBOUND, OUTBOUND, INTERNAL", call_id="b")
    free = RatedCall("a", RatingStatus.NOT_BILLABLE, bill_seconds=0, cost_e8=0)
    refused = RatedCall("b", RatingStatus.UNRATED, error=error)
    subject.answers = [None, [free], [refused]]
    request = rating_pb.BatchRateCallsRequest(calls=[CALL_MESSAGE, bad]).SerializeToString()
    rpc = server.invoke_unary_unary(method("RatingService/BatchRateCalls"), (), request, 10)
    response = rating_pb.BatchRateCallsResponse.FromString(rpc.termination()[0])
    assert [rated.call_id for rated in response.rated] == ["a", "b"]
    assert response.rated[1].error.field == "direction"
    # Times are taken when the request arrives.
    assert [given[:-1] for given in subject.calls] == [
        ("deck", 7, 0),
        ("rate_batch", [CALL]),
        ("rate_batch", [error]),
    ]


def test_a_stream_of_ratings_answers_each_request(server: Any, subject: Fake) -> None:
    free = RatedCall("a", RatingStatus.NOT_BILLABLE, bill_seconds=0, cost_e8=0)
    subject.answers = [None, [free], None, [free], [free]]
    requests = [rating_pb.StreamRateCallsRequest(calls=[CALL_MESSAGE] * n) for n in (1, 0, 2)]
    _, responses = stream(
        server,
        "RatingService/StreamRateCalls",
        [request.SerializeToString() for request in requests],
    )
    answers = map(rating_pb.StreamRateCallsResponse.FromString, responses)
    assert [len(response.rated) for response in answers] == [1, 0, 2]


def test_a_deck_is_passed_on_message_by_message(subject: Fake) -> None:
    class Requests(list[bytes]):
        end_counts = True

        def __next__(self) -> bytes:
            if not self:
                raise StopIteration
            return self.pop(0)

    subject.answers = [ImportOutcome(created=2, rate_revision=9)]
    sent = types_pb2.Rate(prefix="44", cost_per_minute="0.15", billing_increment=6)
    replace = types_pb2.IMPORT_MODE_REPLACE
    first = rating_pb.ImportRatesRequest(tenant_id=7, mode=replace, rates=[sent], rate_count=2)
    requests: Any = Requests([first.SerializeToString()])
    fake: Any = subject
    data = RatingServicer(fake, fake).ImportRates(requests, None)
    response = rating_pb.ImportRatesResponse.FromString(data)
    assert response == rating_pb.ImportRatesResponse(created=2, rate_revision=9)
    ((*call, fill),) = subject.calls
    assert call == ["import_deck", ImportPlan(7, ImportMode.REPLACE)]
    requests.append(rating_pb.ImportRatesRequest(rates=[sent]).SerializeToString())
    with Intake(7, IntakeMemory(2**20)) as intake:
        fill(intake)
        assert len(intake.deck) == 2
    assert not requests.end_counts, "all stated rates have arrived"


def test_an_export(server: Any, subject: Fake) -> None:
    subject.answers = [iter([[RATE, RATE], [RATE]])]
    request = rating_pb.ExportRatesRequest(tenant_id=7)
    rpc = server.invoke_unary_stream(method("RatingService/ExportRates"), (), request, 10)
    assert [len(rpc.take_response().rates) for _ in range(2)] == [2, 1]
    assert rpc.termination()[1] is grpc.StatusCode.OK
    assert subject.calls == [("export", 7)]
