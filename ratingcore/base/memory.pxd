"""All allocations of the core; see memory.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "Python.h":
    # Declared with a pointer without a reference count, so that it needs no GIL.
    char* PyBytes_AS_STRING(PyObject* data) nogil

cdef void* allocate(size_t count, size_t item_size) except NULL nogil
cdef int reserve(
    void** array, uint32_t* capacity, uint64_t needed, size_t item_size, uint32_t limit
) except -1 nogil
cdef void trim(void** array, uint32_t* capacity, uint32_t count, size_t item_size) noexcept nogil
cdef void release(void* array) noexcept nogil
cdef int resize_bytes(PyObject** data, Py_ssize_t size) except -1


cdef inline uint8_t* bytes_data(PyObject* data) noexcept nogil:
    """The contents of a bytes object."""
    return <uint8_t*> PyBytes_AS_STRING(data)
