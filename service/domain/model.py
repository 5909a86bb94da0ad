"""The plain types that all parts of the service share.

Must not depend on gRPC, SQL or the rating core. Enum values equal those on the wire
(proto/tollwire/v1/types.proto) and in the database, so no layer translates them; a test compares
them with the compiled descriptors. record_model.py has the types of uploads, corrections, the
ledger and the audit log.

Units: money is an integer scaled by 10**8 (``…_e8``), times are integer nanoseconds since the Unix
epoch (``…_ns``), durations are whole seconds (``…_seconds``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from operator import add, sub
from typing import Generic, NamedTuple, TypeVar

from tollwire.service.domain.request import Role, Scope

T = TypeVar("T")

MAX_PRICE_E8 = 99_999_999_99999999
MIN_COST_DECIMALS = 4
MAX_COST_DECIMALS = 8
MAX_COST_E8 = 999_999_999_999_999_99990000  # with 4 decimals; lower with more decimals
MAX_DURATION_SECONDS = 2_147_483_647
MAX_BILLING_INCREMENT = 86_400
MAX_PREFIX_DIGITS = 32
MAX_INTERVALS = 64
MAX_NAME_CHARS = 200
# Of one prefix, with different periods. 27 years of daily ones.
MAX_PREFIX_RATES = 10_000
MAX_NUMBER_CHARS = 256
MAX_EXTENSION_NUMBER_CHARS = 64
MAX_CALL_ID_CHARS = 255
MAX_OCCURRENCE = 2_147_483_647
MAX_GENERATION = 32_767
MAX_REVERSAL_REASON_CHARS = 1000
MAX_REQUESTED_BY_CHARS = 200
MAX_CERTIFICATE_IDENTITY_CHARS = 255
MAX_TOKEN_TENANTS = 1000
MAX_BATCH_CALLS = 10_000
MAX_ID = 2**63 - 1
# The start of a call must fit 64-bit nanoseconds and must not be before the Unix epoch.
MIN_STARTED_AT_NS = 0
# The last nanosecond before 2262-04-11T23:47:16Z, where 64 bits of nanoseconds end within a second.
MAX_STARTED_AT_NS = 9_223_372_036 * 10**9 - 1
# The range of google.protobuf.Timestamp: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z.
MIN_TIMESTAMP_NS = -62_135_596_800 * 10**9
MAX_TIMESTAMP_NS = 253_402_300_800 * 10**9 - 1


class Direction(IntEnum):
    INBOUND = 1
    OUTBOUND = 2
    INTERNAL = 3


class Disposition(IntEnum):
    ANSWERED = 1
    NO_ANSWER = 2
    BUSY = 3
    FAILED = 4
    CANCELLED = 5
    CONGESTION = 6


class RatingStatus(IntEnum):
    RATED = 1
    NOT_BILLABLE = 2
    UNRATED = 3


class UnratedReason(IntEnum):
    NO_RATE = 1
    BLOCKED = 2
    INVALID_NUMBER = 3


class Rounding(IntEnum):
    HALF_UP = 1
    HALF_EVEN = 2
    UP = 3
    DOWN = 4


class ImportMode(IntEnum):
    MERGE = 1
    REPLACE = 2


class UsageDimension(IntEnum):
    TENANT = 1
    EXTENSION = 2
    DESTINATION = 3
    DIRECTION = 4
    DISPOSITION = 5
    DAY = 6
    HOUR = 7
    MONTH = 8
    UNRATED_REASON = 9


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the operator. ``id`` 0 means "not chosen yet"."""

    id: int = 0
    name: str = ""
    currency: str = "USD"
    rounding: Rounding = Rounding.HALF_UP
    country_code: str = ""
    national_prefix: str = ""
    international_prefix: str = ""
    created_at_ns: int = 0
    cost_decimals: int = MIN_COST_DECIMALS


