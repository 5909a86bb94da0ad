"""Changes to a deck as a builder collects them."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    PUT = 1
    REMOVE = 2
    WITHDRAWN = 3            # a change that was withdrawn before the build

cdef struct change_t:        # 64 bytes
    uint64_t key_high        # the first 16 digits, 4 bits each from the top, as digit + 1; 0 after
    uint64_t key_low         # the other 16; keys have the order of the texts
    int64_t version_id
    int64_t rate_id          # from here on as in window_t; not used by REMOVE
    int64_t from_s
    int64_t to_s
    uint32_t from_ns
    uint32_t to_ns
    uint32_t rate_terms      # item of the new rate terms
    uint8_t length           # digits of the prefix
    uint8_t kind             # PUT, REMOVE or WITHDRAWN

cdef void set_key(change_t* change, const uint8_t* digits, uint32_t length) noexcept nogil
cdef void sort_changes(change_t* changes, uint32_t count) noexcept nogil


cdef inline uint32_t change_digit(const change_t* change, int depth) noexcept nogil:
    """The digit at ``depth``, from 0. For -1, the digit of top, which is 0."""
    if depth < 0:
        return 0
    if depth < 16:
        return (<uint32_t> (change.key_high >> (60 - 4 * depth)) & 15) - 1
    return (<uint32_t> (change.key_low >> (60 - 4 * (depth - 16))) & 15) - 1
