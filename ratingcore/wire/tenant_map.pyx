"""The tenants that a request names, as they are added: thousands of them, or nearly always one."""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from ..base.memory cimport release, reserve

cdef enum:
    FIRST_CAPACITY = 8
    MAX_CAPACITY = 1 << 30


cdef int _grow(roster_t* roster) except -1:
    """Room for one more tenant."""
    cdef roster_t fresh
    cdef void* tenants = NULL
    cdef uint32_t i
    if 2 * (roster.count + 1) <= roster.capacity:
        return 0
    fresh.count = roster.count
    fresh.capacity = 0
    reserve(
        &tenants,
        &fresh.capacity,
        2 * roster.capacity if roster.capacity else FIRST_CAPACITY,
        sizeof(tenant_t),
        MAX_CAPACITY,
    )
    memset(tenants, 0, fresh.capacity * sizeof(tenant_t))
    fresh.tenants = <tenant_t*> tenants
    for i in range(roster.capacity):
        if roster.tenants[i].id != 0:
            roster_place(&fresh, roster.tenants[i].id)[0] = roster.tenants[i]
    release(roster.tenants)
    roster[0] = fresh
    return 0


cdef tenant_t* roster_add(roster_t* roster, int64_t id) except NULL:
    """The place of this tenant. Where it is new all is 0, and the caller sets its fields, the id
    last: from then on it counts. Other places move."""
    _grow(roster)
    return roster_place(roster, id)


cdef void roster_free(roster_t* roster) noexcept nogil:
    release(roster.tenants)
