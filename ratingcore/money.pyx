"""Exact money: billed seconds and cost (rating rules 5 to 8), and the limits of what goes in.

All prices are integers scaled by 10^4. A total is summed in sixtieths, in 128 bits, and rounded
once; nothing here is a float.

Rule 7, as read here: the call is cut into parts at the intervals' starts. A part that the call
leaves behind, by reaching the next start, is billed exactly as long as it is, since rounding it up
would bill it past that start. The part in which the call ends is rounded up to its own increment,
also where that goes past a start which the call itself did not reach.
"""

from cpython.long cimport PyLong_Check
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from .native cimport rc_sixtieths, sixtieths_of, sixtieths_sum


cdef rc_sixtieths price_parts(
    const terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    int64_t seconds,
    int64_t* bill_seconds,
) noexcept nogil:
    """Rule 7: the sum of the parts' exact prices, and of their billed seconds."""
    cdef rc_sixtieths total = sixtieths_of(0, 0)
    cdef uint64_t price_e4 = terms.price_e4
    cdef uint32_t increment = terms.increment
    cdef int64_t start = 0
    cdef int64_t billed, next_start
    cdef uint32_t i
    bill_seconds[0] = 0
    for i in range(interval_count + 1):
        if i < interval_count and seconds >= intervals[i].start_seconds:
            next_start = intervals[i].start_seconds
            billed = next_start - start
        else:
            next_start = -1
            billed = round_up(seconds - start, increment)
        bill_seconds[0] += billed
        total = sixtieths_sum(total, sixtieths_of(billed, price_e4))
        if next_start < 0:
            break
        start = next_start
        price_e4 = intervals[i].price_e4
        increment = intervals[i].increment
    return total


cdef int64_t whole(object value, str name) except? -1:
    """The value of an int. No float slips in: TypeError; OverflowError beyond 64 bits."""
    if not PyLong_Check(value):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return value


cdef int check_rounding(int rounding) except -1:
    if not HALF_UP <= rounding <= DOWN:
        raise ValueError(f"rounding must be 1 to 4, not {rounding}")
    return 0


cdef int check_price(object price_e4, str name, uint64_t* checked) except -1:
    cdef int64_t value = whole(price_e4, name)
    if not 0 <= value <= <int64_t> MAX_PRICE_E4:
        raise ValueError(f"{name} must be 0 to {MAX_PRICE_E4}, not {value}")
    checked[0] = <uint64_t> value
    return 0


cdef int check_seconds(
    object seconds, int64_t least, int64_t most, str name, uint32_t* checked
) except -1:
    cdef int64_t value = whole(seconds, name)
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least} to {most}, not {value}")
    checked[0] = <uint32_t> value
    return 0


cdef int check_intervals(object intervals, interval_t* checked) except -1:
    """Write up to MAX_INTERVALS of (start_seconds, cost_per_minute_e4, increment); their count."""
    cdef int count = 0
    cdef uint32_t before = 0
    for start_seconds, price_e4, increment in intervals:
        if count == MAX_INTERVALS:
            raise ValueError(f"a rate has at most {MAX_INTERVALS} intervals")
        check_seconds(
            start_seconds,
            <int64_t> before + 1,
            MAX_SECONDS,
            f"intervals[{count}].start_seconds",
            &checked[count].start_seconds,
        )
        check_price(
            price_e4,
            f"intervals[{count}].cost_per_minute_e4",
            &checked[count].price_e4,
        )
        check_seconds(
            increment,
            1,
            MAX_BILLING_INCREMENT,
            f"intervals[{count}].billing_increment",
            &checked[count].increment,
        )
        before = checked[count].start_seconds
        count += 1
    return count


def charge(
    duration_seconds,
    cost_per_minute_e4,
    billing_increment,
    connect_fee_e4=0,
    minimum_seconds=0,
    intervals=(),
    int rounding=HALF_UP,
):
    """(bill_seconds, cost_e4) of one call (rating rules 5 to 8).

    Intervals are (start_seconds, cost_per_minute_e4, billing_increment). ValueError for what is out
    of its range; OverflowError where the cost would pass 15 digits before the point, and for what
    does not even fit 64 bits.
    """
    cdef terms_t terms
    cdef interval_t parts[MAX_INTERVALS]
    cdef uint32_t seconds = 0
    cdef int64_t bill_seconds
    cdef uint64_t cost_e4
    cdef int count
    memset(&terms, 0, sizeof(terms_t))
    check_seconds(duration_seconds, 0, MAX_SECONDS, "duration_seconds", &seconds)
    check_price(cost_per_minute_e4, "cost_per_minute_e4", &terms.price_e4)
    check_seconds(
        billing_increment, 1, MAX_BILLING_INCREMENT, "billing_increment", &terms.increment
    )
    check_price(connect_fee_e4, "connect_fee_e4", &terms.connect_fee_e4)
    check_seconds(minimum_seconds, 0, MAX_SECONDS, "minimum_seconds", &terms.minimum_seconds)
    check_rounding(rounding)
    count = check_intervals(intervals, parts)
    if not charge_terms(&terms, parts, count, seconds, rounding, &bill_seconds, &cost_e4):
        raise OverflowError("the cost would pass 15 digits before the decimal point")
    return bill_seconds, cost_e4
