# cython: cdivision=True
"""From the tables of one deck and a list of changes to the tables of the next.

The base is read in the order in which it was written, subtree by subtree, while the sorted changes
are dealt out to the subtrees they belong to. A subtree without changes is copied as one run of
nodes, one of slots and one of windows, with a constant added to the indexes in them. So the price
of a change is a copy of the base plus a few nodes for each change, whether the base is empty (a
whole deck is built) or large (one rate is changed); and the result does not depend on the way
there, but for the order of terms.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from .memory cimport allocate, release, reserve
from .native cimport invariant
from .tables cimport (
    GROUP_BIT,
    MAX_DIGITS,
    MAX_ROWS,
    NO_SLOT,
    child_count,
    first_window,
    has_child,
    has_slot,
    is_group,
    node_slot_count,
    node_t,
    tables_freeze,
    window_t,
)
from .terms cimport terms_add, terms_compact, terms_copy

cdef struct merge_t:
    tables_t* made               # grows
    const tables_t* base
    const change_t* changes      # sorted by key, then version
    const uint32_t* terms_map    # [additions.terms.count] the number in made of each new item
    uint32_t node_at             # base nodes before this one are done
    uint32_t slot_at             # base slots before this one are done
    uint32_t window_at           # base windows before this one are done
    window_t* group              # scratch: the rates of the prefix at hand; left is 1 for new ones
    uint32_t group_count
    uint32_t group_capacity


cdef void set_key(change_t* change, const uint8_t* digits, uint32_t length) noexcept nogil:
    """Write a prefix of at most MAX_DIGITS ASCII digits."""
    cdef uint32_t i
    change.key_high = 0
    change.key_low = 0
    change.length = <uint8_t> length
    for i in range(length):
        if i < 16:
            change.key_high |= <uint64_t> (digits[i] - c'0' + 1) << (60 - 4 * i)
        else:
            change.key_low |= <uint64_t> (digits[i] - c'0' + 1) << (60 - 4 * (i - 16))


cdef inline uint32_t _digit(const change_t* change, int depth) noexcept nogil:
    """The digit after the first ``depth``; the one of top, which is 0, for -1."""
    if depth < 0:
        return 0
    if depth < 16:
        return (<uint32_t> (change.key_high >> (60 - 4 * depth)) & 15) - 1
    return (<uint32_t> (change.key_low >> (60 - 4 * (depth - 16))) & 15) - 1


cdef int _by_key(const void* left, const void* right) noexcept nogil:
    cdef const change_t* a = <const change_t*> left
    cdef const change_t* b = <const change_t*> right
    if a.key_high != b.key_high:
        return -1 if a.key_high < b.key_high else 1
    if a.key_low != b.key_low:
        return -1 if a.key_low < b.key_low else 1
    if a.version_id != b.version_id:
        return -1 if a.version_id < b.version_id else 1
    return 0


cdef int _by_version(const void* left, const void* right) noexcept nogil:
    cdef const window_t* a = <const window_t*> left
    cdef const window_t* b = <const window_t*> right
    if a.version_id != b.version_id:
        return -1 if a.version_id < b.version_id else 1
    return 0


cdef int _by_latest_from(const void* left, const void* right) noexcept nogil:
    cdef const window_t* a = <const window_t*> left
    cdef const window_t* b = <const window_t*> right
    if a.from_s != b.from_s:
        return 1 if a.from_s < b.from_s else -1
    if a.from_ns != b.from_ns:
        return 1 if a.from_ns < b.from_ns else -1
    return 0


cdef void _sort(change_t* changes, uint32_t count) noexcept nogil:
    """Decks mostly come in order, so look before sorting."""
    cdef uint32_t i
    for i in range(1, count):
        if _by_key(&changes[i - 1], &changes[i]) > 0:
            qsort(changes, count, sizeof(change_t), _by_key)
            return


# --- Growing the tables made --------------------------------------------------------------------


cdef int _reserve_slots(tables_t* made, uint64_t needed) except -1 nogil:
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


cdef int _reserve_windows(tables_t* made, uint64_t needed) except -1 nogil:
    if needed <= made.window_capacity:
        return 0
    return reserve(
        <void**> &made.windows, &made.window_capacity, needed, sizeof(window_t), MAX_ROWS
    )


cdef int _reserve_nodes(tables_t* made, uint64_t needed) except -1 nogil:
    if needed <= made.node_capacity:
        return 0
    return reserve(<void**> &made.nodes, &made.node_capacity, needed, sizeof(node_t), MAX_ROWS)


cdef int _add_slot(
    tables_t* made, int64_t rate_id, int64_t version_id, uint32_t terms
) except -1 nogil:
    cdef uint32_t slot = made.slot_count
    _reserve_slots(made, <uint64_t> slot + 1)
    made.rate_ids[slot] = rate_id
    made.version_ids[slot] = version_id
    made.terms_of[slot] = terms
    made.slot_count += 1
    return 0


cdef int _add_group(tables_t* made, const window_t* rates, uint32_t count) except -1 nogil:
    """A slot for a prefix with windows; ``rates`` have the latest from first."""
    cdef uint32_t first = made.window_count
    cdef uint32_t i
    _reserve_windows(made, <uint64_t> first + count)
    memcpy(&made.windows[first], rates, count * sizeof(window_t))
    for i in range(count):
        made.windows[first + i].slot = made.slot_count
        made.windows[first + i].left = count - i
    _add_slot(made, 0, 0, GROUP_BIT | first)
    made.window_count += count
    made.group_count += 1
    return 0


# --- Copying what did not change ------------------------------------------------------------------


cdef uint32_t _windows_before(const tables_t* base, uint32_t slot) noexcept nogil:
    """How many windows belong to slots before this one."""
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
    """The base's windows up to ``end``; their slots are in made already."""
    cdef tables_t* made = m.made
    cdef uint32_t count = end - m.window_at
    cdef uint32_t i, last_slot
    cdef window_t* window
    if count == 0:
        return 0
    _reserve_windows(made, <uint64_t> made.window_count + count)
    memcpy(
        &made.windows[made.window_count], &m.base.windows[m.window_at], count * sizeof(window_t)
    )
    last_slot = NO_SLOT
    for i in range(made.window_count, made.window_count + count):
        window = &made.windows[i]
        window.slot += slot_delta
        if window.slot != last_slot:
            last_slot = window.slot
            made.terms_of[last_slot] = GROUP_BIT | i
            made.group_count += 1
    made.window_count += count
    m.window_at = end
    return 0


