# cython: cdivision=True
"""Matching with periods of validity: the longest prefix with a rate in effect (rating rule 3)."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from ..pricing.number cimport MAX_DIGITS
from .tables cimport (
    NO_ROW,
    first_window,
    is_group,
    slots_on_path,
    tables_t,
    window_t,
)


cdef bint _in_effect(const window_t* window, int64_t at_s, uint32_t at_ns) noexcept nogil:
    """Whether from <= at < to. An open end is a second that no call has."""
    if at_s < window.from_s or (at_s == window.from_s and at_ns < window.from_ns):
        return False
    return at_s < window.to_s or (at_s == window.to_s and at_ns < window.to_ns)


cdef int32_t _row_in_effect(
    const tables_t* tables, uint32_t slot, int64_t at_s, uint32_t at_ns
) noexcept nogil:
    """The first rate of a group that is in effect. The latest start comes first."""
    cdef uint32_t first = first_window(tables, slot)
    cdef uint32_t i
    for i in range(first, first + tables.windows[first].left):
        if _in_effect(&tables.windows[i], at_s, at_ns):
            return <int32_t> (tables.slot_count + i)
    return NO_ROW


cdef match_t match_in_effect(
    const tables_t* tables, const uint8_t* digits, uint32_t slot, uint32_t length, int64_t at_ns
) noexcept nogil:
    """The match if the longest prefix of the digits is a group.

    One of its rates is nearly always in effect. If not, the shorter prefixes are tried in turn.
    """
    cdef uint32_t slots[MAX_DIGITS + 1]
    cdef uint32_t lengths[MAX_DIGITS + 1]
    cdef int64_t at_s = at_ns // 1_000_000_000
    cdef int64_t rest = at_ns - at_s * 1_000_000_000
    cdef match_t match
    cdef int i
    if rest < 0:
        rest += 1_000_000_000
        at_s -= 1
    match.length = length
    match.row = _row_in_effect(tables, slot, at_s, <uint32_t> rest)
    if match.row != NO_ROW:
        return match
    for i in range(slots_on_path(tables, digits, length, slots, lengths) - 2, -1, -1):
        match.length = lengths[i]
        match.row = <int32_t> slots[i]
        if is_group(tables, slots[i]):
            match.row = _row_in_effect(tables, slots[i], at_s, <uint32_t> rest)
        if match.row != NO_ROW:
            return match
    match.length = 0
    match.row = NO_ROW
    return match
