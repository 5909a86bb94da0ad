"""Sorts calls by their keys, and finds the new ones.

Rows are written in the order of (tenant_id, call_id), with call_ids compared by their bytes. So two
transactions with the same calls insert them in the same order. Calls with the same key keep the
order in which they were sent.
"""

from cpython.array cimport array, clone
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcmp

from ..deck.batch cimport REFUSED
from ..wire.call_parse cimport text_t
from ..base.memory cimport allocate, release
from .records cimport NO_PARTY, Records, record_t

from array import array as new_array

cdef array _POSITIONS = new_array("I")

cdef struct key_t:
    int64_t tenant_id
    uint64_t head                # the first eight bytes of the call_id, the first one the highest
    const record_t* record


cdef inline uint64_t _head(const text_t* text) noexcept nogil:
    cdef uint64_t head = 0
    cdef uint32_t i
    for i in range(8):
        head = head << 8 | (text.data[i] if i < text.size else 0)
    return head


cdef int _compare_texts(const text_t* left, const text_t* right) noexcept nogil:
    cdef uint32_t common = left.size if left.size < right.size else right.size
    cdef int order = memcmp(left.data, right.data, common)
    return order if order else (left.size > right.size) - (left.size < right.size)


cdef int _compare(const void* left_key, const void* right_key) noexcept nogil:
    """A total order: calls with the same key are compared by position."""
    cdef const key_t* left = <const key_t*> left_key
    cdef const key_t* right = <const key_t*> right_key
    cdef int order
    if left.tenant_id != right.tenant_id:
        return 1 if left.tenant_id > right.tenant_id else -1
    if left.head != right.head:
        return 1 if left.head > right.head else -1
    order = _compare_texts(&left.record.call_id, &right.record.call_id)
    return order if order else (left.record > right.record) - (left.record < right.record)


cdef array _positions(Records records, const key_t* keys, uint32_t count):
    cdef array made = clone(_POSITIONS, count, zero=False)
    cdef uint32_t i
    for i in range(count):
        made.data.as_uints[i] = <uint32_t> (keys[i].record - records.items)
    return made


def in_key_order(Records records not None, unknown=()):
    """The positions of the calls in the order of their keys, as an array. Without calls that break
    a rule, and calls of the parties ``unknown``."""
    cdef bytes left_out = bytes([party in unknown for party in records.parties()])
    cdef const uint8_t* is_left_out = left_out
    cdef key_t* keys = <key_t*> allocate(records.count, sizeof(key_t))
    cdef uint32_t count = 0
    cdef uint32_t i
    cdef const record_t* record
    try:
        with nogil:
            for i in range(records.count):
                record = &records.items[i]
                if record.party == NO_PARTY or is_left_out[record.party]:
                    continue
                keys[count].tenant_id = record.tenant_id
                keys[count].head = _head(&record.call_id)
                keys[count].record = record
                count += 1
            qsort(keys, count, sizeof(key_t), _compare)
        return _positions(records, keys, count)
    finally:
        release(keys)


def split(Records records not None, array order not None, recorded=()):
    """The rated calls of ``in_key_order`` as three arrays of positions, each in that order.

    The *new* ones, no key twice; the *old* ones, whose key is repeated or is among ``recorded``,
    and which are only compared with the recorded call; and the *refused* ones, whose cost exceeds
    its limit. A call with such a cost is old if its key is among ``recorded``, because it was
    recorded with another cost. Otherwise it is not counted, and the next call of its key is the
    first.
    """
    cdef array new = clone(_POSITIONS, len(order), zero=False)
    cdef array old = clone(_POSITIONS, 0, zero=False)
    cdef array refused = clone(_POSITIONS, 0, zero=False)
    cdef uint32_t count = 0
    cdef Py_ssize_t i
    cdef const record_t* record
    cdef const record_t* last = NULL
    cdef bint is_recorded = False
    records.check_positions(order)
    for i in range(len(order)):
        record = &records.items[order.data.as_uints[i]]
        if recorded:
            is_recorded = records.key(order.data.as_uints[i]) in recorded
        if record.status == REFUSED and not is_recorded:
            refused.append(order.data.as_uints[i])
        elif is_recorded or (
            last != NULL
            and last.tenant_id == record.tenant_id
            and _compare_texts(&last.call_id, &record.call_id) == 0
        ):
            old.append(order.data.as_uints[i])
        else:
            new.data.as_uints[count] = order.data.as_uints[i]
            count += 1
            last = record
    return new[:count], old, refused
