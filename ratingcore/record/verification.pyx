# cython: cdivision=True
"""Recomputes stored calls, each by the rate that its row names and the tenant's rules at that time.

The stored outcome is only compared. Whether a better rate existed at the time is not checked,
because a CDR keeps the rate that rating found. The digests of the ledger reveal the changes that no
recomputation can find, such as another caller_number or a duration within the same billing
increment.
"""

from enum import IntEnum

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from ..deck cimport batch
from . cimport kept_rates
from ..wire.call_rules cimport ANSWERED, OUTBOUND
from .kept_rates cimport KeptRates, kept_rate_t, kept_rules_t, kept_tenant_t, rules_at
from ..base.memory cimport release, reserve
from ..pricing.money cimport E8, charge_any, charge_fast, rounding_t, split_cost
from ..pricing.terms cimport BLOCKED_BIT
from ..base.native cimport likely
from ..pricing.number cimport MAX_DIGITS, normalize
from .records cimport MAX_RECORDS, NO_PARTY, record_t
from .stored_rows cimport StoredRows

cdef enum:
    FITS                         # no finding
    TENANT_MISSING               # the tenant never existed
    RULES_MISSING                # the revision of its deck never existed
    RULES_DAMAGED                # the stored rules are not valid
    NOT_BILLABLE                 # the call is not billable, and stored as billable
    BILLABLE                     # the call is billable, and stored as NOT_BILLABLE
    NUMBER_IS_VALID              # the number is valid, and stored as invalid
    NUMBER_IS_INVALID            # the number is invalid, and stored as valid
    RATE_MISSING                 # the version does not exist
    RATE_DAMAGED                 # the stored rate is not valid
    RATE_OF_ANOTHER              # the rate belongs to another tenant
    RATE_NOT_PRESENT             # not in the deck at the call's rate revision
    RATE_BLOCKED
    RATE_NOT_IN_EFFECT           # when the call started
    PREFIX                       # the number does not start with the rate's
    BILL_SECONDS                 # differ
    COST                         # differs
    COST_OVERFLOW                # the cost exceeds its limit

# The findings for a stored call.
Finding = IntEnum(
    "Finding",
    {
        "TENANT_MISSING": TENANT_MISSING,
        "RULES_MISSING": RULES_MISSING,
        "RULES_DAMAGED": RULES_DAMAGED,
        "NOT_BILLABLE": NOT_BILLABLE,
        "BILLABLE": BILLABLE,
        "NUMBER_IS_VALID": NUMBER_IS_VALID,
        "NUMBER_IS_INVALID": NUMBER_IS_INVALID,
        "RATE_MISSING": RATE_MISSING,
        "RATE_DAMAGED": RATE_DAMAGED,
        "RATE_OF_ANOTHER": RATE_OF_ANOTHER,
        "RATE_NOT_PRESENT": RATE_NOT_PRESENT,
        "RATE_BLOCKED": RATE_BLOCKED,
        "RATE_NOT_IN_EFFECT": RATE_NOT_IN_EFFECT,
        "PREFIX": PREFIX,
        "BILL_SECONDS": BILL_SECONDS,
        "COST": COST,
        "COST_OVERFLOW": COST_OVERFLOW,
    },
)

cdef struct charge_t:            # the cost of a call by its stored rate
    int64_t bill_seconds
    uint64_t cost_units          # as in record_t
    uint32_t cost_fraction_e8

cdef struct finding_t:
    uint32_t position
    uint8_t what
    charge_t charge              # set if the call was charged


cdef struct findings_t:
    finding_t* items             # [count]
    uint32_t count
    uint32_t capacity


cdef int _add(
    findings_t* findings, uint32_t position, uint8_t what, const charge_t* charge
) except -1 nogil:
    cdef finding_t* finding
    reserve(
        <void**> &findings.items,
        &findings.capacity,
        <uint64_t> findings.count + 1,
        sizeof(finding_t),
        2 * MAX_RECORDS,
    )
    finding = &findings.items[findings.count]
    finding.position = position
    finding.what = what
    finding.charge = charge[0]
    findings.count += 1
    return 0


cdef bint _is_billable(const record_t* record) noexcept nogil:
    return record.direction == OUTBOUND and record.disposition == ANSWERED


cdef uint8_t _against_rate(
    const record_t* record, const kept_rate_t* rate, const uint8_t* digits, int count
) noexcept nogil:
    """Check whether the rate may have priced the call to these digits. Returns FITS or a
    finding."""
    if rate.state == kept_rates.MISSING:
        return RATE_MISSING
    if rate.state == kept_rates.DAMAGED:
        return RATE_DAMAGED
    if rate.tenant_id != record.tenant_id:
        return RATE_OF_ANOTHER
    if not rate.created_revision <= record.rate_revision < rate.retired_revision:
        return RATE_NOT_PRESENT
    if rate.terms.increment & BLOCKED_BIT:
        return RATE_BLOCKED
    if not rate.from_ns <= record.started_at_ns < rate.to_ns:
        return RATE_NOT_IN_EFFECT
    if <uint32_t> count < rate.prefix_length:
        return PREFIX
    return FITS if memcmp(digits, rate.prefix, rate.prefix_length) == 0 else PREFIX


