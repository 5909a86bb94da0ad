"""Adds tenants to the map. A request nearly always has one tenant, and can have thousands."""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from ..base.memory cimport release, reserve

cdef enum:
    FIRST_CAPACITY = 8
    MAX_CAPACITY = 1 << 30


cdef int _grow(tenant_map_t* tenant_map) except -1:
    """Make room for one more tenant."""
    cdef tenant_map_t fresh
    cdef void* tenants = NULL
    cdef uint32_t i
    if 2 * (tenant_map.count + 1) <= tenant_map.capacity:
        return 0
    fresh.count = tenant_map.count
    fresh.capacity = 0
    reserve(
        &tenants,
        &fresh.capacity,
        2 * tenant_map.capacity if tenant_map.capacity else FIRST_CAPACITY,
        sizeof(tenant_t),
        MAX_CAPACITY,
    )
    memset(tenants, 0, fresh.capacity * sizeof(tenant_t))
    fresh.tenants = <tenant_t*> tenants
    for i in range(tenant_map.capacity):
        if tenant_map.tenants[i].id != 0:
            tenant_map_find(&fresh, tenant_map.tenants[i].id)[0] = tenant_map.tenants[i]
    release(tenant_map.tenants)
    tenant_map[0] = fresh
    return 0


cdef tenant_t* tenant_map_add(tenant_map_t* tenant_map, int64_t id) except NULL:
    """The slot of this tenant. A new one is all 0; the caller sets its fields, the id last, which
    occupies the slot. Pointers to other slots become invalid."""
    _grow(tenant_map)
    return tenant_map_find(tenant_map, id)


cdef void tenant_map_free(tenant_map_t* tenant_map) noexcept nogil:
    release(tenant_map.tenants)
