"""The digest of one record of an upload, by which it is recognised in any chunk.

It is stored, and auditors may compute it themselves: it must never change. SipHash-1-3, 64 bits,
little-endian. Of a call that breaks no rule, with the key ``tollwirerecord.1``, over seven
little-endian 64-bit integers (tenant_id, extension_id or 0, direction, disposition,
duration_seconds, started_at_ns, ended_at_ns or -1) and the texts caller_number, destination_number
and call_id, which hold no NUL, with a NUL after each. Of a call that breaks a rule, with the key
``tollwirefailed.1``, over its bytes as they were sent. The position of the record has no effect.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ..wire.call_parse cimport text_t
from ..base.memory cimport allocate, release
from ..base.native cimport load8, store8
from .records cimport NO_PARTY, Records, record_t

DIGEST_SIZE = 8

cdef enum:
    INTEGERS = 7

cdef const char* HEAD = b"tollwire"
cdef const char* GOOD = b"record.1"
cdef const char* BAD = b"failed.1"

cdef struct state_t:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3


cdef inline uint64_t _rotated(uint64_t word, uint32_t bits) noexcept nogil:
    return word << bits | word >> (64 - bits)


cdef inline void _round(state_t* state) noexcept nogil:
    state.v0 += state.v1
    state.v1 = _rotated(state.v1, 13) ^ state.v0
    state.v0 = _rotated(state.v0, 32)
    state.v2 += state.v3
    state.v3 = _rotated(state.v3, 16) ^ state.v2
    state.v0 += state.v3
    state.v3 = _rotated(state.v3, 21) ^ state.v0
    state.v2 += state.v1
    state.v1 = _rotated(state.v1, 17) ^ state.v2
    state.v2 = _rotated(state.v2, 32)


cdef uint64_t _hash(const uint8_t* at, size_t size, const char* key) noexcept nogil:
    """SipHash-1-3 with the key ``HEAD`` and ``key``."""
    cdef uint64_t k0 = load8(<const uint8_t*> HEAD)
    cdef uint64_t k1 = load8(<const uint8_t*> key)
    cdef uint64_t last = <uint64_t> size << 56
    cdef uint64_t word
    cdef state_t state
    cdef size_t i
    cdef size_t whole = size & ~<size_t> 7
    state.v0 = k0 ^ 0x736F6D6570736575ULL
    state.v1 = k1 ^ 0x646F72616E646F6DULL
    state.v2 = k0 ^ 0x6C7967656E657261ULL
    state.v3 = k1 ^ 0x7465646279746573ULL
    for i in range(0, whole, 8):
        word = load8(at + i)
        state.v3 ^= word
        _round(&state)
        state.v0 ^= word
    for i in range(whole, size):
        last |= <uint64_t> at[i] << (8 * (i - whole))
    state.v3 ^= last
    _round(&state)
    state.v0 ^= last
    state.v2 ^= 0xFF
    _round(&state)
    _round(&state)
    _round(&state)
    return state.v0 ^ state.v1 ^ state.v2 ^ state.v3


cdef inline uint8_t* _put_text(uint8_t* at, const text_t* text) noexcept nogil:
    if text.size:
        memcpy(at, text.data, text.size)
    at[text.size] = 0
    return at + text.size + 1


cdef uint64_t _of_good(const record_t* record, uint8_t* scratch) noexcept nogil:
    cdef uint8_t* at = scratch
    store8(at, <uint64_t> record.tenant_id)
    store8(at + 8, <uint64_t> record.extension_id)
    store8(at + 16, record.direction)
    store8(at + 24, record.disposition)
    store8(at + 32, <uint64_t> record.duration_seconds)
    store8(at + 40, <uint64_t> record.started_at_ns)
    store8(at + 48, <uint64_t> record.ended_at_ns)
    at = _put_text(at + INTEGERS * 8, &record.caller_number)
    at = _put_text(at, &record.destination_number)
    at = _put_text(at, &record.call_id)
    return _hash(scratch, at - scratch, GOOD)


cdef inline size_t _room(const record_t* record) noexcept nogil:
    return (
        INTEGERS * 8 + 3 + <size_t> record.caller_number.size
        + record.destination_number.size + record.call_id.size
    )


def digests(Records records not None):
    """The digests of the records in their order, DIGEST_SIZE bytes each."""
    cdef bytes made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> records.count * 8)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(made)
    cdef size_t most = 1
    cdef uint8_t* scratch
    cdef const record_t* record
    cdef uint64_t digest
    cdef uint32_t i
    for i in range(records.count):
        if _room(&records.items[i]) > most:
            most = _room(&records.items[i])
    scratch = <uint8_t*> allocate(most, 1)
    with nogil:
        for i in range(records.count):
            record = &records.items[i]
            if record.party == NO_PARTY:
                digest = _hash(record.source.data, record.source.size, BAD)
            else:
                digest = _of_good(record, scratch)
            store8(at + 8 * <size_t> i, digest)
    release(scratch)
    return made


def digest_of_bad(bytes source not None):
    """The digest of a record that breaks a rule, given as its bytes."""
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 8)
    store8(
        <uint8_t*> PyBytes_AS_STRING(made),
        _hash(
            <const uint8_t*> PyBytes_AS_STRING(source), <size_t> PyBytes_GET_SIZE(source), BAD
        ),
    )
    return made
