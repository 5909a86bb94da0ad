"""The rates of one prefix while a deck is built: which of them remain, and in which order."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort

from .changes cimport REMOVE, change_digit, change_t
from ..base.memory cimport reserve
from ..pricing.number cimport MAX_DIGITS
from .tables cimport MAX_ROWS, window_t


cdef int group_add(group_t* group, const window_t* rate) except -1 nogil:
    if group.count == group.capacity:
        reserve(
            <void**> &group.rates,
            &group.capacity,
            <uint64_t> group.count + 1,
            sizeof(window_t),
            MAX_ROWS,
        )
    group.rates[group.count] = rate[0]
    group.count += 1
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


cdef int _refuse(const char* what, const change_t* change, int64_t other) except -1 nogil:
    cdef uint8_t digits[MAX_DIGITS]
    cdef int i
    for i in range(change.length):
        digits[i] = <uint8_t> (c'0' + change_digit(change, i))
    with gil:
        prefix = digits[: change.length].decode("ascii")
        raise ValueError(f"prefix {prefix!r} has {what.decode()} (version_id {other})")


cdef int group_settle(
    group_t* group, const change_t* changes, uint32_t change_count
) except -1 nogil:
    """Drop the removed rates, sort the others, refuse duplicates.

    ``changes`` are the changes of the prefix, sorted by version.
    """
    cdef window_t* rates = group.rates
    cdef uint32_t change = 0
    cdef uint32_t kept = 0
    cdef uint32_t i
    if group.count > 1:
        qsort(rates, group.count, sizeof(window_t), _by_version)
    for i in range(group.count):
        # Both are sorted by version. A version may be removed and put again.
        while change < change_count and changes[change].version_id < rates[i].version_id:
            change += 1
        if not rates[i].left:
            while (
                change < change_count
                and changes[change].version_id == rates[i].version_id
                and changes[change].kind != REMOVE
            ):
                change += 1
            if change < change_count and changes[change].version_id == rates[i].version_id:
                continue
        if kept and rates[kept - 1].version_id == rates[i].version_id:
            _refuse("one version twice", changes, rates[i].version_id)
        rates[kept] = rates[i]
        kept += 1
    group.count = kept
    if kept > 1:
        qsort(rates, kept, sizeof(window_t), _by_latest_from)
    for i in range(1, kept):
        if _by_latest_from(&rates[i - 1], &rates[i]) == 0:
            _refuse("two rates with one effective_from", changes, rates[i].version_id)
    return 0
