# cython: cdivision=True
"""Builds the tables of a deck from those of another one and a list of changes.

The base is read in the order in which it was written, subtree by subtree, and the sorted changes
are divided between the subtrees. A subtree without changes is copied as one run of nodes, one of
slots and one of windows, with a constant added to the indexes in them. So a build costs a copy of
the base plus a few nodes for each change, whether the base is empty (a whole deck is built) or
large (one rate is changed). The result does not depend on the sequence of builds, except for the
order of rate terms and prices.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .changes cimport PUT, REMOVE, change_digit, change_t, sort_changes
from .group cimport group_add, group_settle, group_t
from .growth cimport (
    add_group,
    add_slot,
    need_id_tops,
    reserve_nodes,
    reserve_slots,
    reserve_windows,
)
from ..base.memory cimport allocate, release
from ..base.native cimport invariant
from .rate_terms cimport rate_terms_add, rate_terms_compact, rate_terms_copy
from .tables cimport (
    GROUP_BIT,
    NO_SLOT,
    child_count,
    first_window,
    has_child,
    has_slot,
    id_tops_t,
    is_group,
    node_slot_count,
    node_t,
    row_rate_id,
    row_version_id,
    tables_freeze,
    window_t,
)

cdef struct merge_t:
    tables_t* made               # grows
    const tables_t* base
    const change_t* changes      # sorted by key, then version
    const uint32_t* rate_terms_map    # [additions.rate_terms.count] number in made of each new item
    uint32_t node_at             # base nodes before this one are done
    uint32_t slot_at             # base slots before this one are done
    uint32_t window_at           # base windows before this one are done
    group_t group                # scratch: the rates of the current prefix


# --- Copying unchanged subtrees -------------------------------------------------------------------


cdef uint32_t _windows_before(const tables_t* base, uint32_t slot) noexcept nogil:
    """The number of windows of slots before this one."""
    cdef uint32_t low = 0
    cdef uint32_t high = base.window_count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) // 2
        if base.windows[middle].slot < slot:
            low = middle + 1
        else:
            high = middle
    return low


cdef int _copy_windows(merge_t* m, uint32_t end, uint32_t slot_delta) except -1 nogil:
    """Copy the base's windows up to ``end``. Their slots are copied already."""
    cdef tables_t* made = m.made
    cdef uint32_t count = end - m.window_at
    cdef uint32_t i, last_slot
    cdef window_t* window
    if count == 0:
        return 0
    reserve_windows(made, <uint64_t> made.window_count + count)
    memcpy(
        &made.windows[made.window_count], &m.base.windows[m.window_at], count * sizeof(window_t)
    )
    last_slot = NO_SLOT
    for i in range(made.window_count, made.window_count + count):
        window = &made.windows[i]
        window.slot += slot_delta
        if window.slot != last_slot:
            last_slot = window.slot
            made.rate_terms_of[last_slot] = GROUP_BIT | i
            made.group_count += 1
    made.window_count += count
    m.window_at = end
    return 0


cdef int _copy_id_tops(merge_t* m, uint32_t first, size_t count) except -1 nogil:
    cdef tables_t* made = m.made
    if m.base.id_tops != NULL:
        need_id_tops(made)
        memcpy(
            &made.id_tops[made.slot_count], &m.base.id_tops[first], count * sizeof(id_tops_t)
        )
    elif made.id_tops != NULL:
        memset(&made.id_tops[made.slot_count], 0, count * sizeof(id_tops_t))
    return 0


cdef int _copy_slots(merge_t* m, uint32_t end) except -1 nogil:
    """Copy the base's slots up to ``end``, with their windows."""
    cdef tables_t* made = m.made
    cdef uint32_t first = m.slot_at
    cdef size_t count = end - first
    cdef uint32_t delta = made.slot_count - first   # modulo 2**32, as are its additions
    if count == 0:
        return 0
    reserve_slots(made, made.slot_count + count)
    memcpy(&made.rate_ids[made.slot_count], &m.base.rate_ids[first], count * 4)
    memcpy(&made.version_ids[made.slot_count], &m.base.version_ids[first], count * 4)
    memcpy(&made.rate_terms_of[made.slot_count], &m.base.rate_terms_of[first], count * 4)
    _copy_id_tops(m, first, count)
    made.slot_count += <uint32_t> count
    m.slot_at = end
    if m.base.window_count:
        _copy_windows(m, _windows_before(m.base, end), delta)
    return 0


