"""The terms of a rate: the limits of what goes in, and what is derived from it."""

from cpython.long cimport PyLong_Check
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..base.native cimport reciprocal


cdef void complete_terms(terms_t* terms) noexcept nogil:
    """Set the derived fields: the reciprocal of the increment, and whether charge_fast can be used."""
    cdef bint blocked = (terms.increment & BLOCKED_BIT) != 0
    terms.reciprocal = reciprocal(terms.increment & ~<uint32_t> BLOCKED_BIT)
    terms.fast = not blocked and terms.intervals == 0 and terms.price_e8 >> 32 == 0


cdef int64_t whole(object value, str name) except? -1:
    """The value of an int. No float slips in: TypeError; OverflowError beyond 64 bits."""
    if not PyLong_Check(value):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return value


cdef int check_price(object price_e8, str name, uint64_t* checked) except -1:
    cdef int64_t value = whole(price_e8, name)
    if not 0 <= value <= <int64_t> MAX_PRICE_E8:
        raise ValueError(f"{name} must be 0 to {MAX_PRICE_E8}, not {value}")
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
    """Write up to MAX_INTERVALS of (start_seconds, cost_per_minute_e8, increment); their count."""
    cdef int count = 0
    cdef uint32_t before = 0
    for start_seconds, price_e8, increment in intervals:
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
            price_e8,
            f"intervals[{count}].cost_per_minute_e8",
            &checked[count].price_e8,
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
