# cython: cdivision=True
"""Reads an upload's chunk: from the bytes of an UploadCdrsRequest to Records, with the GIL released
and without a Python object for each call.

It accepts and refuses the same bytes as the protobuf library. The fields of a call are checked by
the rules of rating. A call that breaks one is kept with its bytes, and the service words the error.
The field numbers are those of cdr_service.proto; a test compares them with the compiled descriptor.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memset

from ..wire.call_parse cimport (
    MAX_DEPTH,
    parse_call,
    read_bytes,
    read_int64,
    read_uint32,
    skip_field,
    text_t,
    wire_call_t,
)
from ..wire.call_rules cimport NO_TIME, obeys_rules, times_t
from ..base.native cimport unlikely
from .records cimport NO_PARTY, Records, record_t

from ..wire.rate_calls import MalformedRequest

cdef enum:
    TAG_UPLOAD_ID = 1 << 3 | 0
    TAG_OFFSET = 2 << 3 | 0
    TAG_CALLS = 3 << 3 | 2
    TAG_CONTROL_TOTALS = 4 << 3 | 2
    TAG_TOTAL_CALLS = 1 << 3 | 0         # ControlTotals
    TAG_TOTAL_SECONDS = 2 << 3 | 0

cdef struct chunk_t:
    int64_t upload_id
    int64_t offset
    int64_t total_calls          # control_totals
    int64_t total_seconds
    uint32_t call_count          # of all calls, also those above the limit
    uint8_t has_totals           # 1: control_totals was present, empty or not


cdef const uint8_t* read_record(
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
    record.occurrence = call.occurrence
    return at


cdef const uint8_t* _read_totals(
    const uint8_t* at, const uint8_t* end, chunk_t* chunk
) noexcept nogil:
    """Read ControlTotals whose tag was just read. A repeated one is merged. NULL: malformed."""
    cdef text_t message
    cdef const uint8_t* after = read_bytes(at, end, &message)
    cdef uint32_t tag
    if after == NULL:
        return NULL
    chunk.has_totals = 1
    at = message.data
    while at < after:
        at = read_uint32(at, after, &tag)
        if at == NULL or tag >> 3 == 0:
            return NULL
        if tag == TAG_TOTAL_CALLS:
            at = read_int64(at, after, &chunk.total_calls)
        elif tag == TAG_TOTAL_SECONDS:
            at = read_int64(at, after, &chunk.total_seconds)
        else:
            at = skip_field(at, after, tag, MAX_DEPTH - 1)
        if at == NULL:
            return NULL
    return after


cdef int _read_chunk(
    const uint8_t* at, const uint8_t* end, uint32_t max_calls, Records records, chunk_t* chunk
) except -1 nogil:
    """Read the request. False: it is not a message of its type."""
    cdef uint32_t tag
    cdef record_t record
    while at < end:
        at = read_uint32(at, end, &tag)
        if at == NULL or tag >> 3 == 0:
            return False
        if tag == TAG_CALLS:
            at = read_record(at, end, &record)
            chunk.call_count += 1
            if at != NULL and chunk.call_count <= max_calls:
                records.add(&record)
        elif tag == TAG_UPLOAD_ID:
            at = read_int64(at, end, &chunk.upload_id)
        elif tag == TAG_OFFSET:
            at = read_int64(at, end, &chunk.offset)
        elif tag == TAG_CONTROL_TOTALS:
            at = _read_totals(at, end, chunk)
        else:
            at = skip_field(at, end, tag, MAX_DEPTH)
        if at == NULL:
            return False
    return True


def read_upload(bytes request_bytes not None, uint32_t max_calls):
    """``(upload_id, offset, call_count, records, control_totals)`` of a request. ``records`` has
    the first ``max_calls`` of its calls; ``control_totals`` is (calls, duration_seconds), or None.
    MalformedRequest if protobuf refuses it."""
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
    totals = (chunk.total_calls, chunk.total_seconds) if chunk.has_totals else None
    return chunk.upload_id, chunk.offset, chunk.call_count, records, totals


def request_tags():
    """The tags by the names of UploadCdrsRequest's fields; for the comparison with the proto."""
    return {
        "upload_id": TAG_UPLOAD_ID,
        "offset": TAG_OFFSET,
        "calls": TAG_CALLS,
        "control_totals": TAG_CONTROL_TOTALS,
        "control_totals.calls": TAG_TOTAL_CALLS,
        "control_totals.duration_seconds": TAG_TOTAL_SECONDS,
    }
