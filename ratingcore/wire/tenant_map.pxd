"""The tenants of a request: a hash table by id with open addressing, at most half full."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..index.tables cimport tables_t

cdef struct tenant_t:
    int64_t id                  # 0: the slot is free
    const tables_t* tables      # NULL: the tenant does not exist; the request's decks own them
    int64_t revision

cdef struct tenant_map_t:       # all zero: empty
    tenant_t* tenants           # [capacity]
    uint32_t count
    uint32_t capacity           # a power of two, or 0

cdef tenant_t* tenant_map_add(tenant_map_t* tenant_map, int64_t id) except NULL
cdef void tenant_map_free(tenant_map_t* tenant_map) noexcept nogil


cdef inline tenant_t* tenant_map_find(const tenant_map_t* tenant_map, int64_t id) noexcept nogil:
    """The slot of this tenant, or the free slot for it. The capacity is not 0."""
    cdef uint32_t mask = tenant_map.capacity - 1
    cdef uint32_t i = <uint32_t> ((<uint64_t> id * 0x9E3779B97F4A7C15ULL) >> 32) & mask
    while tenant_map.tenants[i].id != 0 and tenant_map.tenants[i].id != id:
        i = (i + 1) & mask
    return &tenant_map.tenants[i]
