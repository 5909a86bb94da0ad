"""Reading tollwire.v1.ImportRatesRequest from protobuf bytes, without a Python object for each
rate.

It accepts what the protobuf library accepts, refuses what it refuses, and reads the same values;
tests/core/test_rateparse.py compares both on random messages. Parsing does not check whether a rate
is valid; ``read_terms_of`` reads the terms of a valid one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memset

from .call_parse cimport (
    MAX_DEPTH,
    is_utf8,
    read_bytes,
    read_int32,
    read_int64,
    read_stamp,
    read_uint32,
    read_varint,
    skip_field,
)
from ..base.native cimport likely, unlikely
from ..pricing.terms cimport check_terms, fault_t, terms_t

cdef enum:
    MAX_DESTINATION_CHARS = 200
    MAX_UNITS_DIGITS = 8             # of a price, before the point
    MAX_DECIMALS = 8                 # after it, without zeros at the end

# Tags: field number << 3 | wire type.
cdef enum:
    HEAD_TENANT_ID = 1 << 3 | 0          # ImportRatesRequest
    HEAD_MODE = 2 << 3 | 0
    HEAD_DRY_RUN = 3 << 3 | 0
    HEAD_RATES = 4 << 3 | 2
    HEAD_RATE_COUNT = 5 << 3 | 0
    HEAD_EFFECTIVE_FROM = 6 << 3 | 2
    HEAD_ALLOW_GAP = 7 << 3 | 0
    RATE_TENANT_ID = 2 << 3 | 0          # Rate
    RATE_PREFIX = 3 << 3 | 2
    RATE_DESTINATION = 4 << 3 | 2
    RATE_COST_PER_MINUTE = 5 << 3 | 2
    RATE_BILLING_INCREMENT = 6 << 3 | 0
    RATE_CONNECT_FEE = 7 << 3 | 2
    RATE_MINIMUM_SECONDS = 8 << 3 | 0
    RATE_INTERVALS = 9 << 3 | 2
    RATE_EFFECTIVE_FROM = 10 << 3 | 2
    RATE_EFFECTIVE_TO = 11 << 3 | 2
    RATE_BLOCKED = 12 << 3 | 0
    RATE_ETAG = 13 << 3 | 2
    RATE_CREATED_AT = 14 << 3 | 2
    RATE_UPDATED_AT = 15 << 3 | 2
    INTERVAL_COST_PER_MINUTE = 2 << 3 | 2

    RATE_DEPTH = MAX_DEPTH - 1           # a rate is one message deep, its messages one more


cdef const uint8_t* _text(const uint8_t* at, const uint8_t* end, text_t* text) noexcept nogil:
    at = read_bytes(at, end, text)
    if unlikely(at == NULL) or unlikely(not is_utf8(text.data, text.size)):
        return NULL
    return at


cdef const uint8_t* _bool(const uint8_t* at, const uint8_t* end, uint8_t* truth) noexcept nogil:
    cdef uint64_t value = 0
    at = read_varint(at, end, &value)
    truth[0] = value != 0
    return at


cdef const uint8_t* _other(const uint8_t* at, const uint8_t* end, uint32_t tag) noexcept nogil:
    """Skip an unknown field of a message within a rate."""
    if tag >> 3 == 0:
        return NULL
    return skip_field(at, end, tag, RATE_DEPTH - 1)


cdef const uint8_t* _interval(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Check whether an Interval is well-formed. Its content is not kept."""
    cdef text_t message, ignored
    cdef const uint8_t* after = read_bytes(at, end, &message)
    cdef uint32_t tag
    if unlikely(after == NULL):
        return NULL
    at = message.data
    while at < after:
        at = read_uint32(at, after, &tag)
        if unlikely(at == NULL):
            return NULL
        if tag == INTERVAL_COST_PER_MINUTE:
            at = _text(at, after, &ignored)
        else:
            at = _other(at, after, tag)
        if unlikely(at == NULL):
            return NULL
    return after


