"""Filters and entries of the audit log."""

from __future__ import annotations

from tollwire.service.domain.record_model import AuditEntry, AuditFilter
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.fields import Violations
from tollwire.v1 import access_service_pb2 as pb


def audit_filter(request: pb.ListAuditEntriesRequest) -> AuditFilter:
    violations = Violations()
    after_ns = before_ns = None
    if request.HasField("created_after"):
        after_ns = fields.time_ns(request.created_after, "created_after", violations)
    if request.HasField("created_before"):
        before_ns = fields.time_ns(request.created_before, "created_before", violations)
    violations.raise_if_any()
    return AuditFilter(request.tenant_id, request.action, after_ns, before_ns)


def audit_entry(entry: AuditEntry) -> pb.AuditEntry:
    return pb.AuditEntry(
        id=entry.id,
        created_at=fields.timestamp(entry.created_at_ns),
        caller=entry.caller,
        token_id=entry.token_id,
        request_id=entry.request_id,
        action=entry.action,
        tenant_id=entry.tenant_id,
        resource=entry.resource,
        before=entry.before,
        after=entry.after,
    )
