"""The tables of a deck as a whole: made, completed, measured, read backwards, and freed.

Who builds their contents is merge.pyx; who reads them is match.pxd.
"""

from libc.stdint cimport uint8_t, uint32_t

from .memory cimport allocate, release, trim
from .money cimport HALF_UP
from .native cimport popcount10
from .pool cimport pool_free, pool_freeze, pool_init, pool_nbytes


cdef tables_t* tables_new() except NULL nogil:
    """Empty tables, to be given to tables_free whatever becomes of them."""
    cdef tables_t* tables = <tables_t*> allocate(1, sizeof(tables_t))
    pool_init(&tables.terms, sizeof(terms_t))
    pool_init(&tables.intervals, 0)
    pool_init(&tables.destinations, 0)
    tables.rounding = HALF_UP
    return tables


cdef void tables_free(tables_t* tables) noexcept nogil:
    if tables == NULL:
        return
    release(tables.nodes)
    release(tables.jumps)
    release(tables.rate_ids)
    release(tables.version_ids)
    release(tables.terms_of)
    release(tables.windows)
    pool_free(&tables.terms)
    pool_free(&tables.intervals)
    pool_free(&tables.destinations)
    release(tables)


cdef void _fill_jumps(
    tables_t* tables, const node_t* node, uint32_t depth, uint32_t first, uint32_t best
) noexcept nogil:
    """Entries from ``first`` on, for all numbers that reach ``node`` with their first ``depth``."""
    cdef uint32_t span = 1
    cdef uint32_t child = node.children
    cdef uint32_t slot = node.slots
    cdef uint32_t digit, i, here, bit
    for i in range(tables.jump_digits - depth - 1):
        span *= 10
    for digit in range(10):
        bit = 1 << digit
        here = best
        if node.bits & bit << SLOT_SHIFT:
            here = slot << LENGTH_BITS | (depth + 1)
            if node.bits & bit << GROUP_SHIFT:
                here = JUMP_GROUP
            slot += 1
        if node.bits & bit:
            if span > 1:
                _fill_jumps(tables, &tables.nodes[child], depth + 1, first, here)
            else:
                tables.jumps[first].node = child
                tables.jumps[first].best = here
            child += 1
        else:
            for i in range(first, first + span):
                tables.jumps[i].node = NO_NODE
                tables.jumps[i].best = here
        first += span


cdef int tables_freeze(tables_t* tables) except -1 nogil:
    """The last step of building: give back spare room and add the direct table."""
    cdef uint32_t capacity
    cdef uint64_t entries = 1
    cdef uint32_t best = JUMP_NOTHING
    trim(<void**> &tables.nodes, &tables.node_capacity, tables.node_count, sizeof(node_t))
    capacity = tables.slot_capacity
    trim(<void**> &tables.rate_ids, &capacity, tables.slot_count, 8)
    capacity = tables.slot_capacity
    trim(<void**> &tables.version_ids, &capacity, tables.slot_count, 8)
    trim(<void**> &tables.terms_of, &tables.slot_capacity, tables.slot_count, 4)
    trim(<void**> &tables.windows, &tables.window_capacity, tables.window_count, sizeof(window_t))
    pool_freeze(&tables.terms)
    pool_freeze(&tables.intervals)
    pool_freeze(&tables.destinations)
    while (
        tables.jump_digits < MAX_JUMP_DIGITS
        and entries * 10 * sizeof(jump_t) <= <uint64_t> tables.slot_count * JUMP_BYTES_A_SLOT
    ):
        entries *= 10
        tables.jump_digits += 1
    if tables.jump_digits == 0 or not tables.top.bits & CHILD_BITS:
        tables.jump_digits = 0
        return 0
    tables.jumps = <jump_t*> allocate(entries, sizeof(jump_t))
    if tables.top.bits >> GROUP_SHIFT:
        best = JUMP_GROUP
    elif tables.top.bits >> SLOT_SHIFT:
        best = tables.top.slots << LENGTH_BITS
    _fill_jumps(tables, &tables.nodes[tables.top.children], 0, 0, best)
    return 0


