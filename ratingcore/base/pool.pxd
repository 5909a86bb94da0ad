"""A pool: distinct byte strings, numbered from 0 in the order in which they were added.

A frozen pool has no ``buckets``; its items are read by number.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef struct pool_t:
    uint8_t* data            # the items, one after the other, [size] bytes
    uint32_t* ends           # where each item ends in data, [count]; NULL if all have one stride
    uint32_t* buckets        # open-addressing hash: item number + 1, 0 free; [bucket_count] or NULL
    uint32_t count           # items
    uint32_t size            # bytes of data in use
    uint32_t stride          # bytes of every item; 0: each has its own length
    uint32_t bucket_count    # a power of two, or 0
    uint32_t data_capacity   # bytes allocated for data
    uint32_t ends_capacity   # items allocated for ends

cdef void pool_init(pool_t* pool, uint32_t stride) noexcept nogil
cdef void pool_free(pool_t* pool) noexcept nogil
cdef void pool_freeze(pool_t* pool) noexcept nogil
cdef int pool_copy(pool_t* target, const pool_t* source) except -1 nogil
cdef int pool_intern(
    pool_t* pool, const void* item, uint32_t length, uint32_t* number
) except -1 nogil
cdef int pool_intern_one(
    pool_t* pool, const void* item, uint32_t length, uint32_t* number
) except -1 nogil
cdef size_t pool_nbytes(const pool_t* pool) noexcept nogil


cdef inline const uint8_t* pool_item(
    const pool_t* pool, uint32_t number, uint32_t* length
) noexcept nogil:
    """The item, and its length in bytes."""
    cdef uint32_t start
    if pool.stride:
        length[0] = pool.stride
        return pool.data + <size_t> number * pool.stride
    start = pool.ends[number - 1] if number else 0
    length[0] = pool.ends[number] - start
    return pool.data + start
