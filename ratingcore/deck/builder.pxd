"""The changes to a deck that a builder collects."""

from libc.stdint cimport int64_t, uint32_t

from ..index.changes cimport change_t
from ..index.rate_terms cimport additions_t
from .deck cimport Deck

cdef class DeckBuilder:
    cdef Deck base
    cdef change_t* changes       # [count], in the order of the calls, or sorted by a build
    cdef uint32_t count
    cdef uint32_t capacity
    cdef additions_t additions
    cdef set removed             # (version_id, prefix) of the base
    cdef bint building

    cdef int _require_idle(self) except -1
    cdef int _put(self, tuple values) except -1
    cdef int _add(self, const change_t* change) except -1 nogil
    cdef bint _base_has(self, int64_t version_id, str prefix) except -1
