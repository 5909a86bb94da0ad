"""The root and the verification of the ledger."""

from __future__ import annotations

from tollwire.service.domain.record_model import LedgerDifference, LedgerProgress, LedgerRoot
from tollwire.service.rpc.conversion import fields
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import types_pb2


def ledger_root(root: LedgerRoot) -> pb.LedgerRoot:
    return pb.LedgerRoot(
        root=root.root, entries=root.entries, created_at=fields.timestamp(root.created_at_ns)
    )


def ledger_progress(progress: LedgerProgress) -> pb.VerifyLedgerResponse:
    return pb.VerifyLedgerResponse(
        entries_checked=progress.entries_checked,
        rows_checked=progress.rows_checked,
        rows_per_second=progress.rows_per_second,
        differences=map(_difference, progress.differences),
        done=progress.done,
    )


def _difference(difference: LedgerDifference) -> pb.LedgerDifference:
    return pb.LedgerDifference(
        kind=types_pb2.LedgerDifferenceKind.ValueType(difference.kind),
        chain=difference.chain,
        seq=difference.seq,
        first_id=difference.first_id,
        row_count=difference.row_count,
        message=difference.message,
    )
