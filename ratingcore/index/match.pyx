# cython: cdivision=True
"""Matching with periods of validity: the longest prefix with a rate in effect (rating rule 3)."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from ..pricing.number cimport MAX_DIGITS
from .tables cimport (
    NO_ROW,
    block_size,
    first_window,
    is_group,
    slots_on_path,
    tables_t,
    window_t,
)


cdef inline bint _has_begun(const window_t* window, int64_t at_s, uint32_t at_ns) noexcept nogil:
    """An open end, here and below, is a second that no call has."""
    return window.from_s < at_s or (window.from_s == at_s and window.from_ns <= at_ns)


cdef inline bint _has_ended(const window_t* window, int64_t at_s, uint32_t at_ns) noexcept nogil:
    return window.to_s < at_s or (window.to_s == at_s and window.to_ns <= at_ns)


cdef uint32_t begun_from(
    const window_t* group, uint32_t count, int64_t at_s, uint32_t at_ns
) noexcept nogil:
    """The first window of a group that has begun; those behind it have begun too. ``count``: none
    has."""
    cdef uint32_t low = 0
    cdef uint32_t high = count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) // 2
        if _has_begun(&group[middle], at_s, at_ns):
            high = middle
        else:
            low = middle + 1
    return low


cdef int32_t row_in_effect(
    const tables_t* tables, uint32_t slot, int64_t at_s, uint32_t at_ns
) noexcept nogil:
    """The rate of a group that is in effect. Rates are sorted by start, the latest first; this is
    the first one that has begun and has not ended. Blocks of which all have ended are skipped, so
    the search takes O(log(windows)^2) steps, however the windows overlap."""
    cdef uint32_t first = first_window(tables, slot)
    cdef const window_t* group = &tables.windows[first]
    cdef uint32_t count = group.left
    cdef uint32_t number = begun_from(group, count, at_s, at_ns) + 1
    cdef const window_t* window
    while number <= count:
        window = &group[number - 1]
        if not _has_ended(window, at_s, at_ns):
            return <int32_t> (tables.slot_count + first + number - 1)
        if _has_ended(window + window.last_end, at_s, at_ns):
            number += block_size(number)
        else:
            number += 1
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
    match.row = row_in_effect(tables, slot, at_s, <uint32_t> rest)
    if match.row != NO_ROW:
        return match
    for i in range(slots_on_path(tables, digits, length, slots, lengths) - 2, -1, -1):
        match.length = lengths[i]
        match.row = <int32_t> slots[i]
        if is_group(tables, slots[i]):
            match.row = row_in_effect(tables, slots[i], at_s, <uint32_t> rest)
        if match.row != NO_ROW:
            return match
    match.length = 0
    match.row = NO_ROW
    return match
