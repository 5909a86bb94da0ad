"""Allocation: checked for overflow, limited, counted, and able to fail on demand.

Each block has one owner, which frees it with ``release``. ``fail_allocation`` and ``live_blocks``
are for tests.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

from .native cimport add

cdef extern from "Python.h":
    # Declared with pointers without a reference count.
    PyObject* PyBytes_FromStringAndSize(const char* data, Py_ssize_t size) except NULL
    int _PyBytes_Resize(PyObject** data, Py_ssize_t size) except -1
    void Py_CLEAR(PyObject* object_)

cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    static inline void rc_trim_heap(void) { malloc_trim(0); }
    #else
    static inline void rc_trim_heap(void) {}
    #endif

    #ifdef __linux__
    #include <sys/mman.h>
    #include <unistd.h>
    static inline int rc_drop_pages(size_t first, size_t end)
    {
        return madvise((void *)first, end - first, MADV_DONTNEED);
    }
    #else
    static inline int rc_drop_pages(size_t first, size_t end) { return 0; }
    #endif

    #if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
    #if __GLIBC_PREREQ(2, 33)
    #define RC_HAS_MALLINFO2
    #endif
    #endif

    #ifdef RC_HAS_MALLINFO2
    /* Blocks from 64 KiB on could get a mapping of their own. */
    #define RC_LARGEST_BLOCK 65520
    #define RC_CACHED_BYTES (1 << 20)
    /* Up to this size the free blocks have lists by their size. */
    #define RC_LARGEST_EXACT 1032
    #define RC_SIZE_STEP 16
    static size_t rc_use_up_heap(void)
    {
        size_t used = 0, size = RC_LARGEST_BLOCK;
        malloc_trim(0);
        struct mallinfo2 info = mallinfo2();
        /* A limit, should an allocator count otherwise. Some more blocks are in a cache of the
           thread, which does not count them as free. */
        size_t limit = info.fordblks - info.keepcost + RC_CACHED_BYTES;
        /* Above this address the heap has never been used. */
        char *end = (char *)sbrk(0) - info.keepcost;
        while (size > RC_SIZE_STEP && used < limit) {
            char *block = malloc(size);
            if (block != NULL && block < end) {
                used += malloc_usable_size(block) + sizeof(size_t);
                continue;
            }
            free(block);
            size = size > RC_LARGEST_EXACT ? size / 2 : size - RC_SIZE_STEP;
        }
        return used;
    }
    #else
    static inline size_t rc_use_up_heap(void) { return 0; }
    #endif
    """
    void rc_trim_heap() nogil
    int rc_drop_pages(size_t first, size_t end) nogil
    size_t rc_use_up_heap() nogil

cdef int64_t blocks = 0   # allocated and not released, by all threads

# How many allocations succeed before one fails. Below 0: none fails on purpose.
cdef int64_t allocations_left = -1


cdef bint _refused() noexcept nogil:
    global allocations_left
    if allocations_left < 0:
        return False
    allocations_left -= 1
    return allocations_left < 0


cdef void* allocate(size_t count, size_t item_size) except NULL nogil:
    """A zeroed block. calloc checks the product for overflow. Never NULL, even for a count of 0."""
    cdef void* block = NULL
    if not _refused():
        block = calloc(count if count > 0 else 1, item_size)
    if block == NULL:
        with gil:
            raise MemoryError
    add(&blocks, 1)
    return block


cdef int reserve(
    void** array, uint32_t* capacity, uint64_t needed, size_t item_size, uint32_t limit
) except -1 nogil:
    """Make room for ``needed`` items. New memory is not zeroed. OverflowError above ``limit``.

    The first reservation is exact, because most callers know the size; later ones grow by half.
    """
    cdef uint64_t wanted
    cdef void* block = NULL
    if needed <= capacity[0]:
        return 0
    if needed > limit:
        with gil:
            raise OverflowError(f"a deck has room for {limit} of these, not for {needed}")
    wanted = capacity[0] + (capacity[0] >> 1)
    if wanted > limit:
        wanted = limit
    if wanted < needed:
        wanted = needed
    if not _refused():
        block = realloc(array[0], wanted * item_size)
    if block == NULL:
        with gil:
            raise MemoryError
    if array[0] == NULL:
        add(&blocks, 1)
    array[0] = block
    capacity[0] = <uint32_t> wanted
    return 0


cdef void trim(void** array, uint32_t* capacity, uint32_t count, size_t item_size) noexcept nogil:
    """Free the unused room. If that fails, the block is unchanged."""
    cdef void* block
    if count == 0:
        release(array[0])
        array[0] = NULL
        capacity[0] = 0
    elif count < capacity[0]:
        block = realloc(array[0], count * item_size)
        if block != NULL:
            array[0] = block
            capacity[0] = count


cdef void release(void* array) noexcept nogil:
    if array != NULL:
        add(&blocks, -1)
        free(array)


cdef int resize_bytes(PyObject** data, Py_ssize_t size) except -1:
    """Make a bytes object with undefined contents, or change the size of one that has no other
    reference. After a failure the object is freed, and ``data`` is NULL."""
    if _refused():
        Py_CLEAR(data[0])
        raise MemoryError
    if data[0] == NULL:
        data[0] = PyBytes_FromStringAndSize(NULL, size)
    else:
        _PyBytes_Resize(data, size)
    return 0


def trim_heap():
    """Return the freed memory of this process to the system. The C library keeps what a large deck
    needed while it was built. Releases the GIL."""
    with nogil:
        rc_trim_heap()


def use_up_heap():
    """Allocate what is free between the blocks of the C library's heap, and never free it. Returns
    the number of bytes, 0 where the C library does not tell what is free. New blocks then get pages
    of their own. Call it in a process with one thread."""
    return rc_use_up_heap()


def drop_pages(size_t first, size_t end):
    """Let the system take back the memory from address ``first`` to ``end``, without a copy: only
    for unchanged pages of a file, which the next access reads again. OSError."""
    if rc_drop_pages(first, end) != 0:
        raise OSError("these pages cannot be given back")


def fail_allocation(after=None):
    """For tests: let ``after`` more allocations succeed and the next one fail, once. None: no
    allocation fails.

    Returns how many successes were left of the previous call: -1 if the failure has happened, or if
    none was set.
    """
    global allocations_left
    cdef int64_t before = allocations_left
    allocations_left = -1 if after is None else after
    return before


def live_blocks():
    """For tests: the number of blocks that are allocated and not released."""
    return add(&blocks, 0)
