"""Rating blocks of calls, without the GIL."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from ..index.match cimport match_t
from ..index.tables cimport tables_t

cdef enum:
    BLOCK = 32                   # calls of a block

cdef enum:                       # outcome_t.status, as on the wire
    REFUSED = 0                  # the cost would pass its limit
    RATED = 1
    NOT_BILLABLE = 2
    UNRATED = 3

cdef enum:                       # outcome_t.unrated_reason, as on the wire; 0: none
    NO_RATE = 1
    BLOCKED = 2
    INVALID_NUMBER = 3

cdef struct call_t:
    const uint8_t* number        # as it was sent, UTF-8, [number_size]
    int64_t started_at_ns
    int64_t duration_seconds     # 0 to MAX_SECONDS
    uint32_t number_size         # bytes
    uint8_t billable             # 0 or 1

cdef struct outcome_t:
    uint64_t cost_scaled         # in 10^-cost_decimals of the deck; 0 unless RATED
    int64_t bill_seconds         # 0 unless RATED
    int32_t row                  # the rate, or NO_ROW
    uint8_t status
    uint8_t unrated_reason
    uint8_t prefix_length        # digits of the rate's prefix; 0 without a rate

cdef void rate_digits(
    const tables_t* tables,
    const uint8_t* digits,
    uint32_t count,
    int64_t started_at_ns,
    int64_t duration_seconds,
    outcome_t* outcome,
) noexcept nogil
cdef void match_block(
    const tables_t* tables, const call_t* calls, uint32_t count, match_t* matches
) noexcept nogil
cdef void rate_block(
    const tables_t* tables, const call_t* calls, uint32_t count, outcome_t* outcomes
) noexcept nogil
