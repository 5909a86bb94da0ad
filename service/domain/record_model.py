"""The plain types of uploads, corrections, verification, the ledger and the audit log.

model.py has the types of calls, rates and tenants; its conventions apply here too. Must not depend
on gRPC, SQL or the rating core.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tollwire.service.domain.model import Cdr, Explanation, UnratedReason
from tollwire.service.domain.request import EVERY_TENANT, Scope


@dataclass(frozen=True, slots=True)
class ReversalFilter:
    """All conditions must match. 0 and None mean "any". Times: after <= created_at < before.
    ``within``: the tenant is one of these."""

    tenant_id: int = 0
    created_after_ns: int | None = None
    created_before_ns: int | None = None
    upload_id: int = 0
    within: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class UploadReversal:
    """The result of the reversal of an upload. ``reversed``: CDRs that were reversed now.
    ``cdrs`` = reversed + reversed_before."""

    cdrs: int
    reversed: int
    reversed_before: int


@dataclass(frozen=True, slots=True)
class ReversedCost:
    """The reversed CDRs of one currency and their cost, exact with ``cost_decimals``. ``unrated``:
    the number of them without a cost."""

    currency: str
    cdrs: int
    cost_e8: int
    unrated: int
    cost_decimals: int = 4


@dataclass(frozen=True, slots=True)
class ReversalProgress:
    """The progress of a reversal: matching CDRs since its beginning, reversed now or before.
    ``cdrs`` = reversed + reversed_before."""

    cdrs: int
    reversed: int
    reversed_before: int
    costs: tuple[ReversedCost, ...]
    done: bool


@dataclass(frozen=True, slots=True)
class ControlTotals:
    """The totals of an upload, as counted by its sender or by the server."""

    calls: int
    duration_seconds: int


@dataclass(frozen=True, slots=True)
class VerificationFilter:
    """The filter of CDRs to recompute, as in CdrFilter."""

    tenant_id: int = 0
    started_after_ns: int | None = None
    started_before_ns: int | None = None
    upload_id: int = 0
    within: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class CdrDifference:
    """A difference in one field of a CDR. tenant_id is 0 and call_id is "" if the row contains
    impossible values; ``recomputed`` is "" if there is not exactly one correct value."""

    cdr_id: int
    tenant_id: int
    call_id: str
    field: str
    stored: str
    recomputed: str
    message: str


@dataclass(frozen=True, slots=True)
class VerificationProgress:
    """The progress of a verification. ``checked`` and ``different`` count CDRs since its beginning;
    ``differences``: the new ones since the last progress."""

    checked: int
    checked_per_second: float
    differences: tuple[CdrDifference, ...]
    different: int
    done: bool


@dataclass(frozen=True, slots=True)
class UploadFailure:
    index: int  # within the upload
    call_id: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A record that was not stored as a CDR, with the bytes of its Call message as they were
    sent."""

    failure: UploadFailure
    content: bytes
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """The result of one chunk. created + duplicates + conflicts + rejected + already_settled = its
    calls. ``settled_totals`` and ``control_totals_match``: of the whole upload, if the sender has
    stated control totals with the chunk. ``duplicates_of_reversed``: the number of calls that were
    settled before and whose CDR is reversed now."""

    upload_id: int
    committed_offset: int
    created: int
    duplicates: int
    conflicts: int
    rejected: int
    unrated: int
    failures: tuple[UploadFailure, ...]
    settled_totals: ControlTotals | None = None
    control_totals_match: bool | None = None
    already_settled: int = 0
    recorded_again: int = 0
    duplicates_of_reversed: int = 0
    derived_call_ids: int = 0
    derived_duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Upload:
    """The state of a whole upload. The sum of the four counts is ``committed_offset``. Control
    totals are None if the sender has stated none. ``scope``: that of the caller that started the
    upload. Calls of other tenants are rejected, and only callers that may see all these tenants see
    the upload."""

    id: int
    committed_offset: int
    created: int
    duplicates: int
    conflicts: int
    rejected: int
    unrated: int
    duration_seconds: int
    stated_calls: int | None
    stated_duration_seconds: int | None
    created_at_ns: int
    updated_at_ns: int
    reversed_at_ns: int | None = None
    scope: Scope = EVERY_TENANT
    recorded_again: int = 0
    derived_call_ids: int = 0
    derived_duplicates: int = 0
    revision: int = 0  # the number of its changes, for the ledger
    chunks_hash: bytes | None = None  # over all its chunks, for the ledger
    reversed: int = 0  # the number of created CDRs that are reversed now

    @property
    def settled_totals(self) -> ControlTotals:
        return ControlTotals(self.committed_offset, self.duration_seconds)

    @property
    def control_totals(self) -> ControlTotals | None:
        """The control totals that the sender stated last."""
        if self.stated_calls is None or self.stated_duration_seconds is None:
            return None
        return ControlTotals(self.stated_calls, self.stated_duration_seconds)

    @property
    def control_totals_match(self) -> bool | None:
        stated = self.control_totals
        return None if stated is None else stated == self.settled_totals


