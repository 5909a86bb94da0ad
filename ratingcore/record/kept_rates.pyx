"""The stored rates and tenants' rules, collected while CDRs are recomputed.

A stored CDR names the version of the rate that priced it, so no index of prefixes is needed, only
versions by their ids. The values come from a database that somebody may have changed by hand:
invalid rates and rules are not refused, but kept as damaged.
"""

from cython cimport final
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ..base.memory cimport release, reserve
from ..pricing.money cimport check_cost_decimals, check_rounding, set_rounding
from ..pricing.terms cimport MAX_INTERVALS, VALUES_FROM, VALUES_TO, read_values
from ..pricing.number cimport set_dialling
from ..base.pool cimport pool_free, pool_init, pool_intern
from .records cimport NO_PARTY, record_t
from .stored_rows cimport StoredRows

cdef enum:
    FIRST_TERM = 4              # position of the values of a RateTerms
    LIMIT = 0x7FFFFFF            # of each kind

# What an invalid value raises.
_WRONG = (ValueError, TypeError, OverflowError)


cdef int64_t _bound(object bound_ns, int64_t open_end) except? -1:
    """A bound of a window, limited to 64 bits: the start of every call is within them."""
    if bound_ns is None:
        return open_end
    return max(INT64_MIN, min(INT64_MAX, bound_ns))


cdef int _set_prefix(kept_rate_t* rate, object prefix) except -1:
    cdef bytes digits = str.encode(prefix)
    if len(digits) > MAX_DIGITS or (digits and not digits.isdigit()):
        raise ValueError(f"{prefix!r} is no prefix")
    rate.prefix_length = <uint32_t> len(digits)
    memcpy(rate.prefix, <const char*> digits, len(digits))
    return 0


@final
cdef class KeptRates:
    """Versions of rates by their ids, and the tenants' rules at each revision of their decks. Only
    one thread may use it at a time."""

    def __cinit__(self):
        pool_init(&self.version_ids, sizeof(int64_t))
        pool_init(&self.tenant_ids, sizeof(int64_t))

    def __dealloc__(self):
        pool_free(&self.version_ids)
        pool_free(&self.tenant_ids)
        release(self.rates)
        release(self.tenants)
        release(self.rules)
        release(self.intervals)

    def __len__(self):
        """The number of versions, rules and intervals together."""
        return self.version_ids.count + self.rules_count + self.interval_count

    def missing_versions(self, StoredRows rows not None):
        """The version_ids of the rows that have not been put yet, each once."""
        cdef const record_t* record
        cdef uint32_t i
        cdef uint32_t number = 0
        wanted = set()
        for i in range(rows.records.count):
            record = &rows.records.items[i]
            if record.version_id:
                self.rate_number(record.version_id, &number)
                if self.rates[number].state == MISSING:
                    wanted.add(record.version_id)
        return sorted(wanted)

    def tenants_of(self, StoredRows rows not None):
        """The tenants of the rows, each once."""
        cdef const record_t* record
        cdef int64_t last = 0
        cdef uint32_t i
        found = set()
        for i in range(rows.records.count):
            record = &rows.records.items[i]
            if record.party != NO_PARTY and record.tenant_id != last:
                last = record.tenant_id
                found.add(last)
        return sorted(found)

    def revision(self, int64_t tenant_id):
        """The revision of its deck up to which the tenant's rules are known; 0: none."""
        cdef uint32_t number = 0
        self.tenant_number(tenant_id, &number)
        return self.tenants[number].revision

    def put_rate(self, int64_t version_id, *values):
        """Keep a version of a rate: tenant_id, created_revision, retired_revision or None, prefix,
        then the values of a ``RateTerms``; each end of the window is nanoseconds or None. A value
        that no rate can have, such as None for the intervals, makes the version damaged."""
        cdef uint32_t number = 0
        cdef kept_rate_t rate
        memset(&rate, 0, sizeof(kept_rate_t))
        rate.state = DAMAGED
        try:
            self.set_rate(&rate, values)
            rate.state = USABLE
        except _WRONG:
            pass
        self.rate_number(version_id, &number)
        self.rates[number] = rate

    def put_tenant(self, int64_t tenant_id, int64_t revision, rules):
        """Keep the rules of a tenant up to a revision of its deck: from_revision, rounding,
        country_code, national_prefix, international_prefix and cost_decimals of each change, by
        rising from_revision. Invalid rules are kept as damaged."""
        cdef uint32_t number = 0
        cdef uint32_t first = self.rules_count
        for values in rules:
            self.add_rules(values)
        self.tenant_number(tenant_id, &number)
        self.tenants[number].revision = revision
        self.tenants[number].first_rules = first
        self.tenants[number].rules_count = self.rules_count - first

    cdef int rate_number(self, int64_t version_id, uint32_t* number) except -1 nogil:
        """Find the item of a version. A new one is MISSING."""
        reserve(
            <void**> &self.rates,
            &self.rate_capacity,
            <uint64_t> self.version_ids.count + 1,
            sizeof(kept_rate_t),
            LIMIT,
        )
        self.rates[self.version_ids.count].state = MISSING
        return pool_intern(&self.version_ids, &version_id, sizeof(int64_t), number)

    cdef int tenant_number(self, int64_t tenant_id, uint32_t* number) except -1 nogil:
        """Find the item of a tenant. A new one has no rules."""
        reserve(
            <void**> &self.tenants,
            &self.tenant_capacity,
            <uint64_t> self.tenant_ids.count + 1,
            sizeof(kept_tenant_t),
            LIMIT,
        )
        memset(&self.tenants[self.tenant_ids.count], 0, sizeof(kept_tenant_t))
        return pool_intern(&self.tenant_ids, &tenant_id, sizeof(int64_t), number)

    cdef int set_rate(self, kept_rate_t* rate, tuple values) except -1:
        rate.tenant_id, rate.created_revision, retired_revision, prefix = values[:FIRST_TERM]
        rate.retired_revision = INT64_MAX if retired_revision is None else retired_revision
        _set_prefix(rate, prefix)
        reserve(
            <void**> &self.intervals,
            &self.interval_capacity,
            <uint64_t> self.interval_count + MAX_INTERVALS,
            sizeof(interval_t),
            LIMIT,
        )
        rate.first_interval = self.interval_count
        rate.interval_count = read_values(
            values, FIRST_TERM, &rate.terms, &self.intervals[self.interval_count]
        )
        # The number of values is checked by now.
        rate.from_ns = _bound(values[FIRST_TERM + VALUES_FROM], INT64_MIN)
        rate.to_ns = _bound(values[FIRST_TERM + VALUES_TO], INT64_MAX)
        self.interval_count += rate.interval_count
        return 0

    cdef int add_rules(self, tuple values) except -1:
        cdef kept_rules_t* rules
        reserve(
            <void**> &self.rules,
            &self.rules_capacity,
            <uint64_t> self.rules_count + 1,
            sizeof(kept_rules_t),
            LIMIT,
        )
        rules = &self.rules[self.rules_count]
        memset(rules, 0, sizeof(kept_rules_t))
        try:
            (
                rules.from_revision,
                rounding,
                country_code,
                national_prefix,
                international_prefix,
                cost_decimals,
            ) = values
            if None in values:
                raise TypeError("a missing dialling rule is an empty text")
            set_dialling(&rules.dialling, country_code, national_prefix, international_prefix)
            check_rounding(rounding)
            check_cost_decimals(cost_decimals)
            set_rounding(&rules.rounding, rounding, cost_decimals)
        except _WRONG:
            pass
        self.rules_count += 1
        return 0
