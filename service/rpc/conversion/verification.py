"""Verification of CDRs: filters and findings."""

from __future__ import annotations

from tollwire.service.domain.record_model import (
    CdrDifference,
    VerificationFilter,
    VerificationProgress,
)
from tollwire.service.rpc.conversion.cdrs import time_bounds
from tollwire.service.rpc.conversion.fields import Violations
from tollwire.v1 import cdr_service_pb2


def verification_filter(request: cdr_service_pb2.VerifyCdrsRequest) -> VerificationFilter:
    violations = Violations()
    after_ns, before_ns = time_bounds(request, violations)
    violations.raise_if_any()
    return VerificationFilter(
        tenant_id=request.tenant_id,
        started_after_ns=after_ns,
        started_before_ns=before_ns,
        upload_id=request.upload_id,
    )


def progress(found: VerificationProgress) -> cdr_service_pb2.VerifyCdrsResponse:
    return cdr_service_pb2.VerifyCdrsResponse(
        checked=found.checked,
        checked_per_second=found.checked_per_second,
        differences=map(difference, found.differences),
        done=found.done,
        different=found.different,
    )


def difference(one: CdrDifference) -> cdr_service_pb2.CdrDifference:
    return cdr_service_pb2.CdrDifference(
        cdr_id=one.cdr_id,
        tenant_id=one.tenant_id,
        call_id=one.call_id,
        field=one.field,
        stored=one.stored,
        recomputed=one.recomputed,
        message=one.message,
    )