@dataclass(frozen=True, slots=True)
class UnratedOutcome:
    examined: int
    rated: int
    still_unrated: int
    # The number of these calls that remain UNRATED.
    reason_corrected: int = 0


class LedgerDifferenceKind(IntEnum):
    """What differs: the entries of a chain, the rows of an entry, rows without an entry, the
    given root, the triggers that refuse changes, or the order of the times of a chain."""

    CHAIN = 1
    ROWS = 2
    NOT_ENTERED = 3
    ROOT = 4
    TRIGGER = 5
    TIME = 6


@dataclass(frozen=True, slots=True)
class LedgerDifference:
    """A difference in the ledger, and its place; fields that do not apply are 0."""

    kind: LedgerDifferenceKind
    message: str
    chain: int = 0
    seq: int = 0
    first_id: int = 0
    row_count: int = 0


class LedgerEntryKind(IntEnum):
    """The kind of the rows of an entry: CDRs, late prices and reason changes, reversals."""

    RECORDED = 1
    PRICED = 2
    REVERSED = 3


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An entry of the ledger that contains a given row."""

    kind: LedgerEntryKind
    chain: int
    seq: int
    first_id: int
    row_count: int
    row_id: int
    digest: bytes
    hash: bytes
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class UnratedStep:
    """A change of a CDR that was recorded UNRATED: the reason and the revision before it, and the
    new reason; None if the CDR got its price."""

    id: int
    unrated_reason: UnratedReason
    rate_revision: int
    new_unrated_reason: UnratedReason | None
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class ExplainedCdr:
    """The recomputed explanation of a CDR's cost, and the differences from the stored values.
    ``replaces_cdr_id`` and ``replaced_by_cdr_id``: CDRs with the same call_id; 0: none."""

    cdr: Cdr
    explanation: Explanation
    differences: tuple[CdrDifference, ...]
    unrated_steps: tuple[UnratedStep, ...]
    ledger_entries: tuple[LedgerEntry, ...]
    replaces_cdr_id: int
    replaced_by_cdr_id: int


@dataclass(frozen=True, slots=True)
class LedgerRoot:
    """The root of the whole ledger at one moment, as one line of text."""

    root: str
    entries: int
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class LedgerProgress:
    """The progress of a verification of the ledger, and the new differences since the last
    progress."""

    entries_checked: int
    rows_checked: int
    rows_per_second: float
    differences: tuple[LedgerDifference, ...]
    done: bool


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One administrative change. ``id`` 0: not stored yet. ``before`` and ``after`` are JSON; "" if
    there is no such state."""

    id: int = 0
    created_at_ns: int = 0
    caller: str = ""
    token_id: int = 0
    request_id: str = ""
    action: str = ""
    tenant_id: int = 0
    resource: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """All conditions must match. 0, "" and None mean "any". Times: after <= created_at < before.
    ``within``: the entry is about one of these tenants."""

    tenant_id: int = 0
    action: str = ""
    created_after_ns: int | None = None
    created_before_ns: int | None = None
    within: tuple[int, ...] | None = None
