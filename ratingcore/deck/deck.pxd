"""The Python classes for the tables: a deck, and the rating of one call."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from .batch cimport outcome_t
from ..pricing.number cimport MAX_DIGITS
from ..index.tables cimport tables_t

cdef class Mapping:
    cdef void* data                  # owned; NULL: nothing is mapped
    cdef size_t size                 # bytes

cdef class Deck:
    cdef tables_t* tables            # owned; never NULL; constant after the build
    cdef readonly int64_t revision   # as given to the builder
    cdef Mapping mapping             # what the tables refer to; None: they own their arrays
    cdef object __weakref__

    cdef str _prefix(self, uint32_t row)
    cdef object _info(self, uint32_t row)

cdef class Rating:
    cdef Deck deck                   # owns the tables with the row
    cdef outcome_t outcome
    cdef uint8_t digits[MAX_DIGITS]  # the normalised number, [digit_count]
    cdef int digit_count             # 0: none was needed, or it is invalid

    cdef bint _has_cost(self) noexcept
