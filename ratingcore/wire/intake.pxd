"""Reading a request: its calls, a block at a time, and its options."""

from libc.stdint cimport uint8_t, uint32_t

from .bulk cimport block_t, options_t, source_t

cdef bint read_block(source_t* source, block_t* block) noexcept nogil
cdef uint32_t unread_calls(const source_t* source) noexcept nogil
cdef bint may_end_with_options(const uint8_t* start, const uint8_t* end) noexcept nogil
cdef bint read_options(
    const uint8_t* at, const uint8_t* end, options_t* options
) noexcept nogil
