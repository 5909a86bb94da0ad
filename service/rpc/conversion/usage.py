"""Usage summaries: queries and sums."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tollwire.service.domain.model import UsageDimension, UsageQuery, UsageRow, UsageTotals
from tollwire.service.domain.money import format_cost
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.cdrs import time_bounds
from tollwire.service.rpc.conversion.fields import Violations
from tollwire.v1 import cdr_service_pb2

_DIMENSIONS = fields.members(UsageDimension)


def usage_query(request: cdr_service_pb2.SummarizeUsageRequest) -> UsageQuery:
    violations = Violations()
    after_ns, before_ns = time_bounds(request, violations)
    group_by = tuple(
        fields.enum(
            number, _DIMENSIONS, "usage dimension", "group_by", violations, UsageDimension.TENANT
        )
        for number in request.group_by
    )
    query = UsageQuery(
        tenant_id=request.tenant_id,
        started_after_ns=after_ns,
        started_before_ns=before_ns,
        group_by=group_by,
        time_zone=request.time_zone,
    )
    violations.raise_if_any()
    return query


def usage(rows: Iterable[UsageRow]) -> cdr_service_pb2.SummarizeUsageResponse:
    return cdr_service_pb2.SummarizeUsageResponse(
        rows=[
            cdr_service_pb2.UsageRow(
                keys=row.keys,
                currency=row.currency,
                corrected=cdr_service_pb2.UsageTotals(**_totals(row.corrected, row.cost_decimals)),
                **_totals(row.billed, row.cost_decimals),
            )
            for row in rows
        ]
    )


def _totals(sums: UsageTotals, cost_decimals: int) -> dict[str, Any]:
    return {
        "calls": sums.calls,
        "answered": sums.answered,
        "duration_seconds": sums.duration_seconds,
        "bill_seconds": sums.bill_seconds,
        "cost": format_cost(sums.cost_e8, cost_decimals),
        "unrated": sums.unrated,
    }
