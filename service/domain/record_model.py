"""The plain types around the record of calls: uploads, corrections, the proof that it is right, and
the log of administrative changes.

Those of the calls themselves, of what they cost and of who pays are in
tollwire.service.domain.model, whose conventions hold here too. Knows no gRPC, no SQL and no rating
core.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tollwire.service.domain.model import Cdr, Explanation, UnratedReason
from tollwire.service.domain.request import EVERY_TENANT, Scope


@dataclass(frozen=True, slots=True)
class ReversalFilter:
    """All conditions must hold. 0 and None mean "any". Times: after <= created_at < before.
    ``within``: of one of these tenants."""

    tenant_id: int = 0
    created_after_ns: int | None = None
    created_before_ns: int | None = None
    upload_id: int = 0
    within: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class UploadReversal:
    """The CDRs of an upload: reversed now, and before. ``cdrs`` = reversed + reversed_before."""

    cdrs: int
    reversed: int
    reversed_before: int


@dataclass(frozen=True, slots=True)
class ReversedCost:
    """CDRs of one currency that are taken back, and what they cost, exact with ``cost_decimals``.
    ``unrated`` of them have no cost."""

    currency: str
    cdrs: int
    cost_e8: int
    unrated: int
    cost_decimals: int = 4


@dataclass(frozen=True, slots=True)
class ReversalProgress:
    """How far a reversal is: CDRs that match, reversed now, and reversed before, since its
    beginning. ``cdrs`` = reversed + reversed_before."""

    cdrs: int
    reversed: int
    reversed_before: int
    costs: tuple[ReversedCost, ...]
    done: bool


@dataclass(frozen=True, slots=True)
class ControlTotals:
    """What an upload has, by its sender's count or by ours."""

    calls: int
    duration_seconds: int


@dataclass(frozen=True, slots=True)
class VerificationFilter:
    """Which CDRs are recomputed: as in CdrFilter."""

    tenant_id: int = 0
    started_after_ns: int | None = None
    started_before_ns: int | None = None
    upload_id: int = 0
    within: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class CdrDifference:
    """What is wrong with one field of a CDR. tenant_id is 0 and call_id is "" where the row holds
    what no recording writes; ``recomputed`` is "" where there is no one right value."""

    cdr_id: int
    tenant_id: int
    call_id: str
    field: str
    stored: str
    recomputed: str
    message: str


@dataclass(frozen=True, slots=True)
class VerificationProgress:
    """How far a verification is. ``checked`` and ``different`` count CDRs since its beginning;
    ``differences`` are those since the last time."""

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
    """A record that was not recorded, with the bytes of its Call message as they were sent."""

    failure: UploadFailure
    content: bytes
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What became of one chunk. created + duplicates + conflicts + rejected + already_settled = its
    calls. ``settled_totals`` and ``control_totals_match`` are of the whole upload, where its sender
    has stated control totals with the chunk. ``duplicates_of_reversed`` counts calls that were
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
    """The state of a whole upload. The four counts add up to ``committed_offset``. Control totals
    that its sender never stated are None. ``scope`` is that of whoever started it: no call of
    another tenant gets in, and only who may see all of these tenants sees the upload."""

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
    reversed: int = 0  # of created, now

    @property
    def settled_totals(self) -> ControlTotals:
        return ControlTotals(self.committed_offset, self.duration_seconds)

    @property
    def control_totals(self) -> ControlTotals | None:
        """As last stated by the sender."""
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
    # Of those that are still UNRATED.
    reason_corrected: int = 0


class LedgerDifferenceKind(IntEnum):
    """What does not fit: the entries of a chain, the rows of an entry, rows that no entry has, or
    a root that was noted down."""

    CHAIN = 1
    ROWS = 2
    NOT_ENTERED = 3
    ROOT = 4


@dataclass(frozen=True, slots=True)
class LedgerDifference:
    """What does not fit, and where: 0 for what it is not about."""

    kind: LedgerDifferenceKind
    message: str
    chain: int = 0
    seq: int = 0
    first_id: int = 0
    row_count: int = 0


class LedgerEntryKind(IntEnum):
    """What the rows of an entry are: CDRs, steps of UNRATED ones, reversals."""

    RECORDED = 1
    PRICED = 2
    REVERSED = 3


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An entry, and the one of its rows that is looked at."""

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
    """A change of a CDR that was recorded UNRATED: the reason and the revision before, and the new
    reason; None where it got its price."""

    id: int
    unrated_reason: UnratedReason
    rate_revision: int
    new_unrated_reason: UnratedReason | None
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class ExplainedCdr:
    """Why a CDR costs what it costs, computed once more, and what differs from what is stored.
    ``replaces_cdr_id`` and ``replaced_by_cdr_id`` are CDRs of the same call_id; 0: none."""

    cdr: Cdr
    explanation: Explanation
    differences: tuple[CdrDifference, ...]
    unrated_steps: tuple[UnratedStep, ...]
    ledger_entries: tuple[LedgerEntry, ...]
    replaces_cdr_id: int
    replaced_by_cdr_id: int


@dataclass(frozen=True, slots=True)
class LedgerRoot:
    """What the whole ledger is known by at one moment, as one line."""

    root: str
    entries: int
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class LedgerProgress:
    """How far a verification has come, and the differences since the last one."""

    entries_checked: int
    rows_checked: int
    rows_per_second: float
    differences: tuple[LedgerDifference, ...]
    done: bool


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One administrative change. ``id`` 0: not written yet. ``before`` and ``after`` are JSON; ""
    where there is nothing to show."""

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
    """All conditions must hold. 0, "" and None mean "any". Times: after <= created_at < before.
    ``within``: about one of these tenants."""

    tenant_id: int = 0
    action: str = ""
    created_after_ns: int | None = None
    created_before_ns: int | None = None
    within: tuple[int, ...] | None = None
