"""The parts of PostgreSQL's binary COPY format: a header, then for each row the number of its
fields, and each field as its size and its bytes, the highest byte first.

An element of a binary array has the same form as a field.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    COPY_HEADER_SIZE = 19
    NULL_SIZE = 0xFFFFFFFF       # the size of a field that is NULL


cdef inline uint8_t* put_header(uint8_t* at) noexcept nogil:
    """Write the signature, no flags and no extension."""
    cdef const char* header = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"
    memcpy(at, header, COPY_HEADER_SIZE)
    return at + COPY_HEADER_SIZE


cdef inline uint8_t* put_size(uint8_t* at, uint32_t size) noexcept nogil:
    at[0] = <uint8_t> (size >> 24)
    at[1] = <uint8_t> (size >> 16)
    at[2] = <uint8_t> (size >> 8)
    at[3] = <uint8_t> size
    return at + 4


cdef inline uint8_t* put_integer(uint8_t* at, uint64_t value, uint32_t size) noexcept nogil:
    """Write a field of 1, 2, 4 or 8 bytes."""
    cdef uint32_t i
    at[0] = at[1] = at[2] = 0
    at[3] = <uint8_t> size
    for i in range(size):
        at[4 + i] = <uint8_t> (value >> (8 * (size - 1 - i)))
    return at + 4 + size


cdef inline uint32_t big_endian4(const uint8_t* at) noexcept nogil:
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3]


cdef inline int64_t big_endian(const uint8_t* at, uint32_t size) noexcept nogil:
    """Read a signed integer of 2, 4 or 8 bytes, or an unsigned byte."""
    if size == 8:
        return <int64_t> (<uint64_t> big_endian4(at) << 32 | big_endian4(at + 4))
    if size == 4:
        return <int32_t> big_endian4(at)
    if size == 2:
        return <int16_t> (<uint32_t> at[0] << 8 | at[1])
    return at[0]
