"""The Python faces of the tables: a deck, and the rating of one call under it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from .batch cimport outcome_t
from ..pricing.number cimport MAX_DIGITS
from ..index.tables cimport tables_t

cdef class Deck:
    cdef tables_t* tables            # owned; never NULL, never changed once the deck is handed out
    cdef readonly int64_t revision   # what the builder was told
    cdef object __weakref__

    cdef str _prefix(self, uint32_t row)
    cdef object _info(self, uint32_t row)

cdef class Rating:
    cdef Deck deck                   # keeps the tables that the row is in
    cdef outcome_t outcome
    cdef uint8_t digits[MAX_DIGITS]  # the normalised number, [digit_count]
    cdef int digit_count             # 0: none was needed, or it is invalid

    cdef bint _has_cost(self) noexcept
