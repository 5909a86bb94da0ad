"""Writing the outcomes of a block of calls."""

from libc.stdint cimport uint8_t, uint64_t

from .bulk cimport block_t

cdef bint look_ahead(block_t* block) noexcept nogil
cdef uint64_t measure_block(block_t* block) noexcept nogil
cdef uint8_t* write_block(
    const block_t* block, const uint8_t* request_end, bint is_basic, uint8_t* at
) noexcept nogil
