"""CDRs, uploads and usage, from the wire and to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import (
    MAX_BILLING_INCREMENT,
    MAX_CALL_ID_CHARS,
    MAX_COST_E8,
    MAX_EXTENSION_NUMBER_CHARS,
    MAX_INTERVALS,
    MAX_NAME_CHARS,
    MAX_NUMBER_CHARS,
    MAX_PRICE_E8,
    MAX_REQUESTED_BY_CHARS,
    MAX_REVERSAL_REASON_CHARS,
    MAX_TIMESTAMP_NS,
    MIN_TIMESTAMP_NS,
    Call,
    Cdr,
    CdrFilter,
    Direction,
    Disposition,
    Extension,
    Interval,
    Rate,
    RatingStatus,
    Reversal,
    ReversalRequest,
    Rounding,
    Tenant,
    UnratedReason,
)
from tollwire.service.record.cdrs import most_bytes
from tollwire.service.rpc.conversion import cdrs, rates, tenants
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import types_pb2

CALL = Call(
    tenant_id=7,
    extension_id=8,
    caller_number="101",
    destination_number="447",
    direction=Direction.OUTBOUND,
    disposition=Disposition.ANSWERED,
    duration_seconds=0,
    started_at_ns=1,
    ended_at_ns=2_000_000_003,
    call_id="a",
)
RATE = Rate(id=3, tenant_id=7, prefix="44", cost_per_minute_e8=1500_0000, version_id=4)


def wrong_fields(act: Callable[[], object]) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        act()
    return sorted(violation.field for violation in refused.value.violations)


def test_a_rated_cdr_shows_everything() -> None:
    record = Cdr(
        id=1,
        call=CALL,
        tenant=Tenant(id=7, name="A", currency="EUR"),
        extension=Extension(id=8, tenant_id=7, number="101"),
        status=RatingStatus.RATED,
        unrated_reason=None,
        bill_seconds=0,
        cost_e8=0,
        rate=RATE,
        rate_revision=5,
        upload_id=6,
        created_at_ns=10**18 + 1,
    )
    shown = cdrs.cdr(record)
    assert shown == types_pb2.Cdr(
        id=1,
        tenant_id=7,
        extension_id=8,
        caller_number="101",
        destination_number="447",
        direction=types_pb2.DIRECTION_OUTBOUND,
        disposition=types_pb2.DISPOSITION_ANSWERED,
        duration_seconds=0,
        started_at=Timestamp(nanos=1),
        ended_at=Timestamp(seconds=2, nanos=3),
        call_id="a",
        tenant=tenants.tenant(record.tenant),
        extension=types_pb2.Extension(id=8, tenant_id=7, number="101"),
        status=types_pb2.RATING_STATUS_RATED,
        bill_seconds=0,
        cost="0.0000",
        rate=rates.rate(RATE),
        rate_revision=5,
        upload_id=6,
        created_at=Timestamp(seconds=10**9, nanos=1),
        matched_prefix="44",
    )
    assert shown.HasField("duration_seconds") and shown.HasField("cost")


def test_every_field_of_the_message_is_filled() -> None:
    """So that a field that is added to the proto is not forgotten here."""
    record = Cdr(
        1, CALL, Tenant(id=7), Extension(id=8), RatingStatus.UNRATED, UnratedReason.BLOCKED,
        1, 1, RATE, 5, 6, 7, Reversal(1, ReversalRequest("why", "who"), -1, 8), 1, 2, 3,
    )  # fmt: skip
    filled = {field.name for field, _ in cdrs.cdr(record).ListFields()}
    assert filled == set(types_pb2.Cdr.DESCRIPTOR.fields_by_name)


WIDE = "\U0001f4de"


def longest() -> Cdr:
    """No CDR is longer than this one."""
    most = 2**63 - 1
    interval = Interval(2**31 - 1, MAX_PRICE_E8, MAX_BILLING_INCREMENT)
    longest_rate = Rate(
        *(most, most, "9" * 32, WIDE * MAX_NAME_CHARS, MAX_PRICE_E8, MAX_BILLING_INCREMENT),
        *(MAX_PRICE_E8, 2**31 - 1, (interval,) * MAX_INTERVALS, MIN_TIMESTAMP_NS + 1),
        *(MAX_TIMESTAMP_NS, True, MAX_TIMESTAMP_NS, MAX_TIMESTAMP_NS, most),
    )
    number = WIDE * MAX_NUMBER_CHARS
    call = Call(
        *(most, number, Direction.INTERNAL, Disposition.CONGESTION, 2**31 - 1, most - 1, most - 1),
        *(most, number, WIDE * MAX_CALL_ID_CHARS),
    )
    name = WIDE * MAX_NAME_CHARS
    return Cdr(
        *(most, call, Tenant(most, name, "USD", Rounding.DOWN, "9999", "9" * 8, "9" * 8, most)),
        Extension(most, most, WIDE * MAX_EXTENSION_NUMBER_CHARS, name),
        *(RatingStatus.UNRATED, UnratedReason.INVALID_NUMBER, most, MAX_COST_E8, longest_rate),
        *(most, most, most),
        Reversal(
            most,
            ReversalRequest(WIDE * MAX_REVERSAL_REASON_CHARS, WIDE * MAX_REQUESTED_BY_CHARS),
            -MAX_COST_E8,
            most,
        ),
        *(2**31 - 1, most, most),
    )


def test_no_cdr_is_longer_than_pages_assume() -> None:
    plain = Cdr(1, CALL, Tenant(id=7), None, RatingStatus.RATED, None, 1, 1, RATE, 5, 6, 7)
    for record in (longest(), plain):
        assert cdrs.cdr(record).ByteSize() <= most_bytes(record)


def test_an_unrated_cdr_has_no_cost_at_all() -> None:
    call = Call(7, "447", Direction.OUTBOUND, Disposition.ANSWERED, 5, 1, call_id="a")
    shown = cdrs.cdr(
        Cdr(
            id=1,
            call=call,
            tenant=Tenant(id=7),
            extension=None,
            status=RatingStatus.UNRATED,
            unrated_reason=UnratedReason.BLOCKED,
            bill_seconds=None,
            cost_e8=None,
            rate=None,
            rate_revision=5,
            upload_id=0,
            created_at_ns=1,
        )
    )
    for name in ("cost", "bill_seconds", "rate", "extension", "ended_at"):
        assert not shown.HasField(name), name
    assert shown.unrated_reason == types_pb2.UNRATED_REASON_BLOCKED


FILTER = {
    "tenant_id": 7,
    "search": "busy",
    "extension_id": 8,
    "status": types_pb2.RATING_STATUS_UNRATED,
    "unrated_reason": types_pb2.UNRATED_REASON_BLOCKED,
    "started_after": Timestamp(seconds=-1),
    "started_before": Timestamp(nanos=5),
}


@pytest.mark.parametrize("kind", [pb.ListCdrsRequest, pb.ExportCdrsRequest])
def test_filters(kind: type[pb.ListCdrsRequest]) -> None:
    assert cdrs.cdr_filter(kind(**FILTER)) == CdrFilter(
        tenant_id=7,
        search="busy",
        extension_id=8,
        status=RatingStatus.UNRATED,
        unrated_reason=UnratedReason.BLOCKED,
        started_after_ns=-(10**9),
        started_before_ns=5,
    )
    assert cdrs.cdr_filter(kind()) == CdrFilter()
    bad = kind(
        status=99,
        unrated_reason=99,
        started_after=Timestamp(nanos=-1),
        started_before=Timestamp(seconds=2**60),
    )
    assert wrong_fields(lambda: cdrs.cdr_filter(bad)) == [
        *("started_after", "started_before", "status", "unrated_reason")
    ]


def test_the_filter_of_rate_unrated() -> None:
    request = pb.RateUnratedRequest(tenant_id=7, started_before=Timestamp(nanos=5))
    assert cdrs.unrated_filter(request) == (7, None, 5)
    request.started_after.nanos = -1
    assert wrong_fields(lambda: cdrs.unrated_filter(request)) == ["started_after"]
