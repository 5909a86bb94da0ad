"""Reading a request: its calls, a block at a time, and its min_rate_revision."""

from libc.stdint cimport int64_t, uint8_t

from .bulk cimport block_t, source_t

cdef bint read_block(source_t* source, block_t* block) noexcept nogil
cdef bint may_end_with_revision(const uint8_t* start, const uint8_t* end) noexcept nogil
cdef bint read_revision(
    const uint8_t* at, const uint8_t* end, int64_t* revision
) noexcept nogil
