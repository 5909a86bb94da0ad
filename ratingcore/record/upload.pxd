"""Reading a call that is to be recorded."""

from libc.stdint cimport uint8_t

from .records cimport record_t

cdef const uint8_t* read_record(
    const uint8_t* at, const uint8_t* end, record_t* record
) noexcept nogil