cdef int _copy_subtree(merge_t* m, const node_t* node, node_t* copy) except -1 nogil:
    """Copy all below ``node``, and its slots. Its parent stores the copy of the node itself."""
    cdef tables_t* made = m.made
    cdef uint32_t node_end = node.children + child_count(node)
    cdef uint32_t slot_end = node.slots + node_slot_count(node)
    cdef uint32_t node_delta = made.node_count - m.node_at   # modulo 2**32
    cdef uint32_t slot_delta = made.slot_count - m.slot_at   # modulo 2**32
    cdef uint32_t count = node_end - m.node_at
    cdef const node_t* source = &m.base.nodes[m.node_at]
    cdef node_t* target
    cdef uint32_t i
    reserve_nodes(made, <uint64_t> made.node_count + count)
    target = &made.nodes[made.node_count]
    for i in range(count):
        target[i].child_bits = source[i].child_bits
        target[i].slot_bits = source[i].slot_bits
        target[i].children = source[i].children + node_delta
        target[i].slots = source[i].slots + slot_delta
    made.node_count += count
    m.node_at = node_end
    copy.child_bits = node.child_bits
    copy.slot_bits = node.slot_bits
    copy.children = node.children + node_delta
    copy.slots = node.slots + slot_delta
    return _copy_slots(m, slot_end)


# --- Merging changes ------------------------------------------------------------------------------


cdef inline bint _is_empty(const node_t* node) noexcept nogil:
    return not (node.child_bits | node.slot_bits)


cdef int _gather(merge_t* m, uint32_t base_slot, uint32_t first, uint32_t last) except -1 nogil:
    """Collect the old and new rates of one prefix in the scratch group, past its base windows."""
    cdef const tables_t* base = m.base
    cdef const change_t* change
    cdef window_t rate
    cdef uint32_t i, window
    m.group.count = 0
    if base_slot != NO_SLOT:
        if is_group(base, base_slot):
            window = first_window(base, base_slot)
            m.window_at = window + base.windows[window].left
            for i in range(window, m.window_at):
                rate = base.windows[i]
                rate.left = 0
                group_add(&m.group, &rate)
        else:
            rate.from_s, rate.from_ns, rate.to_s, rate.to_ns = INT64_MIN, 0, INT64_MAX, 0
            rate.rate_id = row_rate_id(base, base_slot)
            rate.version_id = row_version_id(base, base_slot)
            rate.rate_terms = base.rate_terms_of[base_slot]
            rate.slot, rate.left, rate.last_end = 0, 0, 0
            group_add(&m.group, &rate)
    for i in range(first, last):
        change = &m.changes[i]
        if change.kind == PUT:
            rate.from_s, rate.from_ns = change.from_s, change.from_ns
            rate.to_s, rate.to_ns = change.to_s, change.to_ns
            rate.rate_id, rate.version_id = change.rate_id, change.version_id
            rate.rate_terms = m.rate_terms_map[change.rate_terms]
            rate.slot, rate.left, rate.last_end = 0, 1, 0
            group_add(&m.group, &rate)
    return 0


cdef int _merge_prefix(
    merge_t* m, uint32_t base_slot, uint32_t first, uint32_t last
) except -1 nogil:
    """Write one prefix with changes: a slot in ``made``, or none."""
    cdef window_t* rate
    _gather(m, base_slot, first, last)
    group_settle(&m.group, &m.changes[first], last - first)
    if m.group.count == 0:
        return 0
    rate = m.group.rates
    if m.group.count == 1 and rate.from_s == INT64_MIN and rate.to_s == INT64_MAX:
        return add_slot(m.made, rate.rate_id, rate.version_id, rate.rate_terms)
    return add_group(m.made, rate, m.group.count)


cdef void _deal(
    merge_t* m, int depth, uint32_t first, uint32_t last, uint32_t* ending, uint32_t* longer
) noexcept nogil:
    """Divide a node's changes by digit: those of the prefixes that end with it are
    [ending[d], longer[d]), those of longer prefixes are [longer[d], ending[d + 1])."""
    cdef const change_t* changes = m.changes
    cdef uint32_t i = first
    cdef uint32_t digit
    for digit in range(10):
        ending[digit] = i
        while (
            i < last
            and change_digit(&changes[i], depth) == digit
            and changes[i].length == depth + 1
        ):
            i += 1
        longer[digit] = i
        while i < last and change_digit(&changes[i], depth) == digit:
            i += 1
    ending[10] = i
    invariant(i == last)