cdef int _copy_slots(merge_t* m, uint32_t end) except -1 nogil:
    """The base's slots up to ``end``, with their windows."""
    cdef tables_t* made = m.made
    cdef uint32_t first = m.slot_at
    cdef size_t count = end - first
    cdef uint32_t delta = made.slot_count - first   # modulo 2**32, like the additions of it
    if count == 0:
        return 0
    _reserve_slots(made, made.slot_count + count)
    memcpy(&made.rate_ids[made.slot_count], &m.base.rate_ids[first], count * 8)
    memcpy(&made.version_ids[made.slot_count], &m.base.version_ids[first], count * 8)
    memcpy(&made.terms_of[made.slot_count], &m.base.terms_of[first], count * 4)
    made.slot_count += <uint32_t> count
    m.slot_at = end
    if m.base.window_count:
        _copy_windows(m, _windows_before(m.base, end), delta)
    return 0


cdef int _copy_subtree(merge_t* m, const node_t* node, node_t* copy) except -1 nogil:
    """All below ``node``, and its own slots; the copy of the node itself goes to its parent."""
    cdef tables_t* made = m.made
    cdef uint32_t node_end = node.children + child_count(node)
    cdef uint32_t slot_end = node.slots + node_slot_count(node)
    cdef uint32_t node_delta = made.node_count - m.node_at   # modulo 2**32
    cdef uint32_t slot_delta = made.slot_count - m.slot_at   # modulo 2**32
    cdef uint32_t count = node_end - m.node_at
    cdef const node_t* source = &m.base.nodes[m.node_at]
    cdef node_t* target
    cdef uint32_t i
    _reserve_nodes(made, <uint64_t> made.node_count + count)
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


# --- Merging what did -------------------------------------------------------------------------------


cdef inline bint _is_empty(const node_t* node) noexcept nogil:
    return not (node.child_bits | node.slot_bits)


cdef int _add_to_group(merge_t* m, const window_t* rate) except -1 nogil:
    if m.group_count == m.group_capacity:
        reserve(
            <void**> &m.group,
            &m.group_capacity,
            <uint64_t> m.group_count + 1,
            sizeof(window_t),
            MAX_ROWS,
        )
    m.group[m.group_count] = rate[0]
    m.group_count += 1
    return 0


cdef int _gather(merge_t* m, uint32_t base_slot, uint32_t first, uint32_t last) except -1 nogil:
    """All rates of one prefix, old and new, into the scratch group; windows of the base are done."""
    cdef const tables_t* base = m.base
    cdef const change_t* change
    cdef window_t rate
    cdef uint32_t i, window
    m.group_count = 0
    if base_slot != NO_SLOT:
        if is_group(base, base_slot):
            window = first_window(base, base_slot)
            m.window_at = window + base.windows[window].left
            for i in range(window, m.window_at):
                rate = base.windows[i]
                rate.left = 0
                _add_to_group(m, &rate)
        else:
            rate.from_s, rate.from_ns, rate.to_s, rate.to_ns = INT64_MIN, 0, INT64_MAX, 0
            rate.rate_id = base.rate_ids[base_slot]
            rate.version_id = base.version_ids[base_slot]
            rate.terms = base.terms_of[base_slot]
            rate.slot, rate.left = 0, 0
            _add_to_group(m, &rate)
    for i in range(first, last):
        change = &m.changes[i]
        if change.kind == PUT:
            rate.from_s, rate.from_ns = change.from_s, change.from_ns
            rate.to_s, rate.to_ns = change.to_s, change.to_ns
            rate.rate_id, rate.version_id = change.rate_id, change.version_id
            rate.terms = m.terms_map[change.terms]
            rate.slot, rate.left = 0, 1
            _add_to_group(m, &rate)
    return 0


