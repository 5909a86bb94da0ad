# cython: cdivision=True
"""Reading an upload's chunk: from the bytes of an UploadCdrsRequest to Records, with the GIL
released and no Python object for each call.

It accepts and refuses what the protobuf library does. What a call's fields may hold is checked by
the rules that rating has as well; a call that breaks one is noted with its bytes, for the service
to say what is wrong with it. The field numbers are those of cdr_service.proto; a test compares them
with the compiled descriptor.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from .callparse cimport (
    MAX_DEPTH,
    parse_call,
    read_bytes,
    read_uint32,
    read_varint,
    skip_field,
    text_t,
    wire_call_t,
)
from .callrules cimport NO_TIME, obeys_rules, times_t
from .native cimport unlikely
from .records cimport NO_PARTY, Records, record_t

from .wire import MalformedRequest

cdef enum:
    TAG_UPLOAD_ID = 1 << 3 | 0
    TAG_OFFSET = 2 << 3 | 0
    TAG_CALLS = 3 << 3 | 2

cdef struct chunk_t:
    int64_t upload_id
    int64_t offset
    uint32_t call_count          # all of them, also those past the limit


cdef const uint8_t* _read_call(
    const uint8_t* at, const uint8_t* end, record_t* record
) noexcept nogil:
    """One call whose tag was just read. NULL: malformed."""
    cdef wire_call_t call
    cdef times_t times
    memset(record, 0, sizeof(record_t))
    record.party = NO_PARTY
    at = read_bytes(at, end, &record.source)
    if unlikely(at == NULL) or unlikely(
        parse_call(record.source.data, at, &call, MAX_DEPTH - 1) == NULL
    ):
        return NULL
    if unlikely(not obeys_rules(&call, NO_TIME, &times)):
        return at
    record.party = 0
    record.call_id = call.call_id
    record.caller_number = call.caller_number
    record.destination_number = call.destination_number
    record.tenant_id = call.tenant_id
    record.extension_id = call.extension_id
    record.started_at_ns = times.started_at_ns
    record.ended_at_ns = times.ended_at_ns
    record.duration_seconds = <int32_t> call.duration_seconds
    record.direction = <uint8_t> call.direction
    record.disposition = <uint8_t> call.disposition
    return at


cdef int _read_chunk(
    const uint8_t* at, const uint8_t* end, uint32_t max_calls, Records records, chunk_t* chunk
) except -1 nogil:
    """Whether the request is a message of its type."""
    cdef uint64_t value = 0
    cdef uint32_t tag
    cdef record_t record
    while at < end:
        at = read_uint32(at, end, &tag)
        if at == NULL or tag >> 3 == 0:
            return False
        if tag == TAG_CALLS:
            at = _read_call(at, end, &record)
            chunk.call_count += 1
            if at != NULL and chunk.call_count <= max_calls:
                records.add(&record)
        elif tag == TAG_UPLOAD_ID:
            at = read_varint(at, end, &value)
            chunk.upload_id = <int64_t> value
        elif tag == TAG_OFFSET:
            at = read_varint(at, end, &value)
            chunk.offset = <int64_t> value
        else:
            at = skip_field(at, end, tag, MAX_DEPTH)
        if at == NULL:
            return False
    return True


def read_upload(bytes request_bytes not None, uint32_t max_calls):
    """``(upload_id, offset, call_count, records)`` of a request. ``records`` has the first
    ``max_calls`` of its calls. MalformedRequest where protobuf would refuse it."""
    cdef Records records = Records.__new__(Records)
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(request_bytes)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(request_bytes)
    cdef chunk_t chunk
    cdef bint valid
    memset(&chunk, 0, sizeof(chunk_t))
    records.owners.append(request_bytes)
    with nogil:
        valid = _read_chunk(at, end, max_calls, records, &chunk)
    if not valid:
        raise MalformedRequest("the request is not a valid protobuf message of its type")
    records.complete()
    return chunk.upload_id, chunk.offset, chunk.call_count, records


def request_tags():
    """The tags that are read, by the names of UploadCdrsRequest's fields; to be compared with the
    proto."""
    return {"upload_id": TAG_UPLOAD_ID, "offset": TAG_OFFSET, "calls": TAG_CALLS}