cdef const uint8_t* parse_rate(
    const uint8_t* at, const uint8_t* end, wire_rate_t* rate
) noexcept nogil:
    """Read a whole Rate, whose bytes end at ``end``. Returns ``end``; NULL: malformed."""
    cdef stamp_t ignored_stamp
    cdef text_t ignored_text
    cdef uint32_t tag
    memset(rate, 0, sizeof(wire_rate_t))
    while at < end:
        at = read_uint32(at, end, &tag)
        if unlikely(at == NULL):
            return NULL
        if tag == RATE_PREFIX:
            at = _text(at, end, &rate.prefix)
        elif tag == RATE_DESTINATION:
            at = _text(at, end, &rate.destination)
        elif tag == RATE_COST_PER_MINUTE:
            at = _text(at, end, &rate.cost_per_minute)
        elif tag == RATE_BILLING_INCREMENT:
            at = read_int32(at, end, &rate.billing_increment)
        elif tag == RATE_CONNECT_FEE:
            at = _text(at, end, &rate.connect_fee)
        elif tag == RATE_MINIMUM_SECONDS:
            at = read_int32(at, end, &rate.minimum_seconds)
        elif tag == RATE_INTERVALS:
            at = _interval(at, end)
            rate.has_intervals = 1
        elif tag == RATE_EFFECTIVE_FROM:
            at = read_stamp(at, end, &rate.effective_from, RATE_DEPTH - 1)
        elif tag == RATE_EFFECTIVE_TO:
            at = read_stamp(at, end, &rate.effective_to, RATE_DEPTH - 1)
        elif tag == RATE_BLOCKED:
            at = _bool(at, end, &rate.blocked)
        elif tag == RATE_TENANT_ID:
            at = read_int64(at, end, &rate.tenant_id)
        elif tag == RATE_ETAG:
            at = _text(at, end, &ignored_text)
        elif tag == RATE_CREATED_AT or tag == RATE_UPDATED_AT:
            at = read_stamp(at, end, &ignored_stamp, RATE_DEPTH - 1)
        elif tag >> 3 == 0:
            return NULL
        else:
            at = skip_field(at, end, tag, RATE_DEPTH)
        if unlikely(at == NULL):
            return NULL
    return end


cdef const uint8_t* next_rate(
    const uint8_t* at, const uint8_t* end, wire_head_t* head, text_t* rate
) noexcept nogil:
    """Read an ImportRatesRequest up to the end of its next rate, and store its other fields in
    ``head``. ``rate`` has no data after the last rate. NULL: the message is malformed."""
    cdef uint32_t tag
    rate.data = NULL
    while at < end:
        at = read_uint32(at, end, &tag)
        if unlikely(at == NULL):
            return NULL
        if likely(tag == HEAD_RATES):
            return read_bytes(at, end, rate)
        if tag == HEAD_TENANT_ID:
            at = read_int64(at, end, &head.tenant_id)
        elif tag == HEAD_MODE:
            at = read_int32(at, end, &head.mode)
        elif tag == HEAD_DRY_RUN:
            at = _bool(at, end, &head.dry_run)
        elif tag == HEAD_RATE_COUNT:
            at = read_int64(at, end, &head.rate_count)
            head.has_rate_count = 1
        elif tag == HEAD_EFFECTIVE_FROM:
            at = read_stamp(at, end, &head.effective_from, RATE_DEPTH)
        elif tag == HEAD_ALLOW_GAP:
            at = _bool(at, end, &head.allow_gap)
        elif tag >> 3 == 0:
            return NULL
        else:
            at = skip_field(at, end, tag, MAX_DEPTH)
        if unlikely(at == NULL):
            return NULL
    return end


cdef bint _is_well_formed(
    const uint8_t* at, const uint8_t* end, wire_head_t* head, uint32_t* rates
) noexcept nogil:
    """Also counts the rates."""
    cdef wire_rate_t rate
    cdef text_t message
    while at < end:
        at = next_rate(at, end, head, &message)
        if at == NULL:
            return False
        if message.data != NULL:
            rates[0] += 1
            if parse_rate(message.data, at, &rate) == NULL:
                return False
    return True


cdef bint _is_destination(const text_t* text) noexcept nogil:
    cdef uint32_t chars = 0
    cdef uint32_t i
    if text.size == 0:
        return True
    for i in range(text.size):
        chars += (text.data[i] & 0xC0) != 0x80
    return chars <= MAX_DESTINATION_CHARS and memchr(text.data, 0, text.size) == NULL


cdef bint _read_price(const text_t* text, uint64_t* price_e8) noexcept nogil:
    """Read digits, and perhaps a point with up to eight digits and any number of zeros after it."""
    cdef uint64_t value = 0
    cdef uint32_t units = 0
    cdef uint32_t decimals = 0
    cdef uint32_t i = 0
    while i < text.size and c'0' <= text.data[i] <= c'9':
        if i == MAX_UNITS_DIGITS:
            return False
        value = value * 10 + (text.data[i] - c'0')
        i += 1
    units = i
    if i < text.size:
        if text.data[i] != c'.':
            return False
        i += 1
        while i < text.size and c'0' <= text.data[i] <= c'9':
            if decimals < MAX_DECIMALS:
                value = value * 10 + (text.data[i] - c'0')
                decimals += 1
            elif text.data[i] != c'0':
                return False
            i += 1
        if decimals == 0:
            return False
    if units == 0 or i < text.size:
        return False
    while decimals < MAX_DECIMALS:
        value *= 10
        decimals += 1
    price_e8[0] = value
    return True


