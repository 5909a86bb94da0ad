"""Reading tollwire.v1.Call from protobuf bytes: the layout of one parsed call, and the parser.

The field numbers are those of types.proto; a test compares them with the compiled descriptor.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from ..base.native cimport likely, unlikely

# Tags: field number << 3 | wire type.
cdef enum:
    TAG_CALLS = 1 << 3 | 2               # StreamRateCallsRequest.calls, BatchRateCallsRequest.calls
    TAG_MIN_RATE_REVISION = 2 << 3 | 0   # of both
    TAG_VIEW = 3 << 3 | 0           # of both
    TAG_TENANT_ID = 1 << 3 | 0
    TAG_EXTENSION_ID = 2 << 3 | 0
    TAG_CALLER_NUMBER = 3 << 3 | 2
    TAG_DESTINATION_NUMBER = 4 << 3 | 2
    TAG_DIRECTION = 5 << 3 | 0
    TAG_DISPOSITION = 6 << 3 | 0
    TAG_DURATION_SECONDS = 7 << 3 | 0
    TAG_STARTED_AT = 8 << 3 | 2
    TAG_ENDED_AT = 9 << 3 | 2
    TAG_CALL_ID = 10 << 3 | 2
    TAG_OCCURRENCE = 11 << 3 | 0
    TAG_UNREADABLE = 12 << 3 | 2
    TAG_UNREADABLE_LINE = 1 << 3 | 0     # UnreadableRecord
    TAG_UNREADABLE_TEXT = 2 << 3 | 2
    TAG_UNREADABLE_HEADER = 3 << 3 | 2
    TAG_UNREADABLE_MESSAGE = 4 << 3 | 2
    TAG_SECONDS = 1 << 3 | 0             # google.protobuf.Timestamp
    TAG_NANOS = 2 << 3 | 0

    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2
    WIRE_GROUP = 3
    WIRE_GROUP_END = 4
    WIRE_FIXED32 = 5

    MAX_DEPTH = 100                      # of messages and groups within one another, as protobuf's


cdef struct text_t:
    const uint8_t* data     # in the request's bytes, not owned; undefined if size is 0
    uint32_t size           # bytes


cdef struct stamp_t:
    int64_t seconds         # as sent, not checked
    int32_t nanos           # as sent, not checked
    uint8_t present         # 1: the message was present, empty or not


cdef struct wire_call_t:
    int64_t tenant_id
    int64_t extension_id
    int64_t duration_seconds
    stamp_t started_at
    stamp_t ended_at
    text_t caller_number    # each text is valid UTF-8
    text_t destination_number
    text_t call_id
    int32_t direction
    int32_t disposition
    int32_t occurrence      # among calls of equal content without a call_id
    uint8_t has_duration    # 1: duration_seconds was present
    uint8_t is_unreadable   # 1: the field unreadable was present; its content is not kept
    uint8_t had_nul         # 1: a text has a NUL, or an earlier value of the same field had


cdef const uint8_t* read_long_varint(
    const uint8_t* at, const uint8_t* end, uint64_t* value
) noexcept nogil


cdef inline const uint8_t* read_varint(
    const uint8_t* at, const uint8_t* end, uint64_t* value
) noexcept nogil:
    """Read up to 10 bytes. Drops bits after the 64th, as protobuf does. NULL: truncated or
    longer."""
    if likely(at < end and at[0] < 0x80):
        value[0] = at[0]
        return at + 1
    return read_long_varint(at, end, value)


cdef inline const uint8_t* read_uint32(
    const uint8_t* at, const uint8_t* end, uint32_t* value
) noexcept nogil:
    """Read a tag or a length: up to 5 bytes and 32 bits. NULL: truncated or larger."""
    cdef uint64_t result = 0, byte
    cdef uint32_t shift = 0
    if likely(at < end and at[0] < 0x80):
        value[0] = at[0]
        return at + 1
    while at < end and shift < 35:
        byte = at[0]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            if result > 0xFFFFFFFFULL:
                return NULL
            value[0] = <uint32_t> result
            return at
        shift += 7
    return NULL


cdef inline const uint8_t* read_int64(
    const uint8_t* at, const uint8_t* end, int64_t* number
) noexcept nogil:
    """Read the value of an int64 field. NULL: as read_varint; the number is undefined then."""
    cdef uint64_t value = 0
    at = read_varint(at, end, &value)
    number[0] = <int64_t> value
    return at


cdef inline const uint8_t* read_int32(
    const uint8_t* at, const uint8_t* end, int32_t* number
) noexcept nogil:
    """Read the value of an int32 or enum field: its lowest 32 bits, as protobuf does. NULL: as
    read_int64."""
    cdef uint64_t value = 0
    at = read_varint(at, end, &value)
    number[0] = <int32_t> <uint32_t> value
    return at


cdef inline const uint8_t* read_bytes(
    const uint8_t* at, const uint8_t* end, text_t* text
) noexcept nogil:
    """Read a length and that number of bytes. NULL: fewer bytes follow."""
    cdef uint32_t size
    at = read_uint32(at, end, &size)
    if unlikely(at == NULL) or unlikely(size > <size_t> (end - at)):
        return NULL
    text.data = at
    text.size = size
    return at + size


cdef const uint8_t* skip_field(
    const uint8_t* at, const uint8_t* end, uint32_t tag, int depth
) noexcept nogil
cdef bint is_utf8(const uint8_t* at, size_t size) noexcept nogil
cdef const uint8_t* read_stamp(
    const uint8_t* at, const uint8_t* end, stamp_t* stamp, int depth
) noexcept nogil
cdef const uint8_t* parse_call(
    const uint8_t* at, const uint8_t* end, wire_call_t* call, int depth
) noexcept nogil
