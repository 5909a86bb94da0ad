"""Reading tollwire.v1.Call from protobuf bytes, without a Python object for each call.

It accepts what the protobuf library accepts, refuses what it refuses, and reads the same values:
unknown fields, any order, the last of repeated scalars, merged submessages, over-long varints,
nested groups. tests/core/test_callparse.py compares both on random messages.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr

from ..base.native cimport likely, load8, trailing_zeros, unlikely
from .call_fast_path cimport HIGH_BITS, clear_call, is_plain, joined, parse_fast

cdef const uint8_t* read_long_varint(
    const uint8_t* at, const uint8_t* end, uint64_t* value
) noexcept nogil:
    """``read_varint`` for two bytes and more."""
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
    """The end of an unknown field whose tag was just read. NULL: malformed."""
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


cdef const uint8_t* _text(
    const uint8_t* at, const uint8_t* end, text_t* text, wire_call_t* call
) noexcept nogil:
    """Read a string field. Notes a NUL in the call."""
    at = read_bytes(at, end, text)
    if unlikely(at == NULL) or likely(is_plain(text.data, text.size)):
        return at
    if memchr(text.data, 0, text.size) != NULL:
        call.had_nul = 1
    return at if is_utf8(text.data, text.size) else NULL


cdef const uint8_t* read_stamp(
    const uint8_t* at, const uint8_t* end, stamp_t* stamp, int depth
) noexcept nogil:
    """Read a google.protobuf.Timestamp. A repeated one is merged with the one before."""
    cdef text_t message
    cdef const uint8_t* after = read_bytes(at, end, &message)
    cdef uint32_t tag
    if unlikely(after == NULL) or unlikely(depth <= 0):
        return NULL
    stamp.present = 1
    at = message.data
    while at < after:
        at = read_uint32(at, after, &tag)
        if unlikely(at == NULL):
            return NULL
        if tag == TAG_SECONDS:
            at = read_int64(at, after, &stamp.seconds)
        elif tag == TAG_NANOS:
            at = read_int32(at, after, &stamp.nanos)
        elif tag >> 3 == 0:
            return NULL
        else:
            at = skip_field(at, after, tag, depth)
        if unlikely(at == NULL):
            return NULL
    return after


cdef const uint8_t* _unreadable(const uint8_t* at, const uint8_t* end, int depth) noexcept nogil:
    """Check whether an UnreadableRecord is well-formed. Its content is not kept."""
    cdef text_t message, text
    cdef const uint8_t* after = read_bytes(at, end, &message)
    cdef int64_t line
    cdef uint32_t tag
    if after == NULL or depth <= 0:
        return NULL
    at = message.data
    while at < after:
        at = read_uint32(at, after, &tag)
        if at == NULL or tag >> 3 == 0:
            return NULL
        if tag == TAG_UNREADABLE_LINE:
            at = read_int64(at, after, &line)
        elif tag == TAG_UNREADABLE_TEXT or tag == TAG_UNREADABLE_HEADER:
            at = read_bytes(at, after, &text)
        elif tag == TAG_UNREADABLE_MESSAGE:
            at = read_bytes(at, after, &text)
            if at != NULL and not is_utf8(text.data, text.size):
                return NULL
        else:
            at = skip_field(at, after, tag, depth)
        if at == NULL:
            return NULL
    return after


cdef const uint8_t* _parse_in_any_order(
    const uint8_t* at, const uint8_t* end, wire_call_t* call, int depth
) noexcept nogil:
    """Parse into a call without fields."""
    cdef uint32_t tag
    while at < end:
        at = read_uint32(at, end, &tag)
        if unlikely(at == NULL):
            return NULL
        if tag == TAG_TENANT_ID:
            at = read_int64(at, end, &call.tenant_id)
        elif tag == TAG_EXTENSION_ID:
            at = read_int64(at, end, &call.extension_id)
        elif tag == TAG_CALLER_NUMBER:
            at = _text(at, end, &call.caller_number, call)
        elif tag == TAG_DESTINATION_NUMBER:
            at = _text(at, end, &call.destination_number, call)
        elif tag == TAG_DIRECTION:
            at = read_int32(at, end, &call.direction)
        elif tag == TAG_DISPOSITION:
            at = read_int32(at, end, &call.disposition)
        elif tag == TAG_DURATION_SECONDS:
            at = read_int64(at, end, &call.duration_seconds)
            call.has_duration = 1
        elif tag == TAG_STARTED_AT:
            at = read_stamp(at, end, &call.started_at, depth - 1)
        elif tag == TAG_ENDED_AT:
            at = read_stamp(at, end, &call.ended_at, depth - 1)
        elif tag == TAG_CALL_ID:
            at = _text(at, end, &call.call_id, call)
        elif tag == TAG_OCCURRENCE:
            at = read_int32(at, end, &call.occurrence)
        elif tag == TAG_UNREADABLE:
            at = _unreadable(at, end, depth - 1)
            call.is_unreadable = 1
        elif tag >> 3 == 0:
            return NULL
        else:
            at = skip_field(at, end, tag, depth)
        if unlikely(at == NULL):
            return NULL
    return end


cdef const uint8_t* parse_call(
    const uint8_t* at, const uint8_t* end, wire_call_t* call, int depth
) noexcept nogil:
    """Read a whole Call, whose bytes end at ``end``. Returns ``end``; NULL: malformed."""
    if likely(parse_fast(at, end, call)):
        return end
    clear_call(call)
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
            call.occurrence,
            bool(call.is_unreadable),
        ))
    return calls


def call_tags():
    """The tags of the parser by the names of Call's fields; for the comparison with the proto."""
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
        "occurrence": TAG_OCCURRENCE,
        "unreadable": TAG_UNREADABLE,
    }
