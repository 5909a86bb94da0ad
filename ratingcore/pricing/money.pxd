"""What a call costs under the terms of its rate."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..base.native cimport high_product, invariant, likely, quotient, unlikely
from .terms cimport MAX_SECONDS, interval_t, terms_t

cdef enum:
    HALF_UP = 1
    HALF_EVEN = 2
    UP = 3
    DOWN = 4

cdef enum:
    MIN_COST_DECIMALS = 4        # of a tenant's costs
    MAX_COST_DECIMALS = 8        # of a tenant's costs; prices always have this many

cdef extern from *:
    """
    #define RC_E8 100000000ULL
    #define RC_MAX_COST_UNITS 999999999999999ULL
    """
    const uint64_t E8 "RC_E8"
    const uint64_t MAX_COST_UNITS "RC_MAX_COST_UNITS"       # before the point, with 4 decimals

cdef struct rounding_t:          # how exact totals become costs; 40 bytes
    uint64_t divisor             # from sixtieths of 10^-8 to 10^-cost_decimals
    uint64_t multiplier          # total // divisor = (total >> before) * multiplier >> 64 >> after
    uint64_t max_cost            # in 10^-cost_decimals
    uint32_t bias                # added before the division, so that it rounds
    uint8_t before
    uint8_t after
    uint8_t mode                 # HALF_UP to DOWN; 0: not set
    uint8_t cost_decimals        # MIN_COST_DECIMALS to MAX_COST_DECIMALS
    uint32_t to_even             # 1: HALF_EVEN

cdef void set_rounding(rounding_t* rounding, int mode, int cost_decimals) noexcept nogil
cdef int charge_any(
    const terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    int64_t duration_seconds,
    const rounding_t* rounding,
    int64_t* bill_seconds,
    uint64_t* cost_scaled,
) noexcept nogil
cdef int check_rounding(int rounding) except -1
cdef int check_cost_decimals(int cost_decimals) except -1


cdef inline uint32_t split_cost(
    uint64_t cost_scaled, uint32_t cost_decimals, uint64_t* units
) noexcept nogil:
    """Split a cost into whole units and, returned, the rest in 10^-8. The divisors are constants,
    so that the compiler multiplies instead."""
    if likely(cost_decimals == 4):
        units[0] = cost_scaled // 10_000
        return <uint32_t> (cost_scaled - units[0] * 10_000) * 10_000
    if cost_decimals == 5:
        units[0] = cost_scaled // 100_000
        return <uint32_t> (cost_scaled - units[0] * 100_000) * 1_000
    if cost_decimals == 6:
        units[0] = cost_scaled // 1_000_000
        return <uint32_t> (cost_scaled - units[0] * 1_000_000) * 100
    if cost_decimals == 7:
        units[0] = cost_scaled // 10_000_000
        return <uint32_t> (cost_scaled - units[0] * 10_000_000) * 10
    units[0] = cost_scaled // 100_000_000
    return <uint32_t> (cost_scaled - units[0] * 100_000_000)


cdef inline void charge_fast(
    const terms_t* terms,
    uint32_t duration_seconds,
    const rounding_t* rounding,
    int64_t* bill_seconds,
    uint64_t* cost_scaled,
) noexcept nogil:
    """Bill one call of 0 to MAX_SECONDS under terms with ``fast`` set.

    Such terms are not blocked, have no intervals, and are so low that any total fits 64 bits: the
    seconds cost less than 2^32 * (2^31 + MAX_BILLING_INCREMENT), which is little more than 2^63,
    and the fee at most 60 * MAX_PRICE_E8, which is below 2^60. In units that is below 10^10, so no
    cost exceeds its limit.
    """
    cdef uint32_t seconds = duration_seconds
    cdef uint32_t answered = 0 - <uint32_t> (seconds > 0)   # all bits, or none
    cdef uint32_t billed
    cdef uint64_t total, cost
    invariant(terms.fast and duration_seconds <= MAX_SECONDS)
    if seconds < terms.minimum_seconds:
        seconds = terms.minimum_seconds
    seconds &= answered
    billed = quotient(seconds + terms.increment - 1, terms.reciprocal) * terms.increment
    total = billed * terms.price_e8 + rounding.bias
    if likely(answered):
        total += 60 * terms.connect_fee_e8
    cost = high_product(total >> rounding.before, rounding.multiplier) >> rounding.after
    if unlikely(rounding.to_even) and cost * rounding.divisor == total:
        cost -= cost & 1
    bill_seconds[0] = billed
    cost_scaled[0] = cost
