"""The tables of a deck as a whole: making, completing, measuring, freeing, and prefixes of slots.

merge.pyx builds their contents; match.pxd reads them.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from ..base.memory cimport allocate, release, reserve, trim
from ..pricing.money cimport HALF_UP, MIN_COST_DECIMALS, set_rounding
from ..base.native cimport popcount10
from ..base.pool cimport pool_free, pool_freeze, pool_init, pool_nbytes


cdef tables_t* tables_new() except NULL:
    """The tables of an empty deck."""
    cdef node_t* empty = <node_t*> allocate(1, sizeof(node_t))
    cdef tables_t* tables
    try:
        tables = <tables_t*> allocate(1, sizeof(tables_t))
    except MemoryError:
        release(empty)
        raise
    tables.nodes = empty
    tables.node_capacity = 1
    pool_init(&tables.rate_terms, sizeof(rate_terms_t))
    pool_init(&tables.terms, sizeof(terms_t))
    pool_init(&tables.intervals, 0)
    pool_init(&tables.destinations, 0)
    set_rounding(&tables.rounding, HALF_UP, MIN_COST_DECIMALS)
    return tables


cdef void tables_free(tables_t* tables) noexcept nogil:
    if tables == NULL:
        return
    if tables.is_mapped:
        release(tables)
        return
    release(tables.nodes)
    release(tables.jumps)
    release(tables.rate_ids)
    release(tables.version_ids)
    release(tables.id_tops)
    release(tables.rate_terms_of)
    release(tables.windows)
    pool_free(&tables.rate_terms)
    pool_free(&tables.terms)
    pool_free(&tables.intervals)
    pool_free(&tables.destinations)
    release(tables)


cdef void _fill_jumps(
    tables_t* tables, const node_t* node, uint32_t depth, uint32_t first, uint32_t best
) noexcept nogil:
    """Write the entries, from ``first`` on, of all numbers that reach ``node`` after ``depth``
    digits."""
    cdef uint32_t span = 1
    cdef uint32_t child = node.children
    cdef uint32_t slot = node.slots
    cdef uint32_t digit, _i, here
    for _i in range(tables.jump_digits - depth - 1):
        span *= 10
    for digit in range(10):
        here = best
        if has_slot(node, digit):
            here = slot << LENGTH_BITS | (depth + 1)
            slot += 1
        if has_child(node, digit):
            if span > 1:
                _fill_jumps(tables, &tables.nodes[child], depth + 1, first, here)
            else:
                tables.jumps[first].node = child
                tables.jumps[first].best = here
            child += 1
        else:
            for i in range(first, first + span):
                tables.jumps[i].node = tables.node_count
                tables.jumps[i].best = here
        first += span


cdef int tables_freeze(tables_t* tables) except -1 nogil:
    """The last step of a build: free spare room and add the direct table."""
    cdef uint32_t capacity
    cdef uint64_t entries = 1
    cdef uint32_t best = <uint32_t> NO_SLOT << LENGTH_BITS
    reserve(
        <void**> &tables.nodes,
        &tables.node_capacity,
        <uint64_t> tables.node_count + 1,
        sizeof(node_t),
        MAX_ROWS + 1,
    )
    memset(&tables.nodes[tables.node_count], 0, sizeof(node_t))
    trim(<void**> &tables.nodes, &tables.node_capacity, tables.node_count + 1, sizeof(node_t))
    capacity = tables.slot_capacity
    trim(<void**> &tables.rate_ids, &capacity, tables.slot_count, 4)
    capacity = tables.slot_capacity
    trim(<void**> &tables.version_ids, &capacity, tables.slot_count, 4)
    if tables.id_tops != NULL:
        capacity = tables.slot_capacity
        trim(<void**> &tables.id_tops, &capacity, tables.slot_count, sizeof(id_tops_t))
    trim(<void**> &tables.rate_terms_of, &tables.slot_capacity, tables.slot_count, 4)
    trim(<void**> &tables.windows, &tables.window_capacity, tables.window_count, sizeof(window_t))
    pool_freeze(&tables.rate_terms)
    pool_freeze(&tables.terms)
    pool_freeze(&tables.intervals)
    pool_freeze(&tables.destinations)
    while (
        tables.jump_digits < MAX_JUMP_DIGITS
        and entries * 10 * sizeof(jump_t) <= <uint64_t> tables.slot_count * JUMP_BYTES_A_SLOT
    ):
        entries *= 10
        tables.jump_digits += 1
    if tables.jump_digits == 0 or not tables.top.child_bits:
        tables.jump_digits = 0
        return 0
    tables.jumps = <jump_t*> allocate(entries, sizeof(jump_t))
    if tables.top.slot_bits:
        best = tables.top.slots << LENGTH_BITS
    _fill_jumps(tables, &tables.nodes[tables.top.children], 0, 0, best)
    return 0


cdef size_t tables_nbytes(const tables_t* tables) noexcept nogil:
    """All memory that the tables hold."""
    cdef size_t jumps = 1
    cdef uint32_t _i
    for _i in range(tables.jump_digits):
        jumps *= 10
    return (
        sizeof(tables_t)
        + tables.node_capacity * sizeof(node_t)
        + (jumps * sizeof(jump_t) if tables.jump_digits else 0)
        + <size_t> tables.slot_capacity * (12 if tables.id_tops == NULL else 20)
        + tables.window_capacity * sizeof(window_t)
        + pool_nbytes(&tables.rate_terms)
        + pool_nbytes(&tables.terms)
        + pool_nbytes(&tables.intervals)
        + pool_nbytes(&tables.destinations)
    )


cdef int slot_prefix(const tables_t* tables, uint32_t slot, uint8_t* digits) noexcept nogil:
    """Write the prefix of a slot as ASCII digits. Returns its length. The inverse of a match.

    In post-order, the slots of a child's subtree end with the child's own.
    """
    cdef const node_t* node = &tables.top
    cdef const node_t* child
    cdef int length = -1   # the first digit is the one of top, which is no digit of the prefix
    cdef uint32_t digit, rank
    while True:
        rank = 0
        if node.slots <= slot < node.slots + node_slot_count(node):
            for digit in range(10):
                if has_slot(node, digit):
                    if node.slots + rank == slot:
                        break
                    rank += 1
            if length >= 0:
                digits[length] = c'0' + digit
            return length + 1
        child = &tables.nodes[node.children]
        for digit in range(10):
            if has_child(node, digit):
                if slot < child.slots + node_slot_count(child):
                    break
                child += 1
        if length >= 0:
            digits[length] = c'0' + digit
        length += 1
        node = child


cdef int slots_on_path(
    const tables_t* tables,
    const uint8_t* digits,
    uint32_t count,
    uint32_t* slots,
    uint32_t* lengths,
) noexcept nogil:
    """Write the slots and lengths of all prefixes of these digits, the shortest first. Returns how
    many there are."""
    cdef const node_t* node = &tables.top
    cdef uint32_t digit = 0    # of top; then those of the number
    cdef uint32_t position = 0  # digits of the number that are passed
    cdef int found = 0
    cdef uint32_t below
    while True:
        below = (<uint32_t> 1 << digit) - 1
        if has_slot(node, digit):
            slots[found] = node.slots + popcount10(node.slot_bits & below)
            lengths[found] = position
            found += 1
        if position == count or not has_child(node, digit):
            return found
        node = &tables.nodes[node.children + popcount10(node.child_bits & below)]
        digit = digits[position] & 15
        position += 1


cdef uint32_t _rows_below(
    const tables_t* tables, const node_t* node, uint32_t* rows, uint32_t count
) noexcept nogil:
    cdef uint32_t child = node.children
    cdef uint32_t slot = node.slots
    cdef uint32_t digit, first, i
    for digit in range(10):
        if has_slot(node, digit):
            if is_group(tables, slot):
                first = first_window(tables, slot)
                for i in range(tables.windows[first].left):
                    rows[count] = tables.slot_count + first + i
                    count += 1
            else:
                rows[count] = slot
                count += 1
            slot += 1
        if has_child(node, digit):
            count = _rows_below(tables, &tables.nodes[child], rows, count)
            child += 1
    return count


cdef uint32_t rows_in_order(const tables_t* tables, uint32_t* rows) noexcept nogil:
    """Write all row_count rows by prefix, of one prefix the latest effective_from first."""
    return _rows_below(tables, &tables.top, rows, 0)