cdef int _refuse(const char* what, const change_t* change, int64_t other) except -1 nogil:
    cdef uint8_t digits[MAX_DIGITS]
    cdef int i
    for i in range(change.length):
        digits[i] = <uint8_t> (c'0' + _digit(change, i))
    with gil:
        prefix = digits[: change.length].decode("ascii")
        raise ValueError(f"prefix {prefix!r} has {what.decode()} (version_id {other})")


cdef int _settle(merge_t* m, uint32_t first, uint32_t last) except -1 nogil:
    """Take the removed rates out of the scratch group, order the others, refuse duplicates."""
    cdef window_t* group = m.group
    cdef uint32_t change = first
    cdef uint32_t kept = 0
    cdef uint32_t i
    if m.group_count > 1:
        qsort(group, m.group_count, sizeof(window_t), _by_version)
    for i in range(m.group_count):
        # Both are in the order of versions. A version may be removed and put again.
        while change < last and m.changes[change].version_id < group[i].version_id:
            change += 1
        if not group[i].left:
            while (
                change < last
                and m.changes[change].version_id == group[i].version_id
                and m.changes[change].kind != REMOVE
            ):
                change += 1
            if change < last and m.changes[change].version_id == group[i].version_id:
                continue
        if kept and group[kept - 1].version_id == group[i].version_id:
            _refuse("one version twice", &m.changes[first], group[i].version_id)
        group[kept] = group[i]
        kept += 1
    m.group_count = kept
    if kept > 1:
        qsort(group, kept, sizeof(window_t), _by_latest_from)
    for i in range(1, kept):
        if _by_latest_from(&group[i - 1], &group[i]) == 0:
            _refuse("two rates with one effective_from", &m.changes[first], group[i].version_id)
    return 0


cdef int _merge_prefix(
    merge_t* m, uint32_t base_slot, uint32_t first, uint32_t last
) except -1 nogil:
    """One prefix with changes: a slot in ``made``, or none."""
    cdef window_t* rate
    _gather(m, base_slot, first, last)
    _settle(m, first, last)
    if m.group_count == 0:
        return 0
    rate = m.group
    if m.group_count == 1 and rate.from_s == INT64_MIN and rate.to_s == INT64_MAX:
        return _add_slot(m.made, rate.rate_id, rate.version_id, rate.terms)
    return _add_group(m.made, rate, m.group_count)


cdef void _deal(
    merge_t* m, int depth, uint32_t first, uint32_t last, uint32_t* ending, uint32_t* longer
) noexcept nogil:
    """Cut a node's changes by digit: those that end there are [ending[d], longer[d]), those that go
    on are [longer[d], ending[d + 1])."""
    cdef const change_t* changes = m.changes
    cdef uint32_t i = first
    cdef uint32_t digit
    for digit in range(10):
        ending[digit] = i
        while i < last and _digit(&changes[i], depth) == digit and changes[i].length == depth + 1:
            i += 1
        longer[digit] = i
        while i < last and _digit(&changes[i], depth) == digit:
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
    """The children of a node, and all below them. ``node`` is NULL where the base has none."""
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
    _reserve_nodes(m.made, <uint64_t> m.made.node_count + count)
    if count:
        memcpy(&m.made.nodes[m.made.node_count], children, count * sizeof(node_t))
    m.made.node_count += count
    return 0


cdef int _merge_node(
    merge_t* m, const node_t* node, int depth, uint32_t first, uint32_t last, node_t* made
) except -1 nogil:
    """The node of a prefix of ``depth`` digits, from the base's (or NULL) and its changes.

    ``made`` is an empty node where nothing is left.
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


# --- The whole -------------------------------------------------------------------------------------


cdef int _merge_all(
    merge_t* m, change_t* changes, uint32_t change_count, uint32_t put_count
) except -1 nogil:
    cdef tables_t* made = m.made
    _sort(changes, change_count)
    _reserve_slots(made, <uint64_t> m.base.slot_count + put_count)
    _reserve_nodes(made, m.base.node_count)
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

    ValueError where a prefix would have two rates with one effective_from or one version twice;
    OverflowError where the deck would be too large; MemoryError. ``made`` is then half filled and
    still the caller's to free; the others are as before.
    """
    cdef merge_t m
    cdef uint32_t* terms_map = NULL
    cdef uint32_t i
    cdef uint32_t put_count = 0
    cdef bint removed = False
    memset(&m, 0, sizeof(merge_t))
    try:
        with nogil:
            for i in range(change_count):
                put_count += changes[i].kind == PUT
                removed |= changes[i].kind == REMOVE
            terms_map = <uint32_t*> allocate(additions.terms.count, 4)
            terms_copy(made, base)
            terms_add(made, additions, terms_map)
            m.made, m.base, m.changes, m.terms_map = made, base, changes, terms_map
            _merge_all(&m, changes, change_count, put_count)
        if removed:
            terms_compact(made)
        with nogil:
            tables_freeze(made)
    finally:
        release(terms_map)
        release(m.group)
    return 0
