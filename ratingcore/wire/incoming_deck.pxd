"""The rates of an import, for the module that writes their rows."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..deck.builder cimport DeckBuilder
from .rate_intake cimport incoming_t, intake_t

cdef class IncomingDeck:
    cdef intake_t intake
    cdef int64_t tenant_id
    cdef readonly uint32_t seen      # rates so far, taken or not
    cdef readonly list closed        # RateInfo, see ``compare``
    cdef readonly object in_effect   # InEffect, see ``compare``
    cdef readonly uint32_t most_rates_of_prefix    # after ``compare``
    cdef readonly uint64_t most_growth_bytes       # after ``compare``
    cdef bint busy

    cdef int64_t _read(
        self, const uint8_t* data, size_t at, size_t size, void* left, uint32_t* left_count
    ) except -1 nogil
    cdef int _put_all(self, DeckBuilder builder) except -1 nogil
    cdef int _require_idle(self) except -1
    cdef int _hold(self) except -1

cdef str incoming_prefix(const incoming_t* rate)
