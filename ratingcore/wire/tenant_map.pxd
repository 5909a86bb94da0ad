"""The tenants that a request names: an open-addressing hash by id, at most half full."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..index.tables cimport tables_t

cdef struct tenant_t:
    int64_t id                  # 0: a free place
    const tables_t* tables      # NULL: asked for and not there; the request's decks own them
    int64_t revision

cdef struct roster_t:           # all zero: empty
    tenant_t* tenants           # [capacity]
    uint32_t count
    uint32_t capacity           # a power of two, or 0

cdef tenant_t* roster_add(roster_t* roster, int64_t id) except NULL
cdef void roster_free(roster_t* roster) noexcept nogil


cdef inline tenant_t* roster_place(const roster_t* roster, int64_t id) noexcept nogil:
    """Where this tenant is, or would be. The capacity is not 0."""
    cdef uint32_t mask = roster.capacity - 1
    cdef uint32_t i = <uint32_t> ((<uint64_t> id * 0x9E3779B97F4A7C15ULL) >> 32) & mask
    while roster.tenants[i].id != 0 and roster.tenants[i].id != id:
        i = (i + 1) & mask
    return &roster.tenants[i]
