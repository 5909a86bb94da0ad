"""Derived call_ids and the packed form of calls; see identity.pyx."""

from libc.stdint cimport uint8_t, uint32_t

from .records cimport record_t

cdef enum:
    PACKED_INTEGERS = 7          # columns of the packed form

cdef int derive_call_ids(record_t* records, uint32_t count, list owners) except -1
cdef void pack(
    const record_t* records, uint32_t count, uint32_t good, uint8_t* at
) noexcept nogil