@dataclass(frozen=True, slots=True)
class Extension:
    """A telephone of a tenant. ``id`` 0 means "not chosen yet"."""

    id: int = 0
    tenant_id: int = 0
    number: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Interval:
    """A later part of a call with its own price, from ``start_seconds``."""

    start_seconds: int
    cost_per_minute_e8: int
    billing_increment: int


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of a prefix. ``prefix`` is normalised: digits only. An open end of the period of
    validity is None.

    ``version_id``: the id of this rate version (0 before it is stored); ``etag`` is derived from
    it.
    """

    id: int = 0
    tenant_id: int = 0
    prefix: str = ""
    destination: str = ""
    cost_per_minute_e8: int = 0
    billing_increment: int = 60
    connect_fee_e8: int = 0
    minimum_seconds: int = 0
    intervals: tuple[Interval, ...] = ()
    effective_from_ns: int | None = None
    effective_to_ns: int | None = None
    blocked: bool = False
    created_at_ns: int = 0
    updated_at_ns: int = 0
    version_id: int = 0
    # The revision of the tenant's deck that wrote this version; not compared.
    rate_revision: int = field(default=0, compare=False)

    @property
    def etag(self) -> str:
        return f"v{self.version_id}" if self.version_id else ""


@dataclass(frozen=True, slots=True)
class Call:
    """A finished call. ``duration_seconds`` is resolved, and the enums have known values.

    ``extension_id`` 0: none. ``ended_at_ns`` None: not sent. ``call_id`` "": the sender gave none;
    then ``occurrence`` numbers calls with equal content (0 and 1: the first).
    """

    tenant_id: int
    destination_number: str
    direction: Direction
    disposition: Disposition
    duration_seconds: int
    started_at_ns: int
    ended_at_ns: int | None = None
    extension_id: int = 0
    caller_number: str = ""
    call_id: str = ""
    occurrence: int = 0

    @property
    def billable(self) -> bool:
        """Rating rule 1: only outbound calls that were answered cost money."""
        return self.direction == Direction.OUTBOUND and self.disposition == Disposition.ANSWERED


@dataclass(frozen=True, slots=True)
class BadCall:
    """A record of a batch that is not a valid call: the first invalid field and the error.
    ``field`` is empty if the error has no field."""

    field: str
    message: str
    reason: str = "INVALID_FIELD"
    call_id: str = ""
    duration_seconds: int = 0  # the seconds that it adds to control totals


@dataclass(frozen=True, slots=True)
class RatedCall:
    """The result of rating one call. UNRATED calls have neither ``bill_seconds`` nor ``cost_e8``.

    ``error`` is set if the call could not be rated at all; ``status`` is then UNRATED and
    ``unrated_reason`` None. ``version_id``: the rate version that priced the call.
    """

    call_id: str
    status: RatingStatus
    unrated_reason: UnratedReason | None = None
    bill_seconds: int | None = None
    cost_e8: int | None = None
    rate_id: int = 0
    version_id: int = 0
    matched_prefix: str = ""
    destination: str = ""
    cost_per_minute_e8: int | None = None
    billing_increment: int = 0
    rate_revision: int = 0
    error: BadCall | None = None
    cost_decimals: int = MIN_COST_DECIMALS


@dataclass(frozen=True, slots=True)
class ConsideredRate:
    rate_id: int
    prefix: str
    destination: str
    effective_from_ns: int | None
    effective_to_ns: int | None
    won: bool
    reason: str
    blocked: bool = False
    in_effect: bool = False


@dataclass(frozen=True, slots=True)
class ExplanationStep:
    name: str
    working: str
    result: str


@dataclass(frozen=True, slots=True)
class Explanation:
    normalized_number: str
    considered: tuple[ConsideredRate, ...]
    steps: tuple[ExplanationStep, ...]
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class ReversalRequest:
    """The reason and the requester of a reversal, as the sender states them."""

    reason: str
    requested_by: str


@dataclass(frozen=True, slots=True)
class Reversal:
    """The entry that reverses a CDR. ``cost_e8``: the negated cost of the CDR; None if the CDR has
    no cost."""

    id: int
    request: ReversalRequest
    cost_e8: int | None
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class Cdr:
    """The record of one call. ``tenant`` has the rating rules of its revision; ``rate`` is the rate
    as it was when it priced the call. ``reversal``: the entry that reverses the CDR; a reversal
    changes nothing else."""

    id: int
    call: Call  # with call_id always set
    tenant: Tenant
    extension: Extension | None
    status: RatingStatus
    unrated_reason: UnratedReason | None
    bill_seconds: int | None
    cost_e8: int | None
    rate: Rate | None
    rate_revision: int
    upload_id: int
    created_at_ns: int
    reversal: Reversal | None = None
    generation: int = 0  # the number of earlier CDRs with the call_id, which are reversed
    # The CDRs with the same call_id of the previous and the next generation; 0: none.
    replaces_cdr_id: int = 0
    replaced_by_cdr_id: int = 0


@dataclass(frozen=True, slots=True)
class CdrFilter:
    """All conditions must match. 0, "" and None mean "any". Times: after <= started_at < before.
    ``within``: the tenant is one of these. ``rate_id`` and ``matched_prefix``: those of the rate
    that priced the call. ``ids`` and ``call_ids``: the CDR has one of these."""

    tenant_id: int = 0
    search: str = ""
    extension_id: int = 0
    status: RatingStatus | None = None
    unrated_reason: UnratedReason | None = None
    started_after_ns: int | None = None
    started_before_ns: int | None = None
    within: tuple[int, ...] | None = None
    call_id: str = ""
    direction: Direction | None = None
    disposition: Disposition | None = None
    extension_number: str = ""
    is_reversed: bool | None = None
    rate_id: int = 0
    matched_prefix: str = ""
    upload_id: int = 0
    ids: tuple[int, ...] = ()
    call_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RateError:
    """The error of one rate of a deck; ``index``: its index within the whole deck."""

    index: int
    field: str
    message: str
    # The index of the first rate with the same prefix and effective_from, if that is the error.
    first_index: int | None = None


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """The options of an import. ``effective_from_ns``: the start of the deck. ``allow_gap``: the
    deck may leave calls without a rate until it begins."""

    tenant_id: int
    mode: ImportMode
    dry_run: bool = False
    effective_from_ns: int | None = None
    allow_gap: bool = False


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    rejected: int = 0
    errors: tuple[RateError, ...] = ()
    rate_revision: int = 0
    closed: int = 0


@dataclass(frozen=True, slots=True)
class UsageQuery:
    tenant_id: int = 0
    started_after_ns: int | None = None
    started_before_ns: int | None = None
    group_by: tuple[UsageDimension, ...] = ()
    time_zone: str = ""


class UsageTotals(NamedTuple):
    """Exact sums over CDRs."""

    calls: int = 0
    answered: int = 0
    duration_seconds: int = 0
    bill_seconds: int = 0
    cost_e8: int = 0
    unrated: int = 0

    def plus(self, other: UsageTotals) -> UsageTotals:
        return UsageTotals(*map(add, self, other))

    def minus(self, other: UsageTotals) -> UsageTotals:
        return UsageTotals(*map(sub, self, other))


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sums of CDRs with the same keys and currency. ``billed``: all of them; ``corrected``:
    those that are not reversed. Both costs are exact with ``cost_decimals``."""

    keys: tuple[str, ...]
    currency: str
    billed: UsageTotals
    corrected: UsageTotals
    cost_decimals: int = MIN_COST_DECIMALS


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, without its text. ``certificate_identity`` "": none."""

    name: str
    role: Role
    scope: Scope
    id: int = 0
    certificate_identity: str = ""
    created_at_ns: int = 0
    created_by: str = ""
    expires_at_ns: int | None = None
    revoked_at_ns: int | None = None

    def is_usable(self, now_ns: int) -> bool:
        return self.revoked_at_ns is None and (
            self.expires_at_ns is None or now_ns < self.expires_at_ns
        )


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; ``next_page_token`` is "" on the last page."""

    items: list[T]
    next_page_token: str = ""
