"""The layout of the stored rates and tenants' rules by which CDRs are recomputed."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from ..pricing.money cimport rounding_t
from ..pricing.terms cimport interval_t, terms_t
from ..pricing.number cimport MAX_DIGITS, dialling_t
from ..base.pool cimport pool_t

cdef enum:                       # kept_rate_t.state
    MISSING                      # not put yet
    USABLE
    DAMAGED                      # the stored values are not a valid rate

cdef struct kept_rate_t:         # one version of a rate
    int64_t tenant_id
    int64_t created_revision     # of the tenant's deck
    int64_t retired_revision     # the first one without this version; INT64_MAX: none
    int64_t from_ns              # in effect from here; INT64_MIN: open
    int64_t to_ns                # in effect until before here; INT64_MAX: open
    terms_t terms                # terms.intervals is the count of the intervals
    uint32_t first_interval      # item of the intervals
    uint32_t interval_count
    uint32_t prefix_length       # digits
    uint8_t prefix[MAX_DIGITS]   # ASCII digits
    uint8_t state

cdef struct kept_rules_t:        # a tenant's rules from a revision of its deck on
    int64_t from_revision
    dialling_t dialling
    rounding_t rounding          # its mode is 0 if the stored rules are not valid

cdef struct kept_tenant_t:
    int64_t revision             # of the deck; the rules are known up to it; 0: none
    uint32_t first_rules         # item of rules; those of a tenant rise by from_revision
    uint32_t rules_count


cdef class KeptRates:
    cdef pool_t version_ids      # of int64; the number of one is its item of the rates
    cdef pool_t tenant_ids       # of int64; likewise of the tenants
    cdef kept_rate_t* rates      # [version_ids.count]
    cdef kept_tenant_t* tenants  # [tenant_ids.count]
    cdef kept_rules_t* rules     # [rules_count]
    cdef interval_t* intervals   # [interval_count]
    cdef uint32_t rules_count
    cdef uint32_t interval_count
    cdef uint32_t rate_capacity
    cdef uint32_t tenant_capacity
    cdef uint32_t rules_capacity
    cdef uint32_t interval_capacity

    cdef int rate_number(self, int64_t version_id, uint32_t* number) except -1 nogil
    cdef int tenant_number(self, int64_t tenant_id, uint32_t* number) except -1 nogil
    cdef int set_rate(self, kept_rate_t* rate, tuple values) except -1
    cdef int add_rules(self, tuple values) except -1


cdef inline const kept_rules_t* rules_at(
    const kept_rules_t* rules, const kept_tenant_t* tenant, int64_t revision
) noexcept nogil:
    """The tenant's rules at a revision of its deck. NULL: the revision does not exist."""
    cdef uint32_t i = tenant.first_rules + tenant.rules_count
    if revision > tenant.revision:
        return NULL
    while i > tenant.first_rules:
        i -= 1
        if rules[i].from_revision <= revision:
            return &rules[i]
    return NULL
