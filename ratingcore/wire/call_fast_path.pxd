"""The fast path of parsing a Call: fields in the order of their numbers, each field once, short
plain texts, times in this century. Nearly all clients write calls in this form.

The next field is then known, so the processor mispredicts no branch. Any other form is not an error
here: call_parse.pyx parses it by the same field numbers, and reports what is malformed.
tests/core/test_callparse.py compares both with the protobuf library.

All functions are inlined into the module that uses them, so that the compiler keeps a call's fields
in registers. Therefore nothing may take the address of the call.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from .call_parse cimport (
    TAG_CALL_ID,
    TAG_CALLER_NUMBER,
    TAG_DESTINATION_NUMBER,
    TAG_DIRECTION,
    TAG_DISPOSITION,
    TAG_DURATION_SECONDS,
    TAG_ENDED_AT,
    TAG_EXTENSION_ID,
    TAG_NANOS,
    TAG_SECONDS,
    TAG_STARTED_AT,
    TAG_TENANT_ID,
    read_int64,
    read_varint,
    stamp_t,
    text_t,
    wire_call_t,
)
from ..base.native cimport likely, load8, unlikely

cdef extern from *:
    """
    #define RC_HIGH_BITS 0x8080808080808080ULL
    """
    const uint64_t HIGH_BITS "RC_HIGH_BITS"     # of eight bytes


cdef inline uint64_t joined(uint64_t word) noexcept nogil:
    """The number of a varint in these eight bytes; bytes after its end are 0. Joins pairs of groups
    of seven bits, then pairs of the pairs, then the two halves."""
    word = (word & 0x007F007F007F007FULL) | (word & 0x7F007F007F007F00ULL) >> 1
    word = (word & 0x00003FFF00003FFFULL) | (word & 0x3FFF00003FFF0000ULL) >> 2
    return (word & 0x000000000FFFFFFFULL) | (word & 0x0FFFFFFF00000000ULL) >> 4


cdef inline uint64_t _flaws(uint64_t word) noexcept nogil:
    """A word with a high bit set if, and only if, one of the eight bytes is not ASCII or is NUL."""
    # A byte of 0x80 or above has it. If all are below, a 0 borrows when 1 is subtracted.
    return word | (word - 0x0101010101010101ULL)


cdef inline bint is_plain(const uint8_t* at, size_t size) noexcept nogil:
    """Whether a text is ASCII without NUL. Reads eight bytes at a time; the last eight overlap with
    those before them. Up to 16 bytes, as in nearly all texts, need no loop."""
    cdef uint64_t flaws = 0
    cdef size_t i
    if likely(size >= 8):
        flaws = _flaws(load8(at)) | _flaws(load8(at + size - 8))
        if unlikely(size > 16):
            for i in range(8, size - 8, 8):
                flaws |= _flaws(load8(at + i))
    else:
        for i in range(size):
            flaws |= <uint64_t> at[i] | (<uint64_t> at[i] - 1)
    return (flaws & HIGH_BITS) == 0


cdef inline void clear_call(wire_call_t* call) noexcept nogil:
    """Clear all fields, one by one: for so few bytes faster than memset."""
    call.tenant_id = 0
    call.extension_id = 0
    call.duration_seconds = 0
    call.started_at.seconds = 0
    call.started_at.nanos = 0
    call.started_at.present = 0
    call.ended_at.seconds = 0
    call.ended_at.nanos = 0
    call.ended_at.present = 0
    call.caller_number.data = NULL
    call.caller_number.size = 0
    call.destination_number.data = NULL
    call.destination_number.size = 0
    call.call_id.data = NULL
    call.call_id.size = 0
    call.direction = 0
    call.disposition = 0
    call.occurrence = 0
    call.has_duration = 0
    call.is_unreadable = 0
    call.had_nul = 0


cdef inline bint _next_is(const uint8_t* at, const uint8_t* end, uint8_t tag) noexcept nogil:
    return at != NULL and at < end and at[0] == tag


cdef inline const uint8_t* _enum(
    const uint8_t* at, const uint8_t* end, int32_t* number
) noexcept nogil:
    if unlikely(at == end) or unlikely(at[0] >= 0x80):
        return NULL
    number[0] = at[0]
    return at + 1


cdef inline const uint8_t* _seconds(
    const uint8_t* at, const uint8_t* end, int64_t* number
) noexcept nogil:
    """Read a number of one byte or two without a branch that depends on the size: for durations of
    calls, the processor would mispredict it often."""
    cdef uint64_t pair, more
    if likely(end - at >= 2):
        pair = at[0] | <uint64_t> at[1] << 8
        more = pair >> 7 & 1
        if likely((pair & 0x8080) != 0x8080):
            number[0] = <int64_t> ((pair & 0x7F) | ((pair >> 1 & 0x3F80) & (0 - more)))
            return at + 1 + more
    return NULL


cdef inline const uint8_t* _text(
    const uint8_t* at, const uint8_t* end, text_t* text
) noexcept nogil:
    """Read a plain text of less than 128 bytes."""
    if unlikely(at == end) or unlikely(at[0] >= 0x80) or unlikely(at[0] >= end - at):
        return NULL
    text.data = at + 1
    text.size = at[0]
    if unlikely(not is_plain(text.data, text.size)):
        return NULL
    return text.data + text.size


cdef inline const uint8_t* _stamp(
    const uint8_t* at, const uint8_t* end, stamp_t* stamp
) noexcept nogil:
    """Read a Timestamp with seconds of five bytes, as from 1978 to 2262, and perhaps nanos."""
    cdef uint64_t word, stops
    cdef uint64_t nanos = 0
    cdef const uint8_t* after
    # Reads eight bytes after the tag of seconds: other fields nearly always follow the stamp.
    if unlikely(end - at < 10) or unlikely(at[0] >= end - at) or at[1] != TAG_SECONDS:
        return NULL
    after = at + 1 + at[0]
    word = load8(at + 2)
    stops = ~word & HIGH_BITS
    if unlikely((stops & (0 - stops)) != <uint64_t> 0x80 << 32):
        return NULL
    stamp.present = 1
    stamp.seconds = <int64_t> joined(word & ((<uint64_t> 1 << 40) - 1))
    at += 7
    if _next_is(at, after, TAG_NANOS):
        at = read_varint(at + 1, after, &nanos)
        stamp.nanos = <int32_t> <uint32_t> nanos
    return at if likely(at == after) else NULL


cdef inline bint parse_fast(
    const uint8_t* at, const uint8_t* end, wire_call_t* call
) noexcept nogil:
    """Parse a whole Call, whose bytes end at ``end``. False: the call has another form or is
    malformed, and the content of ``call`` is undefined."""
    clear_call(call)
    if _next_is(at, end, TAG_TENANT_ID):
        at = read_int64(at + 1, end, &call.tenant_id)
    if _next_is(at, end, TAG_EXTENSION_ID):
        at = read_int64(at + 1, end, &call.extension_id)
    if _next_is(at, end, TAG_CALLER_NUMBER):
        at = _text(at + 1, end, &call.caller_number)
    if _next_is(at, end, TAG_DESTINATION_NUMBER):
        at = _text(at + 1, end, &call.destination_number)
    if _next_is(at, end, TAG_DIRECTION):
        at = _enum(at + 1, end, &call.direction)
    if _next_is(at, end, TAG_DISPOSITION):
        at = _enum(at + 1, end, &call.disposition)
    if _next_is(at, end, TAG_DURATION_SECONDS):
        at = _seconds(at + 1, end, &call.duration_seconds)
        call.has_duration = 1
    if _next_is(at, end, TAG_STARTED_AT):
        at = _stamp(at + 1, end, &call.started_at)
    if _next_is(at, end, TAG_ENDED_AT):
        at = _stamp(at + 1, end, &call.ended_at)
    if _next_is(at, end, TAG_CALL_ID):
        at = _text(at + 1, end, &call.call_id)
    return at == end
