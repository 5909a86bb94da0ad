"""The terms of a rate: the values by which its calls are charged."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    MAX_BILLING_INCREMENT = 86400
    MAX_SECONDS = 0x7FFFFFFF     # of a call, of a minimum and of an interval's start
    MAX_INTERVALS = 64           # of one rate
    BLOCKED_BIT = 0x80000000     # in terms_t.increment
    VALUES_FROM = 5              # positions in the values of a RateTerms
    VALUES_TO = 6
    VALUES_BLOCKED = 7
    VALUES_COUNT = 8

cdef extern from *:
    """
    #define RC_MAX_PRICE_E8 9999999999999999ULL
    """
    const uint64_t MAX_PRICE_E8 "RC_MAX_PRICE_E8"           # 99,999,999.99999999

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

cdef struct fault_t:             # the first value that is outside its range
    const char* field
    int64_t value
    int64_t least                # allowed
    int64_t most                 # allowed

cdef bint check_terms(
    int64_t price_e8,
    int64_t increment,
    int64_t connect_fee_e8,
    int64_t minimum_seconds,
    uint32_t intervals,
    bint blocked,
    terms_t* terms,
    fault_t* fault,
) noexcept nogil
cdef bint check_interval(
    int64_t start_seconds,
    int64_t price_e8,
    int64_t increment,
    uint32_t start_before,
    interval_t* interval,
    fault_t* fault,
) noexcept nogil
cdef object rate_info(
    int64_t version_id,
    int64_t rate_id,
    str prefix,
    str destination,
    const terms_t* terms,
    tuple intervals,
    object effective_from_ns,
    object effective_to_ns,
)
cdef tuple interval_values(const interval_t* intervals, uint32_t count)
cdef int64_t whole(object value, str name) except? -1
cdef int64_t whole_seconds(object seconds, str name) except? -1
cdef int read_terms(
    object cost_per_minute_e8,
    object billing_increment,
    object connect_fee_e8,
    object minimum_seconds,
    object intervals,
    bint blocked,
    terms_t* terms,
    interval_t* parts,
) except -1
cdef int read_values(
    tuple values, Py_ssize_t first, terms_t* terms, interval_t* parts
) except -1
cdef bint are_complete(const terms_t* terms) noexcept nogil
