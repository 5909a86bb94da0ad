"""Allocation: checked for overflow, capped, counted, and made to fail on demand.

Every block has one owner, who frees it with ``release``. Tests ask for a failure with
``fail_allocation`` and how many blocks there are with ``live_blocks``; nothing else knows of them.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

from .native cimport add

cdef extern from "Python.h":
    # As they are, with pointers that nobody counts.
    PyObject* PyBytes_FromStringAndSize(const char* data, Py_ssize_t size) except NULL
    int _PyBytes_Resize(PyObject** data, Py_ssize_t size) except -1
    void Py_CLEAR(PyObject* object_)

cdef int64_t blocks = 0   # there are now, of all threads

# Allocations that still succeed before one fails; below 0: none fails on purpose.
cdef int64_t allocations_left = -1


cdef bint _refused() noexcept nogil:
    global allocations_left
    if allocations_left < 0:
        return False
    allocations_left -= 1
    return allocations_left < 0


cdef void* allocate(size_t count, size_t item_size) except NULL nogil:
    """A zeroed block; calloc itself checks the product. Never NULL, also for a count of 0."""
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
    """Make room for ``needed`` items; what is new is not zeroed. Past ``limit``: OverflowError.

    The first reservation is exact, since the first one knows best; later ones grow by half.
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
    """Give back the room that is not used. Where that fails, the block stays as it is."""
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
    """Make a bytes object, whose contents are not set, or change the size of one that nobody else
    has seen. After a failure there is none: ``data`` is NULL."""
    if _refused():
        Py_CLEAR(data[0])
        raise MemoryError
    if data[0] == NULL:
        data[0] = PyBytes_FromStringAndSize(NULL, size)
    else:
        _PyBytes_Resize(data, size)
    return 0


def fail_allocation(after=None):
    """For tests: let ``after`` more allocations succeed and the next one fail, once; None: none.

    Returns how many were left of the number given before: -1 where the failure has happened, or
    where none was asked for.
    """
    global allocations_left
    cdef int64_t before = allocations_left
    allocations_left = -1 if after is None else after
    return before


def live_blocks():
    """For tests: how many blocks are allocated and not released."""
    return add(&blocks, 0)