cdef bint read_terms_of(const wire_rate_t* wire, terms_t* terms) noexcept nogil:
    """Read the terms of a rate that is valid and in the common form. False for all others."""
    cdef uint64_t price_e8 = 0
    cdef uint64_t connect_fee_e8 = 0
    cdef fault_t fault
    return (
        not wire.has_intervals
        and _read_price(&wire.cost_per_minute, &price_e8)
        and (wire.connect_fee.size == 0 or _read_price(&wire.connect_fee, &connect_fee_e8))
        and _is_destination(&wire.destination)
        and check_terms(
            <int64_t> price_e8,
            wire.billing_increment,
            <int64_t> connect_fee_e8,
            wire.minimum_seconds,
            0,
            wire.blocked,
            terms,
            &fault,
        )
    )


def read_head(bytes request not None):
    """The fields of one message of an import besides its rates: (tenant_id, mode, dry_run,
    rate_count, effective_from as (seconds, nanoseconds), allow_gap), and how many rates it has.
    None for an optional field that is unset.

    Reads the whole message, and releases the GIL. ValueError: it is malformed.
    """
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(request)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(request)
    cdef wire_head_t head
    cdef uint32_t rates = 0
    cdef bint well_formed
    memset(&head, 0, sizeof(wire_head_t))
    with nogil:
        well_formed = _is_well_formed(at, end, &head, &rates)
    if not well_formed:
        raise ValueError("malformed")
    return (
        head.tenant_id,
        head.mode,
        bool(head.dry_run),
        head.rate_count if head.has_rate_count else None,
        _stamp_value(&head.effective_from),
        bool(head.allow_gap),
        rates,
    )


cdef object _stamp_value(const stamp_t* stamp):
    return (stamp.seconds, stamp.nanos) if stamp.present else None


def parse_rates(bytes request not None):
    """All rates of a message as tuples of the fields that the parser keeps; for tests. ValueError:
    the message is malformed."""
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(request)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(request)
    cdef wire_head_t head
    cdef wire_rate_t rate
    cdef text_t message
    read_head(request)
    rates = []
    while at < end:
        at = next_rate(at, end, &head, &message)
        if message.data == NULL:
            break
        parse_rate(message.data, at, &rate)
        rates.append((
            rate.tenant_id,
            rate.prefix.data[:rate.prefix.size],
            rate.destination.data[:rate.destination.size],
            rate.cost_per_minute.data[:rate.cost_per_minute.size],
            rate.billing_increment,
            rate.connect_fee.data[:rate.connect_fee.size],
            rate.minimum_seconds,
            bool(rate.has_intervals),
            _stamp_value(&rate.effective_from),
            _stamp_value(&rate.effective_to),
            bool(rate.blocked),
        ))
    return rates


def import_tags():
    """The tags of the parser by message and field; for the comparison with the protos."""
    return {
        "ImportRatesRequest": {
            "tenant_id": HEAD_TENANT_ID,
            "mode": HEAD_MODE,
            "dry_run": HEAD_DRY_RUN,
            "rates": HEAD_RATES,
            "rate_count": HEAD_RATE_COUNT,
            "effective_from": HEAD_EFFECTIVE_FROM,
            "allow_gap": HEAD_ALLOW_GAP,
        },
        "Rate": {
            "tenant_id": RATE_TENANT_ID,
            "prefix": RATE_PREFIX,
            "destination": RATE_DESTINATION,
            "cost_per_minute": RATE_COST_PER_MINUTE,
            "billing_increment": RATE_BILLING_INCREMENT,
            "connect_fee": RATE_CONNECT_FEE,
            "minimum_seconds": RATE_MINIMUM_SECONDS,
            "intervals": RATE_INTERVALS,
            "effective_from": RATE_EFFECTIVE_FROM,
            "effective_to": RATE_EFFECTIVE_TO,
            "blocked": RATE_BLOCKED,
            "etag": RATE_ETAG,
            "created_at": RATE_CREATED_AT,
            "updated_at": RATE_UPDATED_AT,
        },
        "Interval": {"cost_per_minute": INTERVAL_COST_PER_MINUTE},
    }
