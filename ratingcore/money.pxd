"""What a rate asks for, and what a call under it costs."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .native cimport (
    divide_by_60,
    invariant,
    likely,
    rc_sixtieths,
    sixtieths_of,
    sixtieths_sum,
    unlikely,
)

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

cdef struct terms_t:             # 32 bytes, no padding: compared and hashed as bytes
    uint64_t price_e4            # for a minute, from second 0, in 10^-4
    uint64_t connect_fee_e4      # once for a call of 1 second or more, in 10^-4
    uint32_t increment           # seconds, 1 to MAX_BILLING_INCREMENT; BLOCKED_BIT: blocked
    uint32_t minimum_seconds     # a shorter call counts as this long; 0: none
    uint32_t intervals           # item of the deck's interval lists; 0: the empty list
    uint32_t unused              # 0

cdef struct interval_t:          # 16 bytes; a list is in rising order of start_seconds
    uint64_t price_e4            # for a minute, in 10^-4
    uint32_t start_seconds       # above 0
    uint32_t increment           # seconds, 1 to MAX_BILLING_INCREMENT

cdef rc_sixtieths price_parts(
    const terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    int64_t seconds,
    int64_t* bill_seconds,
) noexcept nogil
cdef int64_t whole(object value, str name) except? -1
cdef int check_rounding(int rounding) except -1
cdef int check_price(object price_e4, str name, uint64_t* checked) except -1
cdef int check_seconds(
    object seconds, int64_t least, int64_t most, str name, uint32_t* checked
) except -1
cdef int check_intervals(object intervals, interval_t* checked) except -1


cdef inline int64_t round_up(int64_t seconds, uint32_t increment) noexcept nogil:
    """To the next whole multiple; seconds is from 0 to MAX_SECONDS, so 32 bits suffice."""
    cdef uint32_t whole = (<uint32_t> seconds + increment - 1) // increment
    return <int64_t> whole * increment


cdef inline int charge_terms(
    const terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    int64_t duration_seconds,
    int rounding,
    int64_t* bill_seconds,
    uint64_t* cost_e4,
) noexcept nogil:
    """Bill one call of 0 to MAX_SECONDS under terms that are not blocked.

    Returns 1, or 0 where the cost would pass MAX_COST; then bill_seconds is as computed and the
    cost is 0.
    """
    cdef rc_sixtieths total
    cdef uint64_t cost
    cdef uint32_t remainder
    cdef int fits
    cdef bint up
    invariant(0 <= duration_seconds <= MAX_SECONDS and not terms.increment & BLOCKED_BIT)
    if duration_seconds == 0:
        bill_seconds[0] = 0
        cost_e4[0] = 0
        return 1
    if duration_seconds < terms.minimum_seconds:
        duration_seconds = terms.minimum_seconds
    if likely(interval_count == 0):
        bill_seconds[0] = round_up(duration_seconds, terms.increment)
        total = sixtieths_of(bill_seconds[0], terms.price_e4)
    else:
        total = price_parts(terms, intervals, interval_count, duration_seconds, bill_seconds)
    total = sixtieths_sum(total, sixtieths_of(60, terms.connect_fee_e4))
    cost = divide_by_60(total, &remainder, &fits)
    if rounding == HALF_UP:
        up = remainder >= 30
    elif rounding == HALF_EVEN:
        up = remainder > 30 or (remainder == 30 and cost & 1)
    elif rounding == UP:
        up = remainder > 0
    else:
        up = False
    if unlikely(not fits or cost > <uint64_t> MAX_COST_E4 - up):
        cost_e4[0] = 0
        return 0
    cost_e4[0] = cost + up
    return 1
