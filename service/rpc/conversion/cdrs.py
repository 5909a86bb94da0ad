"""CDRs, and filters for them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ratingcore.record.single_calls import created_cdr
from tollwire.service.domain.model import (
    Cdr,
    CdrFilter,
    Direction,
    Disposition,
    Rate,
    RatingStatus,
    Reversal,
    Tenant,
    UnratedReason,
)
from tollwire.service.domain.money import format_cost
from tollwire.service.record.single_calls import RecordedCall
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.fields import Violations
from tollwire.service.rpc.conversion.rates import rate
from tollwire.service.rpc.conversion.tenants import extension, tenant
from tollwire.v1 import cdr_service_pb2, types_pb2

_ENUM_FILTERS: dict[str, tuple[str, dict[int, Any]]] = {
    "direction": ("direction", fields.members(Direction)),
    "disposition": ("disposition", fields.members(Disposition)),
    "status": ("status", fields.members(RatingStatus)),
    "unrated_reason": ("unrated reason", fields.members(UnratedReason)),
}


def cdr_filter(
    request: cdr_service_pb2.ListCdrsRequest | cdr_service_pb2.ExportCdrsRequest,
) -> CdrFilter:
    violations = Violations()
    after_ns, before_ns = time_bounds(request, violations)
    found = CdrFilter(
        tenant_id=request.tenant_id,
        search=request.search,
        extension_id=request.extension_id,
        started_after_ns=after_ns,
        started_before_ns=before_ns,
        call_id=request.call_id,
        extension_number=request.extension_number,
        is_reversed=request.reversed if request.HasField("reversed") else None,
        rate_id=request.rate_id,
        matched_prefix=request.matched_prefix,
        upload_id=request.upload_id,
        **enum_filters(request, violations),
    )
    violations.raise_if_any()
    return found


def enum_filters(
    request: cdr_service_pb2.ListCdrsRequest
    | cdr_service_pb2.ExportCdrsRequest
    | cdr_service_pb2.ReverseCdrsRequest,
    violations: Violations,
) -> dict[str, Any]:
    """The filters direction, disposition, status and unrated_reason that are set."""
    return {
        field: fields.enum(
            getattr(request, field), known, what, field, violations, next(iter(known.values()))
        )
        for field, (what, known) in _ENUM_FILTERS.items()
        if getattr(request, field)
    }


def unrated_filter(
    request: cdr_service_pb2.RateUnratedRequest,
) -> tuple[int, int | None, int | None]:
    """tenant_id, started_after and started_before."""
    violations = Violations()
    after_ns, before_ns = time_bounds(request, violations)
    violations.raise_if_any()
    return request.tenant_id, after_ns, before_ns


def time_bounds(
    request: cdr_service_pb2.ListCdrsRequest
    | cdr_service_pb2.ExportCdrsRequest
    | cdr_service_pb2.RateUnratedRequest
    | cdr_service_pb2.VerifyCdrsRequest
    | cdr_service_pb2.ReverseCdrsRequest
    | cdr_service_pb2.SummarizeUsageRequest,
    violations: Violations,
) -> tuple[int | None, int | None]:
    """started_after and started_before, None where unset."""
    after_ns = before_ns = None
    if request.HasField("started_after"):
        after_ns = fields.time_ns(request.started_after, "started_after", violations)
    if request.HasField("started_before"):
        before_ns = fields.time_ns(request.started_before, "started_before", violations)
    return after_ns, before_ns


def cdr(record: Cdr) -> types_pb2.Cdr:
    call = record.call
    decimals = record.tenant.cost_decimals
    return types_pb2.Cdr(
        id=record.id,
        tenant_id=call.tenant_id,
        extension_id=call.extension_id,
        caller_number=call.caller_number,
        destination_number=call.destination_number,
        direction=types_pb2.Direction.ValueType(call.direction),
        disposition=types_pb2.Disposition.ValueType(call.disposition),
        duration_seconds=call.duration_seconds,
        started_at=fields.timestamp(call.started_at_ns),
        ended_at=fields.timestamp(call.ended_at_ns),
        call_id=call.call_id,
        tenant=tenant(record.tenant),
        extension=None if record.extension is None else extension(record.extension),
        status=types_pb2.RatingStatus.ValueType(record.status),
        unrated_reason=types_pb2.UnratedReason.ValueType(record.unrated_reason or 0),
        bill_seconds=record.bill_seconds,
        cost=None if record.cost_e8 is None else format_cost(record.cost_e8, decimals),
        rate=None if record.rate is None else rate(record.rate),
        rate_revision=record.rate_revision,
        upload_id=record.upload_id,
        created_at=fields.timestamp(record.created_at_ns),
        matched_prefix="" if record.rate is None else record.rate.prefix,
        reversal=None if record.reversal is None else reversal(record.reversal, decimals),
        generation=record.generation,
        replaces_cdr_id=record.replaces_cdr_id,
        replaced_by_cdr_id=record.replaced_by_cdr_id,
    )


def recorded_call(recorded: RecordedCall) -> bytes:
    """The bytes of the Cdr of a call that was recorded just now; equal to those of ``cdr``."""
    tenant_of_call, called, priced_by = recorded.tenant, recorded.extension, recorded.rate
    return created_cdr(
        recorded.records,
        recorded.position,
        recorded.cdr_id,
        recorded.created_at_ns,
        tenant_of_call.cost_decimals,
        _tenant_bytes(tenant_of_call),
        None if called is None else extension(called).SerializeToString(),
        None if priced_by is None else _rate_bytes(priced_by),
        None if priced_by is None else priced_by.prefix.encode(),
    )


# The same few tenants and rates come again and again.


@lru_cache(1_000)
def _tenant_bytes(found: Tenant) -> bytes:
    return tenant(found).SerializeToString()


@lru_cache(10_000)
def _rate_bytes(found: Rate) -> bytes:
    return rate(found).SerializeToString()


def reversal(entry: Reversal, cost_decimals: int) -> types_pb2.Reversal:
    """The reversal without its CDR. ``cost_decimals``: the decimals of the CDR's cost."""
    return types_pb2.Reversal(
        id=entry.id,
        cost=None if entry.cost_e8 is None else format_cost(entry.cost_e8, cost_decimals),
        reason=entry.request.reason,
        requested_by=entry.request.requested_by,
        created_at=fields.timestamp(entry.created_at_ns),
    )
