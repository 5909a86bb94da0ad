"""Changes to a deck as a builder collects them, and the order in which they are merged."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort


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


cdef void sort_changes(change_t* changes, uint32_t count) noexcept nogil:
    """Sort by prefix, then version. Most decks are sorted already, so check first."""
    cdef uint32_t i
    for i in range(1, count):
        if _by_key(&changes[i - 1], &changes[i]) > 0:
            qsort(changes, count, sizeof(change_t), _by_key)
            return
