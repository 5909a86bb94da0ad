"""Reading tollwire.v1.Call from protobuf bytes, without a Python object for each call.

It accepts what the protobuf library accepts, refuses what it refuses, and reads the same values:
unknown fields, any order, the last of repeated scalars, merged submessages, over-long varints,
nested groups. tests/core/test_callparse.py compares the two on whatever Hypothesis finds.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr

from .native cimport likely, load8, trailing_zeros, unlikely

cdef extern from *:
    """
    #define RC_HIGH_BITS 0x8080808080808080ULL
    """
    const uint64_t HIGH_BITS "RC_HIGH_BITS"     # of eight bytes


cdef inline uint64_t joined(uint64_t word) noexcept nogil:
    """The number whose varint is these eight bytes, of which those after its end are 0: pairs of
    groups of seven bits are joined, then pairs of the pairs, then the two halves."""
    word = (word & 0x007F007F007F007FULL) | (word & 0x7F007F007F007F00ULL) >> 1
    word = (word & 0x00003FFF00003FFFULL) | (word & 0x3FFF00003FFF0000ULL) >> 2
    return (word & 0x000000000FFFFFFFULL) | (word & 0x0FFFFFFF00000000ULL) >> 4


cdef const uint8_t* read_long_varint(
    const uint8_t* at, const uint8_t* end, uint64_t* value
) noexcept nogil:
    """As ``read_varint``; for those of two bytes and more."""
    cdef uint64_t result = 0, byte, word, stops
    cdef uint32_t shift = 0
    if likely(end - at >= 8):
        word = load8(at)
        stops = ~word & HIGH_BITS
        if likely(stops != 0):
            value[0] = joined(word & (stops ^ (stops - 1)))
            return at + (trailing_zeros(stops) >> 3) + 1
    while at < end and shift < 70:
        byte = at[0]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = result
            return at
        shift += 7
    return NULL


cdef const uint8_t* skip_field(
    const uint8_t* at, const uint8_t* end, uint32_t tag, int depth
) noexcept nogil:
    """The end of a field that nobody asked for, whose tag was just read. NULL: malformed."""
    cdef uint64_t varint
    cdef uint32_t inner
    cdef text_t ignored
    cdef uint32_t wire_type = tag & 7
    if wire_type == WIRE_VARINT:
        return read_varint(at, end, &varint)
    if wire_type == WIRE_FIXED64:
        return at + 8 if end - at >= 8 else NULL
    if wire_type == WIRE_BYTES:
        return read_bytes(at, end, &ignored)
    if wire_type == WIRE_FIXED32:
        return at + 4 if end - at >= 4 else NULL
    if wire_type != WIRE_GROUP or depth <= 0:
        return NULL
    while True:
        at = read_uint32(at, end, &inner)
        if at == NULL:
            return NULL
        if inner & 7 == WIRE_GROUP_END:
            return at if inner >> 3 == tag >> 3 else NULL
        at = skip_field(at, end, inner, depth - 1)
        if at == NULL:
            return NULL


cdef bint is_utf8(const uint8_t* at, size_t size) noexcept nogil:
    """Whether these bytes are UTF-8 as Unicode defines it: shortest forms, no surrogates."""
    cdef const uint8_t* end = at + size
    cdef uint8_t lead, lowest, highest
    cdef int more
    while at < end:
        lead = at[0]
        at += 1
        if lead < 0x80:
            continue
        lowest, highest = 0x80, 0xBF
        if 0xC2 <= lead <= 0xDF:
            more = 1
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            if lead == 0xE0:
                lowest = 0xA0
            elif lead == 0xED:
                highest = 0x9F
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            if lead == 0xF0:
                lowest = 0x90
            elif lead == 0xF4:
                highest = 0x8F
        else:
            return False
        if end - at < more or not lowest <= at[0] <= highest:
            return False
        at += 1
        while more > 1:
            if at[0] & 0xC0 != 0x80:
                return False
            at += 1
            more -= 1
    return True


cdef inline uint64_t _flaws(uint64_t word) noexcept nogil:
    """Has a high bit of a byte set if, and only if, one of the eight is not ASCII or is NUL."""
    # A byte of 0x80 or above has it; where all are below, a 0 borrows when 1 is taken from it.
    return word | (word - 0x0101010101010101ULL)


cdef inline bint _is_plain(const uint8_t* at, size_t size) noexcept nogil:
    """Whether a text is ASCII without NUL. Eight bytes at a time, the last eight overlapping with
    those before them; up to 16, as nearly all have, without a loop."""
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


cdef bint _admit(const text_t* text, wire_call_t* call) noexcept nogil:
    """Whether a text that is not plain is UTF-8; the call remembers a NUL."""
    if memchr(text.data, 0, text.size) != NULL:
        call.had_nul = 1
    return is_utf8(text.data, text.size)


cdef inline const uint8_t* _text(
    const uint8_t* at, const uint8_t* end, text_t* text, wire_call_t* call
) noexcept nogil:
    """A string field."""
    at = read_bytes(at, end, text)
    if unlikely(at == NULL):
        return NULL
    if unlikely(not _is_plain(text.data, text.size)) and not _admit(text, call):
        return NULL
    return at


cdef const uint8_t* _any_stamp(
    const uint8_t* at, const uint8_t* end, stamp_t* stamp, int depth
) noexcept nogil:
    """The fields of a google.protobuf.Timestamp that ends at ``end``."""
    cdef uint64_t value = 0
    cdef uint32_t tag
    while at < end:
        at = read_uint32(at, end, &tag)
        if unlikely(at == NULL):
            return NULL
        if tag == TAG_SECONDS:
            at = read_varint(at, end, &value)
            stamp.seconds = <int64_t> value
        elif tag == TAG_NANOS:
            at = read_varint(at, end, &value)
            stamp.nanos = <int32_t> <uint32_t> value
        elif tag >> 3 == 0:
            return NULL
        else:
            at = skip_field(at, end, tag, depth)
        if unlikely(at == NULL):
            return NULL
    return end


cdef inline const uint8_t* _stamp(
    const uint8_t* at, const uint8_t* end, stamp_t* stamp, int depth
) noexcept nogil:
    """A google.protobuf.Timestamp; one that comes again is merged into the one before."""
    cdef text_t message
    cdef uint64_t word, stops
    cdef const uint8_t* after = read_bytes(at, end, &message)
    if unlikely(after == NULL) or unlikely(depth <= 0):
        return NULL
    stamp.present = 1
    at = message.data
    # Nearly all have seconds of five bytes, and many have nothing else.
    if likely(message.size >= 6 and at[0] == TAG_SECONDS and end - at >= 9):
        word = load8(at + 1)
        stops = ~word & HIGH_BITS
        if likely((stops & (0 - stops)) == <uint64_t> 0x80 << 32):
            stamp.seconds = <int64_t> joined(word & ((<uint64_t> 1 << 40) - 1))
            at += 6
            if likely(at == after):
                return after
    return _any_stamp(at, after, stamp, depth)


cdef inline const uint8_t* _number(
    const uint8_t* at, const uint8_t* end, int64_t* number
) noexcept nogil:
    cdef uint64_t value = 0
    at = read_varint(at, end, &value)
    number[0] = <int64_t> value
    return at


cdef inline const uint8_t* _enum(
    const uint8_t* at, const uint8_t* end, int32_t* number
) noexcept nogil:
    cdef uint64_t value = 0
    at = read_varint(at, end, &value)
    number[0] = <int32_t> <uint32_t> value
    return at


cdef inline const uint8_t* _seconds(
    const uint8_t* at, const uint8_t* end, int64_t* number
) noexcept nogil:
    """As ``_number``, without a jump that depends on whether it takes one byte or two: where the
    durations of calls do, guessing it would fail often."""
    cdef uint64_t pair, more
    if likely(end - at >= 2):
        pair = at[0] | <uint64_t> at[1] << 8
        more = pair >> 7 & 1
        if likely((pair & 0x8080) != 0x8080):
            number[0] = <int64_t> ((pair & 0x7F) | ((pair >> 1 & 0x3F80) & (0 - more)))
            return at + 1 + more
    return _number(at, end, number)


cdef inline bint _next_is(const uint8_t* at, const uint8_t* end, uint8_t tag) noexcept nogil:
    return at != NULL and at < end and at[0] == tag


cdef inline const uint8_t* _parse_in_order(
    const uint8_t* at, const uint8_t* end, wire_call_t* call, int depth
) noexcept nogil:
    """Read as many fields as stand in the order of their numbers, each at most once: all of them,
    from nearly every sender. The order then is known beforehand, and no jump has to be guessed."""
    if _next_is(at, end, TAG_TENANT_ID):
        at = _number(at + 1, end, &call.tenant_id)
    if _next_is(at, end, TAG_EXTENSION_ID):
        at = _number(at + 1, end, &call.extension_id)
    if _next_is(at, end, TAG_CALLER_NUMBER):
        at = _text(at + 1, end, &call.caller_number, call)
    if _next_is(at, end, TAG_DESTINATION_NUMBER):
        at = _text(at + 1, end, &call.destination_number, call)
    if _next_is(at, end, TAG_DIRECTION):
        at = _enum(at + 1, end, &call.direction)
    if _next_is(at, end, TAG_DISPOSITION):
        at = _enum(at + 1, end, &call.disposition)
    if _next_is(at, end, TAG_DURATION_SECONDS):
        at = _seconds(at + 1, end, &call.duration_seconds)
        call.has_duration = 1
    if _next_is(at, end, TAG_STARTED_AT):
        at = _stamp(at + 1, end, &call.started_at, depth - 1)
    if _next_is(at, end, TAG_ENDED_AT):
        at = _stamp(at + 1, end, &call.ended_at, depth - 1)
    if _next_is(at, end, TAG_CALL_ID):
        at = _text(at + 1, end, &call.call_id, call)
    return at


cdef const uint8_t* _parse_in_any_order(
    const uint8_t* at, const uint8_t* end, wire_call_t* call, int depth
) noexcept nogil:
    """The fields that are left."""
    cdef uint32_t tag
    while at < end:
        at = read_uint32(at, end, &tag)
        if unlikely(at == NULL):
            return NULL
        if tag == TAG_TENANT_ID:
            at = _number(at, end, &call.tenant_id)
        elif tag == TAG_EXTENSION_ID:
            at = _number(at, end, &call.extension_id)
        elif tag == TAG_CALLER_NUMBER:
            at = _text(at, end, &call.caller_number, call)
        elif tag == TAG_DESTINATION_NUMBER:
            at = _text(at, end, &call.destination_number, call)
        elif tag == TAG_DIRECTION:
            at = _enum(at, end, &call.direction)
        elif tag == TAG_DISPOSITION:
            at = _enum(at, end, &call.disposition)
        elif tag == TAG_DURATION_SECONDS:
            at = _number(at, end, &call.duration_seconds)
            call.has_duration = 1
        elif tag == TAG_STARTED_AT:
            at = _stamp(at, end, &call.started_at, depth - 1)
        elif tag == TAG_ENDED_AT:
            at = _stamp(at, end, &call.ended_at, depth - 1)
        elif tag == TAG_CALL_ID:
            at = _text(at, end, &call.call_id, call)
        elif tag >> 3 == 0:
            return NULL
        else:
            at = skip_field(at, end, tag, depth)
        if unlikely(at == NULL):
            return NULL
    return end


cdef inline void _clear(wire_call_t* call) noexcept nogil:
    """A call without fields. One by one, which costs less than setting so few bytes by memset."""
    call.tenant_id = 0
    call.extension_id = 0
    call.duration_seconds = 0
    call.started_at.seconds = 0
    call.started_at.nanos = 0
    call.started_at.present = 0
    call.ended_at.seconds = 0
    call.ended_at.nanos = 0
    call.ended_at.present = 0
    call.caller_number.size = 0
    call.destination_number.size = 0
    call.call_id.size = 0
    call.direction = 0
    call.disposition = 0
    call.has_duration = 0
    call.had_nul = 0


cdef const uint8_t* parse_call(
    const uint8_t* at, const uint8_t* end, wire_call_t* call, int depth
) noexcept nogil:
    """Read a whole Call, whose bytes end at ``end``. Returns ``end``, or NULL where it is malformed."""
    _clear(call)
    at = _parse_in_order(at, end, call, depth)
    if likely(at == end) or at == NULL:
        return at
    return _parse_in_any_order(at, end, call, depth)


cdef object _stamp_value(const stamp_t* stamp):
    return (stamp.seconds, stamp.nanos) if stamp.present else None


def parse_calls(bytes request not None):
    """Every call of a request as a tuple in the order of the field numbers; for tests.

    ``request`` is a message whose field 1 is repeated Call. ValueError: it is malformed.
    """
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(request)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(request)
    cdef uint32_t tag
    cdef text_t message
    cdef wire_call_t call
    calls = []
    while at < end:
        at = read_uint32(at, end, &tag)
        if at == NULL or tag >> 3 == 0:
            raise ValueError("malformed")
        if tag != TAG_CALLS:
            at = skip_field(at, end, tag, MAX_DEPTH)
            if at == NULL:
                raise ValueError("malformed")
            continue
        at = read_bytes(at, end, &message)
        if at == NULL or parse_call(message.data, at, &call, MAX_DEPTH - 1) == NULL:
            raise ValueError("malformed")
        calls.append((
            call.tenant_id,
            call.extension_id,
            call.caller_number.data[:call.caller_number.size],
            call.destination_number.data[:call.destination_number.size],
            call.direction,
            call.disposition,
            call.duration_seconds if call.has_duration else None,
            _stamp_value(&call.started_at),
            _stamp_value(&call.ended_at),
            call.call_id.data[:call.call_id.size],
        ))
    return calls


def call_tags():
    """The tags that the parser knows, by the names of Call's fields; to be compared with the proto."""
    return {
        "tenant_id": TAG_TENANT_ID,
        "extension_id": TAG_EXTENSION_ID,
        "caller_number": TAG_CALLER_NUMBER,
        "destination_number": TAG_DESTINATION_NUMBER,
        "direction": TAG_DIRECTION,
        "disposition": TAG_DISPOSITION,
        "duration_seconds": TAG_DURATION_SECONDS,
        "started_at": TAG_STARTED_AT,
        "ended_at": TAG_ENDED_AT,
        "call_id": TAG_CALL_ID,
    }
