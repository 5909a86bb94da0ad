"""What a rate asks for, and what a call under it costs."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..base.native cimport high_product, invariant, likely, quotient, unlikely

cdef enum:
    HALF_UP = 1
    HALF_EVEN = 2
    UP = 3
    DOWN = 4

cdef enum:
    MAX_BILLING_INCREMENT = 86400
    MAX_SECONDS = 0x7FFFFFFF     # of a call, of a minimum and of an interval's start
    MAX_INTERVALS = 64           # of one rate
    BLOCKED_BIT = 0x80000000     # in terms_t.increment
    MIN_COST_DECIMALS = 4        # of a tenant's costs
    MAX_COST_DECIMALS = 8        # likewise; prices always have this many

cdef extern from *:
    """
    #define RC_E8 100000000ULL
    #define RC_MAX_PRICE_E8 9999999999999999ULL
    #define RC_MAX_COST_UNITS 999999999999999ULL
    """
    const uint64_t E8 "RC_E8"
    const uint64_t MAX_PRICE_E8 "RC_MAX_PRICE_E8"           # 99,999,999.99999999
    const uint64_t MAX_COST_UNITS "RC_MAX_COST_UNITS"       # before the point, with 4 decimals

cdef struct terms_t:             # 40 bytes, no padding: compared and hashed as bytes
    uint64_t price_e8            # for a minute, from second 0, in 10^-8
    uint64_t connect_fee_e8      # once for a call of 1 second or more, in 10^-8
    uint64_t reciprocal          # of the increment: what native.quotient divides with
    uint32_t increment           # seconds, 1 to MAX_BILLING_INCREMENT; BLOCKED_BIT: blocked
    uint32_t minimum_seconds     # a shorter call counts as this long; 0: none
    uint32_t intervals           # item of the deck's interval lists; 0: the empty list
    uint32_t fast                # 1: charge_fast can be used; else 0

cdef struct interval_t:          # 16 bytes; a list is in rising order of start_seconds
    uint64_t price_e8            # for a minute, in 10^-8
    uint32_t start_seconds       # above 0
    uint32_t increment           # seconds, 1 to MAX_BILLING_INCREMENT

cdef struct rounding_t:          # how exact totals become costs; 40 bytes
    uint64_t divisor             # from sixtieths of 10^-8 to 10^-cost_decimals
    uint64_t multiplier          # what divides by it: (total >> before) * multiplier >> 64 >> after
    uint64_t max_cost            # in 10^-cost_decimals
    uint32_t bias                # what to add before the division, so that it rounds
    uint8_t before
    uint8_t after
    uint8_t mode                 # HALF_UP to DOWN; 0: no rounding at all
    uint8_t cost_decimals        # MIN_COST_DECIMALS to MAX_COST_DECIMALS
    uint32_t to_even             # 1: HALF_EVEN

cdef void set_rounding(rounding_t* rounding, int mode, int cost_decimals) noexcept nogil
cdef void complete_terms(terms_t* terms) noexcept nogil
cdef int charge_any(
    const terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    int64_t duration_seconds,
    const rounding_t* rounding,
    int64_t* bill_seconds,
    uint64_t* cost_scaled,
) noexcept nogil
cdef int64_t whole(object value, str name) except? -1
cdef int check_rounding(int rounding) except -1
cdef int check_cost_decimals(int cost_decimals) except -1
cdef int check_price(object price_e8, str name, uint64_t* checked) except -1
cdef int check_seconds(
    object seconds, int64_t least, int64_t most, str name, uint32_t* checked
) except -1
cdef int check_intervals(object intervals, interval_t* checked) except -1


cdef inline uint32_t split_cost(
    uint64_t cost_scaled, uint32_t cost_decimals, uint64_t* units
) noexcept nogil:
    """A cost as whole units and, returned, the rest in 10^-8. Each divisor is a constant to the
    compiler."""
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

    Such terms are not blocked, have no intervals, and are low enough that 64 bits hold any total:
    below 2^32 * (2^31 + MAX_BILLING_INCREMENT) for the seconds, which is 2^63 and little more, and
    60 * MAX_PRICE_E8 for the fee, which is below 2^60. In units that is below 10^10, so that no
    cost is past its limit.
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
