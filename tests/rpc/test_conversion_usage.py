"""Usage summaries, from the wire and to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import (
    UsageDimension,
    UsageQuery,
    UsageRow,
    UsageTotals,
)
from tollwire.service.rpc.conversion import usage
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import types_pb2


def wrong_fields(act: Callable[[], object]) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        act()
    return sorted(violation.field for violation in refused.value.violations)


def test_a_usage_query() -> None:
    request = pb.SummarizeUsageRequest(
        tenant_id=7,
        started_after=Timestamp(nanos=1),
        group_by=[types_pb2.USAGE_DIMENSION_MONTH, types_pb2.USAGE_DIMENSION_TENANT],
        time_zone="Europe/Berlin",
    )
    assert usage.usage_query(request) == UsageQuery(
        tenant_id=7,
        started_after_ns=1,
        started_before_ns=None,
        group_by=(UsageDimension.MONTH, UsageDimension.TENANT),
        time_zone="Europe/Berlin",
    )


@pytest.mark.parametrize("number", [0, 10, -1])
def test_an_unknown_dimension(number: int) -> None:
    request = pb.SummarizeUsageRequest(
        group_by=[types_pb2.USAGE_DIMENSION_DAY, number],
        started_before=Timestamp(nanos=-1),
    )
    assert wrong_fields(lambda: usage.usage_query(request)) == ["group_by", "started_before"]


def test_usage() -> None:
    billed = UsageTotals(1, 2, 3, 4, 12345678901234567890_0000, 6)
    corrected = UsageTotals(7, 8, 9, 10, 11_0000, 12)
    rows = [UsageRow(("7", ""), "EUR", billed, corrected)]
    assert usage.usage(rows) == pb.SummarizeUsageResponse(
        rows=[
            pb.UsageRow(
                keys=["7", ""],
                calls=1,
                answered=2,
                duration_seconds=3,
                bill_seconds=4,
                cost="1234567890123456.7890",
                unrated=6,
                currency="EUR",
                corrected=pb.UsageTotals(
                    calls=7,
                    answered=8,
                    duration_seconds=9,
                    bill_seconds=10,
                    cost="0.0011",
                    unrated=12,
                ),
            )
        ]
    )
