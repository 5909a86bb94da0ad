"""Pools of distinct byte strings: a deck's rate terms, prices, interval lists and destinations.

The rates of a deck repeat a few values: hundreds of thousands of rates share a few hundred
combinations of price and increment, and about ten thousand destinations. A pool stores each of them
once, and a rate stores its number.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from .memory cimport allocate, release, reserve, trim

cdef uint32_t LIMIT = 0x7FFFFFFF  # bytes of data, and items

# Differs between processes, like the hash of a str, so that an attacker cannot prepare collisions.
cdef uint64_t SEED = <uint64_t> (hash("ratingcore") & 0xFFFFFFFFFFFFFFFF)


cdef uint64_t _hash(const uint8_t* item, uint32_t length) noexcept nogil:
    cdef uint64_t value = SEED ^ length
    cdef uint64_t word
    cdef uint32_t size
    while length > 0:
        size = 8 if length > 8 else length
        word = 0
        memcpy(&word, item, size)
        value = (value ^ word) * <uint64_t> 0x9E3779B97F4A7C15
        value ^= value >> 29
        item += size
        length -= size
    value *= <uint64_t> 0xBF58476D1CE4E5B9
    return value ^ (value >> 32)


cdef inline bint _equal(const uint8_t* left, const void* right, uint32_t length) noexcept nogil:
    # The address of an empty item may be NULL, which memcmp does not allow.
    return length == 0 or memcmp(left, right, length) == 0


cdef void pool_init(pool_t* pool, uint32_t stride) noexcept nogil:
    memset(pool, 0, sizeof(pool_t))
    pool.stride = stride


cdef void pool_free(pool_t* pool) noexcept nogil:
    release(pool.data)
    release(pool.ends)
    release(pool.buckets)
    pool_init(pool, pool.stride)


cdef void pool_freeze(pool_t* pool) noexcept nogil:
    """Free what only adding items needs."""
    release(pool.buckets)
    pool.buckets = NULL
    pool.bucket_count = 0
    trim(<void**> &pool.data, &pool.data_capacity, pool.size, 1)
    trim(<void**> &pool.ends, &pool.ends_capacity, 0 if pool.stride else pool.count, 4)


cdef int pool_copy(pool_t* target, const pool_t* source) except -1 nogil:
    """Copy all items to ``target``, which is empty. They keep their numbers."""
    reserve(<void**> &target.data, &target.data_capacity, source.size, 1, LIMIT)
    if source.size:
        memcpy(target.data, source.data, source.size)
    if not source.stride and source.count:
        reserve(<void**> &target.ends, &target.ends_capacity, source.count, 4, LIMIT)
        memcpy(target.ends, source.ends, <size_t> source.count * 4)
    target.stride = source.stride
    target.size = source.size
    target.count = source.count
    return 0


cdef int _rehash(pool_t* pool, uint32_t bucket_count) except -1 nogil:
    cdef uint32_t* buckets = <uint32_t*> allocate(bucket_count, 4)
    cdef uint32_t mask = bucket_count - 1
    cdef uint32_t number, length, bucket
    cdef const uint8_t* item
    for number in range(pool.count):
        item = pool_item(pool, number, &length)
        bucket = <uint32_t> _hash(item, length) & mask
        while buckets[bucket]:
            bucket = (bucket + 1) & mask
        buckets[bucket] = number + 1
    release(pool.buckets)
    pool.buckets = buckets
    pool.bucket_count = bucket_count
    return 0


cdef int _append(pool_t* pool, const void* item, uint32_t length) except -1 nogil:
    reserve(
        <void**> &pool.data, &pool.data_capacity, <uint64_t> pool.size + length, 1, LIMIT
    )
    if not pool.stride:
        reserve(<void**> &pool.ends, &pool.ends_capacity, <uint64_t> pool.count + 1, 4, LIMIT)
        pool.ends[pool.count] = pool.size + length
    if length:
        memcpy(pool.data + pool.size, item, length)
    pool.size += length
    pool.count += 1
    return 0


cdef int pool_intern_one(
    pool_t* pool, const void* item, uint32_t length, uint32_t* number
) except -1 nogil:
    """As ``pool_intern``, by a linear search: for a few items, faster than to hash the whole pool.
    Not for a pool that has buckets."""
    cdef uint32_t i, found_length
    cdef const uint8_t* found
    for i in range(pool.count):
        found = pool_item(pool, i, &found_length)
        if found_length == length and _equal(found, item, length):
            number[0] = i
            return 0
    number[0] = pool.count
    return _append(pool, item, length)


cdef int pool_intern(
    pool_t* pool, const void* item, uint32_t length, uint32_t* number
) except -1 nogil:
    """Set ``number`` to the number of the item, which is added if the pool does not have it."""
    cdef uint32_t bucket, mask, found_length
    cdef uint64_t bucket_count
    cdef const uint8_t* found
    if <uint64_t> pool.count * 2 >= pool.bucket_count:
        bucket_count = 16
        while bucket_count < <uint64_t> pool.count * 3:
            bucket_count *= 2
        _rehash(pool, <uint32_t> bucket_count)
    mask = pool.bucket_count - 1
    bucket = <uint32_t> _hash(<const uint8_t*> item, length) & mask
    while pool.buckets[bucket]:
        found = pool_item(pool, pool.buckets[bucket] - 1, &found_length)
        if found_length == length and _equal(found, item, length):
            number[0] = pool.buckets[bucket] - 1
            return 0
        bucket = (bucket + 1) & mask
    _append(pool, item, length)
    pool.buckets[bucket] = pool.count
    number[0] = pool.count - 1
    return 0


cdef size_t pool_nbytes(const pool_t* pool) noexcept nogil:
    return (
        <size_t> pool.data_capacity
        + <size_t> pool.ends_capacity * 4
        + <size_t> pool.bucket_count * 4
    )