cdef int _merge_children(
    merge_t* m,
    const node_t* node,
    int depth,
    const uint32_t* ending,
    const uint32_t* longer,
    node_t* made,
) except -1 nogil:
    """Write the children of a node and all below them. ``node`` is NULL if the base has none."""
    cdef node_t children[10]
    cdef const node_t* child
    cdef uint32_t base_child = node.children if node != NULL else 0
    cdef uint32_t count = 0
    cdef uint32_t digit
    for digit in range(10):
        child = NULL
        if node != NULL and has_child(node, digit):
            child = &m.base.nodes[base_child]
            base_child += 1
        if longer[digit] < ending[digit + 1]:
            _merge_node(m, child, depth + 1, longer[digit], ending[digit + 1], &children[count])
            if _is_empty(&children[count]):
                continue
        elif child != NULL:
            _copy_subtree(m, child, &children[count])
        else:
            continue
        made.child_bits |= <uint16_t> (1 << digit)
        count += 1
    if node != NULL:
        m.node_at = base_child
    made.children = m.made.node_count
    reserve_nodes(m.made, <uint64_t> m.made.node_count + count)
    if count:
        memcpy(&m.made.nodes[m.made.node_count], children, count * sizeof(node_t))
    m.made.node_count += count
    return 0


cdef int _merge_node(
    merge_t* m, const node_t* node, int depth, uint32_t first, uint32_t last, node_t* made
) except -1 nogil:
    """Make the node of a prefix of ``depth`` digits from the base's (or NULL) and its changes.

    ``made`` is an empty node if no prefix is left.
    """
    cdef uint32_t ending[11]
    cdef uint32_t longer[10]
    cdef uint32_t slot = NO_SLOT
    cdef uint32_t digit, made_slot
    cdef bint had
    made.child_bits = made.slot_bits = 0
    _deal(m, depth, first, last, ending, longer)
    _merge_children(m, node, depth, ending, longer, made)
    made.slots = m.made.slot_count
    if node != NULL:
        slot = node.slots
        invariant(m.slot_at == slot)
    for digit in range(10):
        had = node != NULL and has_slot(node, digit)
        made_slot = m.made.slot_count
        if ending[digit] < longer[digit]:
            _merge_prefix(m, slot if had else NO_SLOT, ending[digit], longer[digit])
            m.slot_at += had
        elif had:
            _copy_slots(m, slot + 1)
        slot += had
        if m.made.slot_count > made_slot:
            made.slot_bits |= <uint16_t> (1 << digit)
    return 0


# --- The build ------------------------------------------------------------------------------------


cdef int _merge_all(
    merge_t* m, change_t* changes, uint32_t change_count, uint32_t put_count
) except -1 nogil:
    cdef tables_t* made = m.made
    sort_changes(changes, change_count)
    reserve_slots(made, <uint64_t> m.base.slot_count + put_count)
    reserve_nodes(made, m.base.node_count)
    _merge_node(m, &m.base.top, -1, 0, change_count, &made.top)
    invariant(m.node_at == m.base.node_count)
    invariant(m.slot_at == m.base.slot_count and m.window_at == m.base.window_count)
    return 0


cdef int merge(
    tables_t* made,
    const tables_t* base,
    change_t* changes,
    uint32_t change_count,
    const additions_t* additions,
) except -1:
    """Fill ``made``, which is new and empty; sorts ``changes``. Releases the GIL.

    ValueError if a prefix has two rates with one effective_from or one version twice;
    OverflowError if the deck is too large; MemoryError. After an error ``made`` is incomplete, and
    the caller frees it; the others are unchanged.
    """
    cdef merge_t m
    cdef uint32_t* rate_terms_map = NULL
    cdef uint32_t i
    cdef uint32_t put_count = 0
    cdef bint removed = False
    memset(&m, 0, sizeof(merge_t))
    try:
        with nogil:
            for i in range(change_count):
                put_count += changes[i].kind == PUT
                removed |= changes[i].kind == REMOVE
            rate_terms_map = <uint32_t*> allocate(additions.rate_terms.count, 4)
            rate_terms_copy(made, base)
            rate_terms_add(made, additions, rate_terms_map)
            m.made, m.base, m.changes, m.rate_terms_map = made, base, changes, rate_terms_map
            _merge_all(&m, changes, change_count, put_count)
        if removed:
            rate_terms_compact(made)
        with nogil:
            tables_freeze(made)
    finally:
        release(rate_terms_map)
        release(m.group.rates)
    return 0
