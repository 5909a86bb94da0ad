"""Every allocation of the core goes through here; see memory.pyx."""

from libc.stdint cimport uint32_t, uint64_t

cdef void* allocate(size_t count, size_t item_size) except NULL nogil
cdef int reserve(
    void** array, uint32_t* capacity, uint64_t needed, size_t item_size, uint32_t limit
) except -1 nogil
cdef void trim(void** array, uint32_t* capacity, uint32_t count, size_t item_size) noexcept nogil
cdef void release(void* array) noexcept nogil