cdef size_t tables_nbytes(const tables_t* tables) noexcept nogil:
    """All memory that the tables hold."""
    cdef size_t jumps = 1
    cdef uint32_t i
    for i in range(tables.jump_digits):
        jumps *= 10
    return (
        sizeof(tables_t)
        + tables.node_capacity * sizeof(node_t)
        + (jumps * sizeof(jump_t) if tables.jump_digits else 0)
        + <size_t> tables.slot_capacity * 20
        + tables.window_capacity * sizeof(window_t)
        + pool_nbytes(&tables.terms)
        + pool_nbytes(&tables.intervals)
        + pool_nbytes(&tables.destinations)
    )


cdef int slot_prefix(const tables_t* tables, uint32_t slot, uint8_t* digits) noexcept nogil:
    """Write the prefix of a slot as ASCII digits; its length. The inverse of a match.

    Post-order helps: the slots of a child's subtree end with the child's own.
    """
    cdef const node_t* node = &tables.top
    cdef const node_t* child
    cdef int length = -1   # the first digit is the one of top, which is no digit of the prefix
    cdef uint32_t digit, count, rank
    while True:
        count = popcount10(node.bits >> SLOT_SHIFT & CHILD_BITS)
        rank = 0
        if node.slots <= slot < node.slots + count:
            for digit in range(10):
                if node.bits & (<uint32_t> 1 << (SLOT_SHIFT + digit)):
                    if node.slots + rank == slot:
                        break
                    rank += 1
            if length >= 0:
                digits[length] = c'0' + digit
            return length + 1
        child = &tables.nodes[node.children]
        for digit in range(10):
            if node.bits & (<uint32_t> 1 << digit):
                if slot < child.slots + popcount10(child.bits >> SLOT_SHIFT & CHILD_BITS):
                    break
                child += 1
        if length >= 0:
            digits[length] = c'0' + digit
        length += 1
        node = child


cdef int slots_on_path(
    const tables_t* tables, const uint8_t* digits, uint32_t count, uint32_t* slots
) noexcept nogil:
    """Write the slots of all prefixes of these ASCII digits, the shortest first; how many."""
    cdef const node_t* node = &tables.top
    cdef uint32_t digit = 0    # of top; then those of the number
    cdef uint32_t position = 0
    cdef int found = 0
    cdef uint32_t below
    while True:
        below = (<uint32_t> 1 << digit) - 1
        if node.bits & (<uint32_t> 1 << (SLOT_SHIFT + digit)):
            slots[found] = node.slots + popcount10(node.bits >> SLOT_SHIFT & below)
            found += 1
        if position == count or not node.bits & (<uint32_t> 1 << digit):
            return found
        node = &tables.nodes[node.children + popcount10(node.bits & below)]
        digit = digits[position] - c'0'
        position += 1


cdef uint32_t _rows_below(
    const tables_t* tables, const node_t* node, uint32_t* rows, uint32_t count
) noexcept nogil:
    cdef uint32_t child = node.children
    cdef uint32_t slot = node.slots
    cdef uint32_t digit, first, i
    for digit in range(10):
        if node.bits & (<uint32_t> 1 << (SLOT_SHIFT + digit)):
            if tables.terms_of[slot] & GROUP_BIT:
                first = tables.terms_of[slot] & ~<uint32_t> GROUP_BIT
                for i in range(tables.windows[first].left):
                    rows[count] = tables.slot_count + first + i
                    count += 1
            else:
                rows[count] = slot
                count += 1
            slot += 1
        if node.bits & (<uint32_t> 1 << digit):
            count = _rows_below(tables, &tables.nodes[child], rows, count)
            child += 1
    return count


cdef uint32_t rows_in_order(const tables_t* tables, uint32_t* rows) noexcept nogil:
    """Write all row_count rows by prefix, of one prefix the latest effective_from first."""
    return _rows_below(tables, &tables.top, rows, 0)
