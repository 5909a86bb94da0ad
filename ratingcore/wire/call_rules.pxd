"""The rules for a call's fields (types.proto) that one call can be checked against by itself.

The core uses them for rating and for recording. A call that breaks a rule goes to the service,
whose check_call (service/rating/calls.py) has the texts of the errors. A test compares both: the
service finds an error in every call that the core refuses, and in no other.

All functions are inlined into the module that uses them.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memchr

from .call_parse cimport stamp_t, text_t, wire_call_t
from ..pricing.terms cimport MAX_SECONDS
from ..base.native cimport unlikely

cdef enum:
    MAX_NUMBER_CHARS = 256
    MAX_CALL_ID_CHARS = 255
    LAST_DIRECTION = 3           # types.proto: INTERNAL
    LAST_DISPOSITION = 6         # types.proto: CONGESTION
    OUTBOUND = 2
    ANSWERED = 1
    NANOS = 1_000_000_000        # of a second

cdef enum:
    END_SECONDS = 9_223_372_036  # no call starts or ends at 2262-04-11T23:47:16Z or later

cdef enum:                       # instead of a time in nanoseconds
    NO_TIME = -1                 # no time

cdef struct times_t:
    int64_t started_at_ns
    int64_t ended_at_ns          # or NO_TIME


cdef inline bint stamp_ns(const stamp_t* stamp, int64_t* ns) noexcept nogil:
    """Read a time from 1970 to before END_SECONDS, whose nanoseconds fit 64 bits. False:
    another."""
    if not (0 <= stamp.nanos < NANOS and 0 <= stamp.seconds < <int64_t> END_SECONDS):
        return False
    ns[0] = stamp.seconds * NANOS + stamp.nanos
    return True


cdef inline bint has_end(const stamp_t* ended_at) noexcept nogil:
    """Whether a call has an end. Switches send the epoch for a call without one."""
    return ended_at.present and (ended_at.seconds != 0 or ended_at.nanos != 0)


cdef inline bint is_within(const text_t* text, uint32_t most_chars) noexcept nogil:
    """Whether a UTF-8 text has at most this number of characters."""
    cdef uint32_t chars = 0
    cdef uint32_t i
    if text.size <= most_chars:
        return True
    for i in range(text.size):
        chars += (text.data[i] & 0xC0) != 0x80
    return chars <= most_chars


cdef inline bint holds_nul(const text_t* text) noexcept nogil:
    return text.size > 0 and memchr(text.data, 0, text.size) != NULL


cdef inline bint obeys_rules(wire_call_t* call, int64_t now_ns, times_t* times) noexcept nogil:
    """Whether all fields are present and in their ranges. Then ``times`` is set, and the duration
    if the call has none. ``now_ns`` replaces a missing start; NO_TIME: the start is required."""
    if (
        call.tenant_id < 1
        or call.extension_id < 0
        or not 1 <= call.direction <= LAST_DIRECTION
        or not 1 <= call.disposition <= LAST_DISPOSITION
        or unlikely(call.had_nul) and (
            holds_nul(&call.caller_number)
            or holds_nul(&call.destination_number)
            or holds_nul(&call.call_id)
        )
        or not is_within(&call.caller_number, MAX_NUMBER_CHARS)
        or not is_within(&call.destination_number, MAX_NUMBER_CHARS)
        or not is_within(&call.call_id, MAX_CALL_ID_CHARS)
        or unlikely(call.is_unreadable)
        or unlikely(call.occurrence != 0) and (
            call.occurrence < 0 or call.occurrence > 1 and call.call_id.size > 0
        )
    ):
        return False
    times.started_at_ns = now_ns
    times.ended_at_ns = NO_TIME
    if call.started_at.present:
        if not stamp_ns(&call.started_at, &times.started_at_ns):
            return False
    elif now_ns == NO_TIME:
        return False
    if has_end(&call.ended_at):
        if not (
            stamp_ns(&call.ended_at, &times.ended_at_ns)
            and times.ended_at_ns >= times.started_at_ns
        ):
            return False
        if not call.has_duration:
            call.duration_seconds = (times.ended_at_ns - times.started_at_ns) // NANOS
    elif not call.has_duration:
        return False
    return 0 <= call.duration_seconds <= MAX_SECONDS
