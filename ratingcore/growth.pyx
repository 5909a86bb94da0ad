"""Tables while they grow: room for more nodes, slots and windows, and one more slot at the end."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .memory cimport reserve
from .tables cimport GROUP_BIT, MAX_ROWS, node_t, tables_t, window_t


cdef int reserve_slots(tables_t* made, uint64_t needed) except -1 nogil:
    cdef uint32_t capacity = made.slot_capacity
    if needed <= capacity:
        return 0
    reserve(<void**> &made.rate_ids, &capacity, needed, 8, MAX_ROWS)
    capacity = made.slot_capacity
    reserve(<void**> &made.version_ids, &capacity, needed, 8, MAX_ROWS)
    capacity = made.slot_capacity
    reserve(<void**> &made.terms_of, &capacity, needed, 4, MAX_ROWS)
    made.slot_capacity = capacity
    return 0


cdef int reserve_windows(tables_t* made, uint64_t needed) except -1 nogil:
    if needed <= made.window_capacity:
        return 0
    return reserve(
        <void**> &made.windows, &made.window_capacity, needed, sizeof(window_t), MAX_ROWS
    )


cdef int reserve_nodes(tables_t* made, uint64_t needed) except -1 nogil:
    if needed <= made.node_capacity:
        return 0
    return reserve(<void**> &made.nodes, &made.node_capacity, needed, sizeof(node_t), MAX_ROWS)


cdef int add_slot(
    tables_t* made, int64_t rate_id, int64_t version_id, uint32_t terms
) except -1 nogil:
    cdef uint32_t slot = made.slot_count
    reserve_slots(made, <uint64_t> slot + 1)
    made.rate_ids[slot] = rate_id
    made.version_ids[slot] = version_id
    made.terms_of[slot] = terms
    made.slot_count += 1
    return 0


cdef int add_group(tables_t* made, const window_t* rates, uint32_t count) except -1 nogil:
    """A slot for a prefix with windows; ``rates`` have the latest from first."""
    cdef uint32_t first = made.window_count
    cdef uint32_t i
    reserve_windows(made, <uint64_t> first + count)
    memcpy(&made.windows[first], rates, count * sizeof(window_t))
    for i in range(count):
        made.windows[first + i].slot = made.slot_count
        made.windows[first + i].left = count - i
    add_slot(made, 0, 0, GROUP_BIT | first)
    made.window_count += count
    made.group_count += 1
    return 0