cdef bint _charge(
    const record_t* record,
    const kept_rate_t* rate,
    const kept_rates.interval_t* intervals,
    const rounding_t* rounding,
    charge_t* charge,
) noexcept nogil:
    """Recompute the cost of the call. False: it exceeds its limit."""
    cdef uint64_t cost_scaled
    if likely(rate.terms.fast):
        charge_fast(
            &rate.terms,
            <uint32_t> record.duration_seconds,
            rounding,
            &charge.bill_seconds,
            &cost_scaled,
        )
    elif not charge_any(
        &rate.terms,
        intervals + rate.first_interval,
        rate.interval_count,
        record.duration_seconds,
        rounding,
        &charge.bill_seconds,
        &cost_scaled,
    ):
        return False
    charge.cost_fraction_e8 = split_cost(cost_scaled, rounding.cost_decimals, &charge.cost_units)
    return True


cdef uint8_t _recompute(
    const record_t* record,
    const kept_tenant_t* tenant,
    const kept_rules_t* rules,
    const kept_rate_t* rate,
    const kept_rates.interval_t* intervals,
    charge_t* charge,
) noexcept nogil:
    """Check the call apart from bill_seconds and cost. Returns FITS, and sets the charge, or a
    finding."""
    cdef uint8_t digits[MAX_DIGITS]
    cdef int count
    cdef uint8_t wrong
    charge.bill_seconds = 0
    charge.cost_units = 0
    charge.cost_fraction_e8 = 0
    if tenant.rules_count == 0:
        return TENANT_MISSING
    if rules == NULL:
        return RULES_MISSING
    if rules.rounding.mode == 0:
        return RULES_DAMAGED
    if not _is_billable(record):
        return FITS if record.status == batch.NOT_BILLABLE else NOT_BILLABLE
    if record.status == batch.NOT_BILLABLE:
        return BILLABLE
    count = normalize(
        record.destination_number.data, record.destination_number.size, &rules.dialling, digits
    )
    if (record.unrated_reason == batch.INVALID_NUMBER) != (count == 0):
        return NUMBER_IS_INVALID if count == 0 else NUMBER_IS_VALID
    if record.status == batch.UNRATED:
        return FITS
    wrong = _against_rate(record, rate, digits, count)
    if wrong == FITS and not _charge(record, rate, intervals, &rules.rounding, charge):
        return COST_OVERFLOW
    return wrong


cdef int _recompute_all(
    StoredRows rows, KeptRates kept, findings_t* findings
) except -1 nogil:
    cdef const record_t* record
    cdef const kept_rules_t* rules
    cdef const kept_tenant_t* tenant
    cdef charge_t charge
    cdef uint32_t i
    cdef uint32_t tenant_number = 0
    cdef uint32_t rate_number = 0
    cdef uint8_t wrong
    # The rate of a row without a version is not used, but its pointer must be valid.
    kept.rate_number(0, &rate_number)
    for i in range(rows.records.count):
        record = &rows.records.items[i]
        if record.party == NO_PARTY:
            continue
        kept.tenant_number(record.tenant_id, &tenant_number)
        tenant = &kept.tenants[tenant_number]
        rules = rules_at(kept.rules, tenant, record.rate_revision)
        if record.version_id:
            kept.rate_number(record.version_id, &rate_number)
        wrong = _recompute(
            record, tenant, rules, &kept.rates[rate_number], kept.intervals, &charge
        )
        if wrong != FITS:
            _add(findings, i, wrong, &charge)
        elif record.status != batch.UNRATED:
            if record.bill_seconds != charge.bill_seconds:
                _add(findings, i, BILL_SECONDS, &charge)
            if (
                record.cost_units != charge.cost_units
                or record.cost_fraction_e8 != charge.cost_fraction_e8
            ):
                _add(findings, i, COST, &charge)
    return 0


def recompute(StoredRows rows not None, KeptRates kept not None):
    """The findings of the rows that are no misfits: (position, Finding, recomputed value), sorted
    by position. The value is in seconds for BILL_SECONDS, scaled by 10**8 for COST, else 0.
    Releases the GIL."""
    cdef findings_t findings
    cdef finding_t* finding
    cdef uint32_t i
    findings.items = NULL
    findings.count = findings.capacity = 0
    try:
        with nogil:
            _recompute_all(rows, kept, &findings)
        found = []
        for i in range(findings.count):
            finding = &findings.items[i]
            value = (<object> finding.charge.cost_units) * E8 + finding.charge.cost_fraction_e8
            if finding.what == BILL_SECONDS:
                value = finding.charge.bill_seconds
            found.append((finding.position, Finding(finding.what), value))
        return found
    finally:
        release(findings.items)
