"""The rate terms of a deck while it is built: from the builder's pools into the deck's."""

from libc.stdint cimport uint32_t

from ..base.pool cimport pool_t
from .tables cimport tables_t

cdef struct additions_t:     # what new rates refer to; numbered apart from the deck's own pools
    pool_t rate_terms            # of rate_terms_t, whose items are numbers in the pools here
    pool_t terms             # of terms_t, likewise
    pool_t intervals         # of lists of interval_t; item 0 is the empty list
    pool_t destinations      # of UTF-8

cdef int additions_init(additions_t* additions) except -1 nogil
cdef void additions_free(additions_t* additions) noexcept nogil
cdef int rate_terms_copy(tables_t* made, const tables_t* base) except -1 nogil
cdef int rate_terms_add(
    tables_t* made, const additions_t* additions, uint32_t* numbers
) except -1 nogil
cdef int rate_terms_compact(tables_t* made) except -1
