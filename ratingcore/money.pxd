"""What a rate asks for, and what a call under it costs."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .native cimport invariant, likely, quotient, unlikely

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

cdef extern from *:
    """
    #define RC_MAX_PRICE_E4 999999999999ULL
    #define RC_MAX_COST_E4 9999999999999999999ULL
    """
    const uint64_t MAX_PRICE_E4 "RC_MAX_PRICE_E4"   # 99,999,999.9999
    const uint64_t MAX_COST_E4 "RC_MAX_COST_E4"     # 999,999,999,999,999.9999

cdef struct terms_t:             # 40 bytes, no padding: compared and hashed as bytes
    uint64_t price_e4            # for a minute, from second 0, in 10^-4
    uint64_t connect_fee_e4      # once for a call of 1 second or more, in 10^-4
    uint64_t reciprocal          # of the increment: what native.quotient divides with
    uint32_t increment           # seconds, 1 to MAX_BILLING_INCREMENT; BLOCKED_BIT: blocked
    uint32_t minimum_seconds     # a shorter call counts as this long; 0: none
    uint32_t intervals           # item of the deck's interval lists; 0: the empty list
    uint32_t usual               # 1: charge_usual may be asked; else 0

cdef struct interval_t:          # 16 bytes; a list is in rising order of start_seconds
    uint64_t price_e4            # for a minute, in 10^-4
    uint32_t start_seconds       # above 0
    uint32_t increment           # seconds, 1 to MAX_BILLING_INCREMENT

cdef void complete_terms(terms_t* terms) noexcept nogil
cdef int charge_any(
    const terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    int64_t duration_seconds,
    int rounding,
    int64_t* bill_seconds,
    uint64_t* cost_e4,
) noexcept nogil
cdef int64_t whole(object value, str name) except? -1
cdef int check_rounding(int rounding) except -1
cdef int check_price(object price_e4, str name, uint64_t* checked) except -1
cdef int check_seconds(
    object seconds, int64_t least, int64_t most, str name, uint32_t* checked
) except -1
cdef int check_intervals(object intervals, interval_t* checked) except -1


cdef inline uint32_t rounding_bias(int rounding) noexcept nogil:
    """What to add to sixtieths before they are cut to whole ones."""
    if rounding == UP:
        return 59
    return 0 if rounding == DOWN else 30


cdef inline void charge_usual(
    const terms_t* terms,
    uint32_t duration_seconds,
    uint32_t bias,
    bint to_even,
    int64_t* bill_seconds,
    uint64_t* cost_e4,
) noexcept nogil:
    """Bill one call of 0 to MAX_SECONDS under usual terms, with the ``bias`` of the rounding.

    Such terms are not blocked, have no intervals, and are low enough that 64 bits hold any total:
    below 2^32 * (2^31 + MAX_BILLING_INCREMENT) for the seconds, 60 * MAX_PRICE_E4 for the fee.
    """
    cdef uint32_t seconds = duration_seconds
    cdef uint32_t answered = 0 - <uint32_t> (seconds > 0)   # all bits, or none
    cdef uint32_t billed
    cdef uint64_t total, cost
    invariant(terms.usual and duration_seconds <= MAX_SECONDS)
    if seconds < terms.minimum_seconds:
        seconds = terms.minimum_seconds
    seconds &= answered
    billed = quotient(seconds + terms.increment - 1, terms.reciprocal) * terms.increment
    total = billed * terms.price_e4 + bias
    if likely(answered):
        total += 60 * terms.connect_fee_e4
    cost = total // 60
    if unlikely(to_even) and cost * 60 == total:
        cost -= cost & 1
    bill_seconds[0] = billed
    cost_e4[0] = cost
