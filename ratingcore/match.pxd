"""Longest-prefix matching of one number: free functions over constant tables (rating rule 3).

They are inline, so that the single call and the batch compile them into their own loops.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t

from .native cimport invariant, popcount10, unlikely
from .tables cimport (
    CHILD_BITS,
    GROUP_BIT,
    GROUP_SHIFT,
    JUMP_GROUP,
    JUMP_NOTHING,
    LENGTH_BITS,
    NO_NODE,
    NO_ROW,
    SLOT_SHIFT,
    jump_t,
    node_t,
    tables_t,
    window_t,
)

cdef struct match_t:
    int32_t row              # the rate, or NO_ROW
    uint32_t length          # digits of its prefix


cdef inline bint in_effect(const window_t* window, int64_t at_ns) noexcept nogil:
    """Whether from <= at < to. An open end is the smallest or largest second there is."""
    cdef int64_t at_s = at_ns // 1_000_000_000
    cdef int64_t rest = at_ns - at_s * 1_000_000_000
    if rest < 0:
        rest += 1_000_000_000
        at_s -= 1
    if at_s < window.from_s or (at_s == window.from_s and rest < window.from_ns):
        return False
    return at_s < window.to_s or (at_s == window.to_s and rest < window.to_ns)


cdef inline int32_t row_in_effect(
    const tables_t* tables, uint32_t slot, int64_t at_ns
) noexcept nogil:
    """The row of a group that is in effect: the first, since the latest begin comes first."""
    cdef uint32_t first = tables.terms_of[slot] & ~<uint32_t> GROUP_BIT
    cdef uint32_t i
    invariant(tables.terms_of[slot] & GROUP_BIT)
    for i in range(first, first + tables.windows[first].left):
        if in_effect(&tables.windows[i], at_ns):
            return <int32_t> (tables.slot_count + i)
    return NO_ROW


cdef inline void visit(
    const tables_t* tables,
    const node_t* node,
    uint32_t digit,
    uint32_t length,
    int64_t at_ns,
    match_t* match,
) noexcept nogil:
    """Where a prefix ends at this digit of this node and is in effect, it is the match so far."""
    cdef uint32_t ended = node.bits >> SLOT_SHIFT
    cdef uint32_t bit = <uint32_t> 1 << digit
    cdef uint32_t slot
    cdef int32_t row
    if ended & bit:
        slot = node.slots + popcount10(ended & (bit - 1))
        row = <int32_t> slot
        if unlikely(node.bits & (bit << GROUP_SHIFT)):
            row = row_in_effect(tables, slot, at_ns)
            if row == NO_ROW:
                return
        match.row = row
        match.length = length


cdef inline const node_t* descend(
    const tables_t* tables, const node_t* node, uint32_t digit
) noexcept nogil:
    """The child at this digit, or NULL."""
    cdef uint32_t bit = <uint32_t> 1 << digit
    if not node.bits & bit:
        return NULL
    return &tables.nodes[node.children + popcount10(node.bits & (bit - 1))]


cdef inline void walk(
    const tables_t* tables,
    const node_t* node,
    const uint8_t* digits,
    uint32_t position,
    uint32_t end,
    int64_t at_ns,
    match_t* match,
) noexcept nogil:
    """From ``node``, which ``position`` digits lead to, as far as the digits before ``end`` go."""
    cdef uint32_t digit
    while node != NULL and position < end:
        digit = digits[position] - c'0'
        position += 1
        visit(tables, node, digit, position, at_ns, match)
        node = descend(tables, node, digit)


cdef inline void walk_from_top(
    const tables_t* tables, const uint8_t* digits, uint32_t end, int64_t at_ns, match_t* match
) noexcept nogil:
    """The match among the prefixes of at most ``end`` digits."""
    match.row = NO_ROW
    match.length = 0
    visit(tables, &tables.top, 0, 0, at_ns, match)
    walk(tables, descend(tables, &tables.top, 0), digits, 0, end, at_ns, match)


cdef inline uint32_t jump_index(const uint8_t* digits, uint32_t count) noexcept nogil:
    cdef uint32_t index = 0
    cdef uint32_t i
    for i in range(count):
        index = index * 10 + (digits[i] - c'0')
    return index


cdef inline match_t match_digits(
    const tables_t* tables, const uint8_t* digits, uint32_t count, int64_t at_ns
) noexcept nogil:
    """The rate for ``count`` ASCII digits at a time."""
    cdef match_t match
    cdef const jump_t* jump
    if tables.jump_digits == 0 or count < tables.jump_digits:
        walk_from_top(tables, digits, count, at_ns, &match)
        return match
    jump = &tables.jumps[jump_index(digits, tables.jump_digits)]
    match.row = NO_ROW
    match.length = 0
    if jump.node != NO_NODE:
        walk(
            tables,
            &tables.nodes[jump.node],
            digits,
            tables.jump_digits,
            count,
            at_ns,
            &match,
        )
    if match.row == NO_ROW and jump.best != JUMP_NOTHING:
        if jump.best == JUMP_GROUP:
            walk_from_top(tables, digits, tables.jump_digits, at_ns, &match)
        else:
            match.row = <int32_t> (jump.best >> LENGTH_BITS)
            match.length = jump.best & ((1 << LENGTH_BITS) - 1)
    return match
