"""Exact money: billed seconds and cost (rating rules 5 to 8).

Prices are integers scaled by 10^8, costs are integers scaled by 10 to the tenant's cost_decimals. A
total is summed in sixtieths of 10^-8, in 128 bits, and rounded once; no value is a float. money.pxd
has a fast path for nearly all terms, without 128 bits and without a division.

Rule 7 is implemented like this: the starts of the intervals divide the call into parts. If the call
reaches the next start, the part before it is billed with its exact length, because rounding it up
would bill seconds after that start. The part in which the call ends is rounded up to its own
increment, even past a start that the call did not reach.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from ..base.native cimport (
    divide,
    invariant,
    rc_sixtieths,
    reciprocal_64,
    sixtieths_of,
    sixtieths_sum,
    unlikely,
)
from .terms cimport (
    BLOCKED_BIT,
    MAX_INTERVALS,
    MAX_SECONDS,
    interval_t,
    read_terms,
    terms_t,
    whole_seconds,
)


cdef void set_rounding(rounding_t* rounding, int mode, int cost_decimals) noexcept nogil:
    """Set how a tenant's costs are rounded.

    A division by divisor = 2^before * odd becomes a multiplication: with after = floor(log2(odd))
    and multiplier = floor(2^(64 + after) / odd) + 1, the product is too large by less than
    odd < 2^(after + 1) for each 2^(64 + after), which is exact for all numbers below 2^63; and
    after the shift by ``before``, which is 2 or more, a total of 64 bits is below 2^62.
    """
    cdef uint64_t odd
    cdef int _i
    memset(rounding, 0, sizeof(rounding_t))
    rounding.mode = <uint8_t> mode
    rounding.to_even = mode == HALF_EVEN
    rounding.cost_decimals = <uint8_t> cost_decimals
    rounding.divisor = 60
    for _i in range(MAX_COST_DECIMALS - cost_decimals):
        rounding.divisor *= 10
    odd = rounding.divisor
    while odd & 1 == 0:
        odd >>= 1
        rounding.before += 1
    while odd >> (rounding.after + 1):
        rounding.after += 1
    rounding.multiplier = reciprocal_64(odd, rounding.after)
    if mode == UP:
        rounding.bias = <uint32_t> rounding.divisor - 1
    elif mode != DOWN:
        rounding.bias = <uint32_t> rounding.divisor // 2
    # 15 digits before the point with 4 decimals; with more, 18 digits in all.
    rounding.max_cost = MAX_COST_UNITS * 10_000 + 9_999
    if cost_decimals > MIN_COST_DECIMALS:
        rounding.max_cost //= 10


cdef inline int64_t _round_up(int64_t seconds, uint32_t increment) noexcept nogil:
    """Round up to a multiple. ``seconds`` is 0 to MAX_SECONDS, so 32 bits suffice."""
    cdef uint32_t whole = (<uint32_t> seconds + increment - 1) // increment
    return <int64_t> whole * increment


cdef rc_sixtieths _price_parts(
    const terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    int64_t seconds,
    int64_t* bill_seconds,
) noexcept nogil:
    """Rule 7: the sums of the parts' exact prices and of their billed seconds."""
    cdef rc_sixtieths total = sixtieths_of(0, 0)
    cdef uint64_t price_e8 = terms.price_e8
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
            billed = _round_up(seconds - start, increment)
        bill_seconds[0] += billed
        total = sixtieths_sum(total, sixtieths_of(billed, price_e8))
        if next_start < 0:
            break
        start = next_start
        price_e8 = intervals[i].price_e8
        increment = intervals[i].increment
    return total


cdef int charge_any(
    const terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    int64_t duration_seconds,
    const rounding_t* rounding,
    int64_t* bill_seconds,
    uint64_t* cost_scaled,
) noexcept nogil:
    """Bill one call of 0 to MAX_SECONDS under terms that are not blocked.

    Returns 1, or 0 if the cost exceeds its limit; then bill_seconds is set and the cost is 0.
    """
    cdef rc_sixtieths total
    cdef uint64_t cost, remainder
    cdef int fits
    cdef bint up
    invariant(0 <= duration_seconds <= MAX_SECONDS and not terms.increment & BLOCKED_BIT)
    bill_seconds[0] = 0
    cost_scaled[0] = 0
    if duration_seconds == 0:
        return 1
    if duration_seconds < terms.minimum_seconds:
        duration_seconds = terms.minimum_seconds
    total = _price_parts(terms, intervals, interval_count, duration_seconds, bill_seconds)
    total = sixtieths_sum(total, sixtieths_of(60, terms.connect_fee_e8))
    cost = divide(total, rounding.divisor, &remainder, &fits)
    if rounding.mode == HALF_UP:
        up = 2 * remainder >= rounding.divisor
    elif rounding.mode == HALF_EVEN:
        up = 2 * remainder > rounding.divisor or (2 * remainder == rounding.divisor and cost & 1)
    elif rounding.mode == UP:
        up = remainder > 0
    else:
        up = False
    if unlikely(not fits or cost > rounding.max_cost - up):
        return 0
    cost_scaled[0] = cost + up
    return 1


cdef int check_rounding(int rounding) except -1:
    if not HALF_UP <= rounding <= DOWN:
        raise ValueError(f"rounding must be 1 to 4, not {rounding}")
    return 0


cdef int check_cost_decimals(int cost_decimals) except -1:
    if not MIN_COST_DECIMALS <= cost_decimals <= MAX_COST_DECIMALS:
        raise ValueError(
            f"cost_decimals must be {MIN_COST_DECIMALS} to {MAX_COST_DECIMALS}, not {cost_decimals}"
        )
    return 0


def charge(
    duration_seconds,
    cost_per_minute_e8,
    billing_increment,
    connect_fee_e8=0,
    minimum_seconds=0,
    intervals=(),
    int rounding=HALF_UP,
    int cost_decimals=MIN_COST_DECIMALS,
):
    """(bill_seconds, cost_scaled) of one call (rating rules 5 to 8). The cost is an integer scaled
    by 10**cost_decimals.

    Intervals are (start_seconds, cost_per_minute_e8, billing_increment). ValueError for a value
    outside its range; OverflowError if the cost exceeds its limit (``max_cost``), or a value 64
    bits.
    """
    cdef terms_t terms
    cdef rounding_t rules
    cdef interval_t parts[MAX_INTERVALS]
    cdef uint32_t seconds = <uint32_t> whole_seconds(duration_seconds, "duration_seconds")
    cdef int64_t bill_seconds
    cdef uint64_t cost_scaled
    cdef int count
    check_rounding(rounding)
    check_cost_decimals(cost_decimals)
    set_rounding(&rules, rounding, cost_decimals)
    count = read_terms(
        cost_per_minute_e8,
        billing_increment,
        connect_fee_e8,
        minimum_seconds,
        intervals,
        False,
        &terms,
        parts,
    )
    if terms.fast:
        charge_fast(&terms, seconds, &rules, &bill_seconds, &cost_scaled)
    elif not charge_any(&terms, parts, count, seconds, &rules, &bill_seconds, &cost_scaled):
        raise OverflowError("the cost would pass its limit")
    return bill_seconds, cost_scaled


def max_cost(int cost_decimals):
    """The highest cost with ``cost_decimals``, scaled by 10**cost_decimals: 15 digits before the
    point with 4 decimals, 18 digits in all with 5 to 8."""
    cdef rounding_t rules
    check_cost_decimals(cost_decimals)
    set_rounding(&rules, HALF_UP, cost_decimals)
    return rules.max_cost
