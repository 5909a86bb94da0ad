"""Adding to tables: room for more nodes, slots and windows, and a slot at the end."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ..base.memory cimport allocate, reserve
from ..base.native cimport unlikely
from .tables cimport GROUP_BIT, MAX_ROWS, block_size, id_tops_t, node_t, tables_t, window_t


cdef int reserve_slots(tables_t* made, uint64_t needed) except -1 nogil:
    cdef uint32_t capacity = made.slot_capacity
    if needed <= capacity:
        return 0
    reserve(<void**> &made.rate_ids, &capacity, needed, 4, MAX_ROWS)
    capacity = made.slot_capacity
    reserve(<void**> &made.version_ids, &capacity, needed, 4, MAX_ROWS)
    if made.id_tops != NULL:
        capacity = made.slot_capacity
        reserve(<void**> &made.id_tops, &capacity, needed, sizeof(id_tops_t), MAX_ROWS)
    capacity = made.slot_capacity
    reserve(<void**> &made.rate_terms_of, &capacity, needed, 4, MAX_ROWS)
    made.slot_capacity = capacity
    return 0


cdef int need_id_tops(tables_t* made) except -1 nogil:
    """Store the upper halves of the ids from here on. They are 0 for the slots so far."""
    if made.id_tops == NULL:
        made.id_tops = <id_tops_t*> allocate(made.slot_capacity, sizeof(id_tops_t))
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
    tables_t* made, int64_t rate_id, int64_t version_id, uint32_t rate_terms
) except -1 nogil:
    cdef uint32_t slot = made.slot_count
    reserve_slots(made, <uint64_t> slot + 1)
    if unlikely((<uint64_t> rate_id | <uint64_t> version_id) >> 32 != 0):
        need_id_tops(made)
    if unlikely(made.id_tops != NULL):
        made.id_tops[slot].rate = <uint32_t> (<uint64_t> rate_id >> 32)
        made.id_tops[slot].version = <uint32_t> (<uint64_t> version_id >> 32)
    made.rate_ids[slot] = <uint32_t> rate_id
    made.version_ids[slot] = <uint32_t> version_id
    made.rate_terms_of[slot] = rate_terms
    made.slot_count += 1
    return 0


cdef bint _ends_later(const window_t* window, const window_t* other) noexcept nogil:
    return window.to_s > other.to_s or (window.to_s == other.to_s and window.to_ns > other.to_ns)


cdef void _find_last_ends(window_t* group, uint32_t count) noexcept nogil:
    """Set ``last_end`` of all windows: that of a block from the smaller blocks that make it up."""
    cdef window_t* window
    cdef const window_t* part
    cdef uint32_t number, size
    for number in range(count, 0, -1):
        window = &group[number - 1]
        window.last_end = 0
        size = 1
        while size < block_size(number) and number + size <= count:
            part = window + size
            if _ends_later(part + part.last_end, window + window.last_end):
                window.last_end = size + part.last_end
            size *= 2


cdef int add_group(tables_t* made, const window_t* rates, uint32_t count) except -1 nogil:
    """Add a slot for a prefix with windows. ``rates`` are sorted, the latest start first."""
    cdef uint32_t first = made.window_count
    cdef uint32_t i
    reserve_windows(made, <uint64_t> first + count)
    memcpy(&made.windows[first], rates, count * sizeof(window_t))
    for i in range(count):
        made.windows[first + i].slot = made.slot_count
        made.windows[first + i].left = count - i
    _find_last_ends(&made.windows[first], count)
    add_slot(made, 0, 0, GROUP_BIT | first)
    made.window_count += count
    made.group_count += 1
    return 0
