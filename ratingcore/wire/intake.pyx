# cython: cdivision=True
"""Reads a request's calls, a block at a time: from bytes to the input of rating.

A request is a message whose field 1 is repeated tollwire.v1.Call, and whose fields 2 and 3 are its
options, min_rate_revision and view (StreamRateCallsRequest, BatchRateCallsRequest). The reader
accepts and refuses the same bytes as protobuf. A call that breaks a rule is not refused here, but
referred to the service.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from ..deck.batch cimport BLOCK, call_t
from .bulk cimport block_t, job_t, options_t, source_t
from .call_parse cimport (
    MAX_DEPTH,
    TAG_CALLS,
    TAG_MIN_RATE_REVISION,
    TAG_VIEW,
    parse_call,
    read_bytes,
    read_uint32,
    read_varint,
    skip_field,
    wire_call_t,
)
from .call_rules cimport ANSWERED, OUTBOUND, obeys_rules, times_t
from ..base.native cimport likely, prefetch, unlikely
from .call_fast_path cimport parse_fast


cdef enum:
    AHEAD = 1024                # how far ahead the request is prefetched, in bytes


cdef inline void _take(
    wire_call_t* parsed, int64_t now_ns, call_t* call, job_t* job
) noexcept nogil:
    """Copy the fields of a parsed call that the next stages use."""
    cdef times_t times
    job.call_id = parsed.call_id
    job.tenant_id = parsed.tenant_id
    job.referred = 1
    if likely(obeys_rules(parsed, now_ns, &times)):
        job.referred = 0
        call.number = parsed.destination_number.data
        call.number_size = parsed.destination_number.size
        call.started_at_ns = times.started_at_ns
        call.duration_seconds = parsed.duration_seconds
        call.billable = parsed.direction == OUTBOUND and parsed.disposition == ANSWERED


cdef bint _read_general(
    const uint8_t* end, int64_t now_ns, call_t* call, job_t* job
) noexcept nogil:
    """Read a call whose source is known and ends at ``end``. False: it is malformed."""
    cdef wire_call_t parsed
    if parse_call(job.source.data, end, &parsed, MAX_DEPTH - 1) == NULL:
        return False
    _take(&parsed, now_ns, call, job)
    return True


cdef inline bint _read_call(
    const uint8_t* end, int64_t now_ns, call_t* call, job_t* job
) noexcept nogil:
    """The same, faster for nearly all calls."""
    cdef wire_call_t parsed
    if likely(parse_fast(job.source.data, end, &parsed)):
        _take(&parsed, now_ns, call, job)
        return True
    return _read_general(end, now_ns, call, job)


cdef const uint8_t* _other_field(
    const uint8_t* at, const uint8_t* end, uint32_t tag, options_t* options
) noexcept nogil:
    """The end of a field, other than a call, whose tag was just read. NULL: malformed."""
    cdef uint64_t value = 0
    if tag == TAG_MIN_RATE_REVISION:
        at = read_varint(at, end, &value)
        options.min_rate_revision = <int64_t> value
        return at
    if tag == TAG_VIEW:
        at = read_varint(at, end, &value)
        options.view = <int32_t> value
        return at
    return skip_field(at, end, tag, MAX_DEPTH) if tag >> 3 else NULL


cdef bint read_block(source_t* source, block_t* block) noexcept nogil:
    """Read up to BLOCK calls. False: the request is malformed."""
    cdef const uint8_t* at = source.at
    cdef int64_t others = 0
    cdef uint32_t count = 0
    cdef uint32_t tag
    cdef job_t* job
    while at < source.end and count < BLOCK:
        at = read_uint32(at, source.end, &tag)
        if unlikely(at == NULL):
            return False
        if unlikely(tag != TAG_CALLS):
            at = _other_field(at, source.end, tag, &source.options)
            if at == NULL:
                return False
            continue
        job = &block.jobs[count]
        prefetch(at + AHEAD)
        at = read_bytes(at, source.end, &job.source)
        if at == NULL or not _read_call(at, source.now_ns, &block.calls[count], job):
            return False
        others |= (job.tenant_id ^ block.jobs[0].tenant_id) | job.referred
        count += 1
    source.at = at
    block.count = count
    block.tenant_id = block.jobs[0].tenant_id if count and not others else 0
    return True


cdef uint32_t unread_calls(const source_t* source) noexcept nogil:
    """The number of calls that are not read yet, as far as the request is well-formed."""
    cdef const uint8_t* at = source.at
    cdef uint32_t count = 0
    cdef uint32_t tag
    while at < source.end:
        at = read_uint32(at, source.end, &tag)
        if at == NULL or tag >> 3 == 0:
            break
        count += tag == TAG_CALLS
        at = skip_field(at, source.end, tag, MAX_DEPTH)
        if at == NULL:
            break
    return count


cdef bint may_end_with_options(const uint8_t* start, const uint8_t* end) noexcept nogil:
    """Whether the last bytes look like an option. They may be the end of another field."""
    cdef const uint8_t* last = end - 1
    if end == start or last[0] >= 0x80:
        return False
    while True:
        if last == start:
            return False
        last -= 1
        if last[0] < 0x80:
            return last[0] == TAG_MIN_RATE_REVISION or last[0] == TAG_VIEW


cdef bint read_options(
    const uint8_t* at, const uint8_t* end, options_t* options
) noexcept nogil:
    """Find the options among the outermost fields; 0: absent. False: malformed."""
    cdef uint32_t tag
    memset(options, 0, sizeof(options_t))
    while at < end:
        at = read_uint32(at, end, &tag)
        if at == NULL:
            return False
        at = _other_field(at, end, tag, options)
        if at == NULL:
            return False
    return True
