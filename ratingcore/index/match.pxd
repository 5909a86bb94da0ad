"""Longest-prefix matching of one number (rating rule 3).

The common case is inline, so that the compiler makes it part of the function that rates one call.
deck/batch.pyx has the same steps for many numbers at a time.

Digits are ASCII or values from 0 to 9: the lower half of the byte is the same.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from ..base.native cimport likely, popcount10
from .tables cimport (
    LENGTH_BITS,
    NO_ROW,
    NO_SLOT,
    has_child,
    has_slot,
    is_group,
    jump_t,
    node_t,
    tables_t,
    window_t,
)

cdef struct match_t:
    int32_t row              # the rate, or NO_ROW
    uint32_t length          # digits of its prefix

cdef uint32_t begun_from(
    const window_t* group, uint32_t count, int64_t at_s, uint32_t at_ns
) noexcept nogil
cdef int32_t row_in_effect(
    const tables_t* tables, uint32_t slot, int64_t at_s, uint32_t at_ns
) noexcept nogil
cdef match_t match_in_effect(
    const tables_t* tables, const uint8_t* digits, uint32_t slot, uint32_t length, int64_t at_ns
) noexcept nogil


cdef inline match_t match_slot(
    const tables_t* tables, const uint8_t* digits, uint32_t slot, uint32_t length, int64_t at_ns
) noexcept nogil:
    """The match for the longest prefix, in effect or not, of the digits; NO_SLOT: there is none."""
    cdef match_t match
    if slot == NO_SLOT:
        match.row = NO_ROW
        match.length = 0
        return match
    if likely(not is_group(tables, slot)):
        match.row = <int32_t> slot
        match.length = length
        return match
    return match_in_effect(tables, digits, slot, length, at_ns)


cdef inline uint32_t jump_index(const uint8_t* digits, uint32_t count) noexcept nogil:
    cdef uint32_t index = 0
    cdef uint32_t i
    for i in range(count):
        index = index * 10 + (digits[i] & 15)
    return index


cdef inline uint32_t longest_slot(
    const tables_t* tables, const uint8_t* digits, uint32_t count, uint32_t* length
) noexcept nogil:
    """The longest prefix, in effect or not, of ``count`` digits; NO_SLOT: there is none."""
    cdef const jump_t* jump
    cdef const node_t* node = &tables.nodes[tables.node_count]
    cdef uint32_t position = 0
    cdef uint32_t slot = NO_SLOT
    cdef uint32_t digit, below
    length[0] = 0
    if likely(tables.jump_digits > 0 and count >= tables.jump_digits):
        position = tables.jump_digits
        jump = &tables.jumps[jump_index(digits, position)]
        node = &tables.nodes[jump.node]
        slot = jump.best >> LENGTH_BITS
        length[0] = jump.best & ((1 << LENGTH_BITS) - 1)
    else:
        if tables.top.slot_bits:
            slot = tables.top.slots
        if tables.top.child_bits:
            node = &tables.nodes[tables.top.children]
    while position < count:
        digit = digits[position] & 15
        below = (<uint32_t> 1 << digit) - 1
        position += 1
        if has_slot(node, digit):
            slot = node.slots + popcount10(node.slot_bits & below)
            length[0] = position
        if not has_child(node, digit):
            break
        node = &tables.nodes[node.children + popcount10(node.child_bits & below)]
    return slot


cdef inline match_t match_digits(
    const tables_t* tables, const uint8_t* digits, uint32_t count, int64_t at_ns
) noexcept nogil:
    """The rate for ``count`` digits at an instant."""
    cdef uint32_t length
    cdef uint32_t slot = longest_slot(tables, digits, count, &length)
    return match_slot(tables, digits, slot, length, at_ns)
