"""Rows and messages that the tests of the servicers share."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.domain.model import (
    Call,
    Cdr,
    Direction,
    Disposition,
    Explanation,
    Extension,
    Rate,
    RatingStatus,
    Reversal,
    ReversalRequest,
    Tenant,
    Token,
    UnratedReason,
)
from tollwire.service.domain.record_model import (
    CdrDifference,
    ExplainedCdr,
    LedgerEntry,
    LedgerEntryKind,
    UnratedStep,
)
from tollwire.service.domain.request import Role, Scope
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import types_pb2

TENANT = Tenant(id=7, name="A")
EXTENSION = Extension(id=8, tenant_id=7, number="101")
RATE = Rate(id=3, tenant_id=7, prefix="44", cost_per_minute_e8=1500_0000, version_id=4)
CALL = Call(7, "447", Direction.OUTBOUND, Disposition.ANSWERED, 63, 10**18)
CALL_MESSAGE = types_pb2.Call(
    tenant_id=7,
    destination_number="447",
    direction=types_pb2.DIRECTION_OUTBOUND,
    disposition=types_pb2.DISPOSITION_ANSWERED,
    duration_seconds=63,
    started_at=Timestamp(seconds=10**9),
)
CDR = Cdr(1, CALL, TENANT, None, RatingStatus.RATED, None, 66, 1650, RATE, 5, 0, 9)
EXPLAINED = ExplainedCdr(
    cdr=CDR,
    explanation=Explanation("44", (), ()),
    differences=(CdrDifference(3, 0, "", "cost", "1", "", "no"),),
    unrated_steps=(UnratedStep(1, UnratedReason.NO_RATE, 2, UnratedReason.BLOCKED, 3),),
    ledger_entries=(LedgerEntry(LedgerEntryKind.REVERSED, 1, 2, 3, 4, 5, b"\xab", b"\xcd", 6),),
    replaces_cdr_id=8,
    replaced_by_cdr_id=9,
)
TOKEN = Token("A", Role.INGEST, Scope(frozenset({8, 7})), 5, "switch-7", 1, "Ada", 2)
TOKEN_MESSAGE = access_pb.Token(
    id=5,
    name="A",
    role=access_pb.ROLE_INGEST,
    tenant_ids=[7, 8],
    certificate_identity="switch-7",
    created_at=Timestamp(nanos=1),
    created_by="Ada",
    expires_at=Timestamp(nanos=2),
)
WHY = ReversalRequest("why", "who")
REVERSED_CDR = replace(CDR, reversal=Reversal(2, WHY, -1650, 10))
