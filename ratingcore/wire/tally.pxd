"""Counts the outcomes of calls by status and reason."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from .bulk cimport block_t

cdef enum:
    KINDS = 8                       # of outcomes, by ``kind_of``; 0 counts nothing

cdef inline uint64_t kind_of(uint8_t status, uint8_t unrated_reason) noexcept nogil:
    """RATED 1, NOT_BILLABLE 2, UNRATED 4 to 6 by its reason: each outcome has a sum of its own."""
    return <uint64_t> status + unrated_reason

cdef void count_block(const block_t* block, int64_t* counts) noexcept nogil

cdef class Tally:
    cdef int64_t _counts[KINDS]     # changed only with the GIL

    cdef int64_t _sum(self, int kind) noexcept
    cdef void take(self, const int64_t* counts) noexcept
    cdef inline void count(self, uint8_t status, uint8_t unrated_reason) noexcept:
        self._counts[kind_of(status, unrated_reason)] += 1
