"""Explanations of the cost of a CDR."""

from __future__ import annotations

from tollwire.service.domain.record_model import ExplainedCdr, LedgerEntry, UnratedStep
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.calls import explanation
from tollwire.service.rpc.conversion.cdrs import cdr
from tollwire.service.rpc.conversion.verification import difference
from tollwire.v1 import cdr_service_pb2, types_pb2


def explained_cdr(found: ExplainedCdr) -> cdr_service_pb2.ExplainCdrResponse:
    return cdr_service_pb2.ExplainCdrResponse(
        cdr=cdr(found.cdr),
        explanation=explanation(found.explanation),
        differences=map(difference, found.differences),
        unrated_steps=map(_step, found.unrated_steps),
        ledger_entries=map(_entry, found.ledger_entries),
        replaces_cdr_id=found.replaces_cdr_id,
        replaced_by_cdr_id=found.replaced_by_cdr_id,
    )


def _step(step: UnratedStep) -> cdr_service_pb2.UnratedStep:
    return cdr_service_pb2.UnratedStep(
        id=step.id,
        unrated_reason=types_pb2.UnratedReason.ValueType(step.unrated_reason),
        rate_revision=step.rate_revision,
        new_unrated_reason=types_pb2.UnratedReason.ValueType(step.new_unrated_reason or 0),
        created_at=fields.timestamp(step.created_at_ns),
    )


def _entry(entry: LedgerEntry) -> cdr_service_pb2.LedgerEntry:
    return cdr_service_pb2.LedgerEntry(
        kind=types_pb2.LedgerEntryKind.ValueType(entry.kind),
        chain=entry.chain,
        seq=entry.seq,
        first_id=entry.first_id,
        row_count=entry.row_count,
        row_id=entry.row_id,
        digest=entry.digest.hex(),
        hash=entry.hash.hex(),
        created_at=fields.timestamp(entry.created_at_ns),
    )
