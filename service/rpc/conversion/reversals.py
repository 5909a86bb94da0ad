"""Reversals: requests, filters and entries."""

from __future__ import annotations

from dataclasses import replace

from tollwire.service.domain.model import Cdr, CdrFilter, ReversalRequest
from tollwire.service.domain.money import format_cost
from tollwire.service.domain.record_model import ReversalFilter, ReversalProgress, UploadReversal
from tollwire.service.rpc.conversion import cdrs, fields
from tollwire.service.rpc.conversion.fields import Violations
from tollwire.v1 import cdr_service_pb2, types_pb2


def reversal_request(
    request: cdr_service_pb2.ReverseCdrRequest
    | cdr_service_pb2.ReverseUploadRequest
    | cdr_service_pb2.ReverseCdrsRequest,
) -> ReversalRequest:
    return ReversalRequest(request.reason, request.requested_by)


def reversal_filter(request: cdr_service_pb2.ListReversalsRequest) -> ReversalFilter:
    violations = Violations()
    after_ns = before_ns = None
    if request.HasField("created_after"):
        after_ns = fields.time_ns(request.created_after, "created_after", violations)
    if request.HasField("created_before"):
        before_ns = fields.time_ns(request.created_before, "created_before", violations)
    violations.raise_if_any()
    return ReversalFilter(request.tenant_id, after_ns, before_ns, request.upload_id)


def cdrs_to_reverse(request: cdr_service_pb2.ReverseCdrsRequest) -> CdrFilter:
    violations = Violations()
    after_ns, before_ns = cdrs.time_bounds(request, violations)
    wanted = CdrFilter(
        tenant_id=request.tenant_id,
        extension_id=request.extension_id,
        started_after_ns=after_ns,
        started_before_ns=before_ns,
        extension_number=request.extension_number,
        rate_id=request.rate_id,
        matched_prefix=request.matched_prefix,
        upload_id=request.upload_id,
        ids=tuple(request.ids),
        call_ids=tuple(request.call_ids),
        **cdrs.enum_filters(request, violations),
    )
    violations.raise_if_any()
    return wanted


def progress(found: ReversalProgress) -> cdr_service_pb2.ReverseCdrsResponse:
    return cdr_service_pb2.ReverseCdrsResponse(
        cdrs=found.cdrs,
        reversed=found.reversed,
        reversed_before=found.reversed_before,
        costs=[
            cdr_service_pb2.ReversedCost(
                currency=one.currency,
                cdrs=one.cdrs,
                cost=format_cost(one.cost_e8, one.cost_decimals),
                unrated=one.unrated,
            )
            for one in found.costs
        ],
        done=found.done,
    )


def reversal(taken_back: Cdr) -> types_pb2.Reversal:
    """The reversal of a reversed CDR, with the CDR in it."""
    assert taken_back.reversal is not None
    message = cdrs.reversal(taken_back.reversal, taken_back.tenant.cost_decimals)
    message.cdr.CopyFrom(cdrs.cdr(replace(taken_back, reversal=None)))
    return message


def upload_reversal(outcome: UploadReversal) -> cdr_service_pb2.ReverseUploadResponse:
    return cdr_service_pb2.ReverseUploadResponse(
        cdrs=outcome.cdrs,
        reversed=outcome.reversed,
        reversed_before=outcome.reversed_before,
    )
