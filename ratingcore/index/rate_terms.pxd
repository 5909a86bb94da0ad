"""The terms of new rates: collected in pools of their own, compared with a deck, moved into one."""

from libc.stdint cimport uint8_t, uint32_t

from ..base.pool cimport pool_t
from ..pricing.terms cimport interval_t, terms_t
from .tables cimport tables_t

cdef struct additions_t:     # what new rates refer to; numbered apart from the deck's own pools
    pool_t rate_terms        # of rate_terms_t, whose items are numbers in the pools here
    pool_t terms             # of terms_t, likewise
    pool_t intervals         # of lists of interval_t; item 0 is the empty list
    pool_t destinations      # of UTF-8

cdef int additions_init(additions_t* additions) except -1 nogil
cdef void additions_free(additions_t* additions) noexcept nogil
cdef size_t additions_nbytes(const additions_t* additions) noexcept nogil
cdef int additions_put(
    additions_t* additions,
    terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    const uint8_t* destination,
    uint32_t destination_size,
    uint32_t* number,
) except -1 nogil
cdef int additions_copy(
    additions_t* target, const additions_t* source, uint32_t source_number, uint32_t* number
) except -1 nogil
cdef bint is_same_terms(
    const additions_t* additions, uint32_t number, const tables_t* tables, uint32_t row
) noexcept nogil
cdef int rate_terms_copy(tables_t* made, const tables_t* base) except -1 nogil
cdef int rate_terms_add(
    tables_t* made, const additions_t* additions, uint32_t* numbers
) except -1 nogil
cdef int rate_terms_compact(tables_t* made) except -1
