"""What a rate asks for, and what a call under it costs."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

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

cdef uint64_t MAX_PRICE_E4      # 99,999,999.9999
cdef uint64_t MAX_COST          # 999,999,999,999,999.9999, in 10^-4

cdef struct terms_t:             # 32 bytes, no padding: compared and hashed as bytes
    uint64_t price_e4            # for a minute, from second 0, in 10^-4
    uint64_t connect_fee_e4      # once for a call of 1 second or more, in 10^-4
    uint32_t increment           # seconds, 1 to MAX_BILLING_INCREMENT; BLOCKED_BIT: calls are blocked
    uint32_t minimum_seconds     # a shorter call counts as this long; 0: none
    uint32_t destination         # item of the deck's destinations
    uint32_t intervals           # item of the deck's interval lists; 0: the empty list

cdef struct interval_t:          # 16 bytes; a list is in rising order of start_seconds
    uint64_t price_e4            # for a minute, in 10^-4
    uint32_t start_seconds       # above 0
    uint32_t increment           # seconds, 1 to MAX_BILLING_INCREMENT

cdef int charge_terms(
    const terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    int64_t duration_seconds,
    int rounding,
    int64_t* bill_seconds,
    uint64_t* cost_e4,
) noexcept nogil
cdef int check_rounding(int rounding) except -1
cdef int check_price(object price_e4, str name, uint64_t* checked) except -1
cdef int check_seconds(
    object seconds, int64_t least, int64_t most, str name, uint32_t* checked
) except -1
cdef int check_intervals(object intervals, interval_t* checked) except -1
