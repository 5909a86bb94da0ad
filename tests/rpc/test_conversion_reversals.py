"""Reversals, from the wire and to it."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import (
    MAX_COST_E8,
    Call,
    Cdr,
    Direction,
    Disposition,
    RatingStatus,
    Reversal,
    ReversalRequest,
    Tenant,
    UnratedReason,
)
from tollwire.service.domain.record_model import ReversalFilter
from tollwire.service.rpc.conversion import cdrs, reversals
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import types_pb2

WHY = ReversalRequest("why", "who")


def reversed_cdr(cost_e8: int | None) -> Cdr:
    rated = cost_e8 is not None
    return Cdr(
        id=1,
        call=Call(7, "44", Direction.OUTBOUND, Disposition.ANSWERED, 5, 9, call_id="a"),
        tenant=Tenant(id=7),
        extension=None,
        status=RatingStatus.RATED if rated else RatingStatus.UNRATED,
        unrated_reason=None if rated else UnratedReason.NO_RATE,
        bill_seconds=5 if rated else None,
        cost_e8=cost_e8,
        rate=None,
        rate_revision=1,
        upload_id=0,
        created_at_ns=10,
        reversal=Reversal(3, WHY, None if cost_e8 is None else -cost_e8, 11),
    )


@pytest.mark.parametrize(
    ("cost_e8", "shown"),
    [(1386_0000, "-0.1386"), (0, "0.0000"), (MAX_COST_E8, "-999999999999999.9999")],
)
def test_a_reversal_and_its_cdr_show_each_other_once(cost_e8: int, shown: str) -> None:
    cdr = reversed_cdr(cost_e8)
    entry = types_pb2.Reversal(
        id=3, cost=shown, reason="why", requested_by="who", created_at=Timestamp(nanos=11)
    )
    within_the_cdr = cdrs.cdr(cdr)
    assert within_the_cdr.reversal == entry
    alone = reversals.reversal(cdr)
    assert not alone.cdr.HasField("reversal")
    within_the_cdr.ClearField("reversal")
    entry.cdr.CopyFrom(within_the_cdr)
    assert alone == entry
    assert {field.name for field, _ in alone.ListFields()} == set(
        types_pb2.Reversal.DESCRIPTOR.fields_by_name
    )


def test_the_reversal_of_an_unrated_cdr_has_no_cost() -> None:
    cdr = reversed_cdr(None)
    assert not reversals.reversal(cdr).HasField("cost")
    assert not cdrs.cdr(cdr).reversal.HasField("cost")


def test_requests() -> None:
    for kind in (pb.ReverseCdrRequest, pb.ReverseUploadRequest):
        assert reversals.reversal_request(kind(reason="why", requested_by="who")) == WHY


def test_a_filter() -> None:
    assert reversals.reversal_filter(pb.ListReversalsRequest()) == ReversalFilter()
    request = pb.ListReversalsRequest(
        tenant_id=1,
        created_after=Timestamp(nanos=2),
        created_before=Timestamp(nanos=3),
        upload_id=4,
    )
    assert reversals.reversal_filter(request) == ReversalFilter(1, 2, 3, 4)
    request.created_after.nanos = request.created_before.nanos = -1
    with pytest.raises(InvalidInput) as refused:
        reversals.reversal_filter(request)
    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["created_after", "created_before"]
