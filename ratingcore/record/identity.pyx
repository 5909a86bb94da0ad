"""The call_id that is derived for a call without one, and the packed form that is digested (rating
rule 10). Both are stored in databases and must never change.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from hashlib import sha256
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ..wire.call_parse cimport text_t
from ..wire.call_rules cimport NO_TIME
from ..base.native cimport store8
from .records cimport NO_PARTY, record_t

cdef enum:
    DERIVED_SIZE = 37            # "auto-" and 32 hexadecimal digits
    MAX_SUFFIX_SIZE = 11         # "-" and an occurrence
    DERIVED_HEAD_SIZE = 66       # what is hashed before the two numbers
    TURN = 256                   # derived call_ids between two releases of the GIL

cdef const char* HEXADECIMAL = b"0123456789abcdef"


cdef int derive_call_ids(record_t* records, uint32_t count, list owners) except -1:
    """Derive a call_id for every call without one. It depends only on the content and the
    occurrence, and never changes. ``owners`` keeps its bytes.

    SHA-256, truncated to 128 bits, over a fixed layout that differs for different calls:
    little-endian integers of fixed width, and the texts after their lengths. From the second
    occurrence on, the number of the occurrence follows.
    """
    cdef uint32_t missing = 0
    cdef uint32_t numbered = 0
    cdef uint32_t i
    cdef record_t* record
    cdef bytes made
    cdef char* at
    for i in range(count):
        record = &records[i]
        record.is_derived = record.party != NO_PARTY and record.call_id.size == 0
        missing += record.is_derived
        numbered += record.is_derived and record.occurrence > 1
    if not missing:
        return 0
    made = PyBytes_FromStringAndSize(
        NULL,
        <Py_ssize_t> missing * DERIVED_SIZE + <Py_ssize_t> numbered * MAX_SUFFIX_SIZE,
    )
    owners.append(made)
    at = PyBytes_AS_STRING(made)
    for i in range(count):
        record = &records[i]
        if record.is_derived:
            memcpy(at, b"auto-", 5)
            _hash_content(record, at + 5)
            record.call_id.data = <const uint8_t*> at
            record.call_id.size = DERIVED_SIZE
            if record.occurrence > 1:
                record.call_id.size += _write_suffix(at + DERIVED_SIZE, record.occurrence)
            at += record.call_id.size
            if not i % TURN:
                with nogil:
                    pass  # lets other threads have the GIL, which hashing short data keeps
    return 0


cdef uint32_t _write_suffix(char* at, int32_t occurrence) noexcept nogil:
    """Write "-" and the number, which is above 0. Returns the size."""
    cdef char digits[10]
    cdef uint32_t count = 0
    cdef uint32_t i
    while occurrence:
        digits[count] = <char> (c'0' + occurrence % 10)
        occurrence //= 10
        count += 1
    at[0] = c'-'
    for i in range(count):
        at[1 + i] = digits[count - 1 - i]
    return 1 + count


cdef int _hash_content(const record_t* record, char* digits) except -1:
    """Write the first 32 hexadecimal digits of the hash of the content."""
    cdef const text_t* caller = &record.caller_number
    cdef const text_t* called = &record.destination_number
    cdef bint ended = record.ended_at_ns != NO_TIME
    cdef bytes data = PyBytes_FromStringAndSize(
        NULL, DERIVED_HEAD_SIZE + <Py_ssize_t> caller.size + called.size
    )
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    cdef bytes digest
    cdef const uint8_t* hashed
    cdef uint32_t i
    memcpy(at, b"tollwire.call.1", 15)
    store8(at + 15, <uint64_t> record.tenant_id)
    store8(at + 23, <uint64_t> record.extension_id)
    at[31] = record.direction
    at[32] = record.disposition
    store8(at + 33, <uint64_t> record.duration_seconds)
    at[41] = ended
    store8(at + 42, <uint64_t> record.ended_at_ns if ended else 0)
    store8(at + 50, <uint64_t> record.started_at_ns)
    store8(at + 58, <uint64_t> called.size << 32 | caller.size)
    at += DERIVED_HEAD_SIZE
    if caller.size:
        memcpy(at, caller.data, caller.size)
    if called.size:
        memcpy(at + caller.size, called.data, called.size)
    digest = sha256(data).digest()
    hashed = digest
    for i in range(16):
        digits[2 * i] = HEXADECIMAL[hashed[i] >> 4]
        digits[2 * i + 1] = HEXADECIMAL[hashed[i] & 15]
    return 0


cdef void pack(
    const record_t* records, uint32_t count, uint32_t good, uint8_t* at
) noexcept nogil:
    """See Records.packed. ``good`` is the number of calls that break no rule; ``at`` has room for
    them."""
    cdef uint8_t* texts = at + <size_t> good * PACKED_INTEGERS * 8
    cdef size_t column = <size_t> good * 8
    cdef const record_t* record
    cdef uint32_t i
    for i in range(count):
        record = &records[i]
        if record.party == NO_PARTY:
            continue
        store8(at, <uint64_t> record.tenant_id)
        store8(at + column, <uint64_t> record.extension_id)
        store8(at + 2 * column, record.direction)
        store8(at + 3 * column, record.disposition)
        store8(at + 4 * column, <uint64_t> record.duration_seconds)
        store8(at + 5 * column, <uint64_t> record.started_at_ns)
        store8(at + 6 * column, <uint64_t> record.ended_at_ns)
        at += 8
    for i in range(count):
        if records[i].party != NO_PARTY:
            texts = _pack_text(texts, &records[i].caller_number)
    for i in range(count):
        if records[i].party != NO_PARTY:
            texts = _pack_text(texts, &records[i].destination_number)
    for i in range(count):
        if records[i].party != NO_PARTY:
            texts = _pack_text(texts, &records[i].call_id)


cdef inline uint8_t* _pack_text(uint8_t* at, const text_t* text) noexcept nogil:
    if text.size:
        memcpy(at, text.data, text.size)
    at[text.size] = 0
    return at + text.size + 1
