# cython: cdivision=True
"""Single calls: reading a CreateCdrRequest, and writing the Cdr that answers it.

The field numbers are those of cdr_service.proto and types.proto; a test compares them with the
compiled descriptors.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ..base.memory cimport reserve
from ..deck.batch cimport REFUSED, UNRATED
from ..wire.call_parse cimport MAX_DEPTH, read_uint32, skip_field, text_t
from ..wire.call_rules cimport NO_TIME
from ..wire.wire_writer cimport write_money, write_varint
from .records cimport MAX_RECORDS, NO_PARTY, Records, find_parties, record_t
from .upload cimport read_record

# field number << 3 | wire type
cdef enum:
    TAG_CALL = 1 << 3 | 2                # CreateCdrRequest
    TAG_ID = 1 << 3 | 0                  # Cdr, from here on
    TAG_TENANT_ID = 2 << 3 | 0
    TAG_EXTENSION_ID = 3 << 3 | 0
    TAG_CALLER_NUMBER = 4 << 3 | 2
    TAG_DESTINATION_NUMBER = 5 << 3 | 2
    TAG_DIRECTION = 6 << 3 | 0
    TAG_DISPOSITION = 7 << 3 | 0
    TAG_DURATION_SECONDS = 8 << 3 | 0
    TAG_STARTED_AT = 9 << 3 | 2
    TAG_ENDED_AT = 10 << 3 | 2
    TAG_CALL_ID = 11 << 3 | 2
    TAG_TENANT = 12 << 3 | 2
    TAG_EXTENSION = 13 << 3 | 2
    TAG_STATUS = 14 << 3 | 0
    TAG_UNRATED_REASON = 15 << 3 | 0
    TAG_BILL_SECONDS = 16 << 3 | 0       # from here on of two bytes
    TAG_COST = 17 << 3 | 2
    TAG_RATE = 18 << 3 | 2
    TAG_RATE_REVISION = 19 << 3 | 0
    TAG_CREATED_AT = 21 << 3 | 2
    TAG_MATCHED_PREFIX = 22 << 3 | 2
    TAG_SECONDS = 1 << 3 | 0             # google.protobuf.Timestamp
    TAG_NANOS = 2 << 3 | 0

    # Bytes of a Cdr besides its texts and messages: 22 tags of two bytes, 16 numbers or lengths of
    # at most 10 bytes, three times of at most 17, and an amount with what is written past its end.
    FIXED_ROOM = 22 * 2 + 16 * 10 + 3 * 17 + 64

    NS = 1_000_000_000


def read_single_call(bytes request_bytes not None):
    """The call of a CreateCdrRequest, as a list of one. None if the request is malformed, has no
    call or more than one, or if the call breaks a rule: the service then says what is wrong."""
    cdef Records records
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(request_bytes)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(request_bytes)
    cdef record_t record
    cdef uint32_t tag
    cdef uint32_t calls = 0
    while at < end:
        at = read_uint32(at, end, &tag)
        if at == NULL or tag >> 3 == 0:
            return None
        if tag == TAG_CALL:
            calls += 1
            at = read_record(at, end, &record)
        else:
            at = skip_field(at, end, tag, MAX_DEPTH)
        if at == NULL:
            return None
    if calls != 1 or record.party == NO_PARTY:
        return None
    records = Records.__new__(Records)
    records.owners.append(request_bytes)
    records.add(&record)
    records.complete()
    return records


def joined(lists):
    """The calls of all lists, in order, as a list of their own. OverflowError above MAX_RECORDS."""
    cdef Records made = Records.__new__(Records)
    cdef Records one
    for one in lists:
        reserve(
            <void**> &made.items,
            &made.capacity,
            <uint64_t> made.count + one.count,
            sizeof(record_t),
            MAX_RECORDS,
        )
        if one.count:
            memcpy(made.items + made.count, one.items, one.count * sizeof(record_t))
        made.count += one.count
        made.owners.extend(one.owners)
    find_parties(made)
    return made


cdef uint8_t* _number(uint8_t* at, uint32_t tag, uint64_t value) noexcept nogil:
    """A number other than 0: protobuf leaves out a 0."""
    if value == 0:
        return at
    at = write_varint(at, tag)
    return write_varint(at, value)


cdef uint8_t* _bytes(uint8_t* at, uint32_t tag, const uint8_t* data, uint64_t size) noexcept nogil:
    at = write_varint(at, tag)
    at = write_varint(at, size)
    memcpy(at, data, size)
    return at + size


cdef uint8_t* _text(uint8_t* at, uint32_t tag, const text_t* text) noexcept nogil:
    return at if text.size == 0 else _bytes(at, tag, text.data, text.size)


cdef uint8_t* _message(uint8_t* at, uint32_t tag, bytes message):
    if message is None:
        return at
    return _bytes(
        at, tag, <const uint8_t*> PyBytes_AS_STRING(message), <uint64_t> PyBytes_GET_SIZE(message)
    )


cdef uint8_t* _time(uint8_t* at, uint32_t tag, int64_t time_ns) noexcept nogil:
    """A Timestamp; ``time_ns`` is 0 or above."""
    cdef uint8_t* length
    cdef uint8_t* start
    at = write_varint(at, tag)
    length = at
    start = at + 1
    at = _number(start, TAG_SECONDS, <uint64_t> (time_ns // NS))
    at = _number(at, TAG_NANOS, <uint64_t> (time_ns % NS))
    length[0] = <uint8_t> (at - start)
    return at


cdef uint64_t _room(bytes message):
    return 0 if message is None else <uint64_t> PyBytes_GET_SIZE(message)


def created_cdr(
    Records records not None,
    position,
    int64_t cdr_id,
    int64_t created_at_ns,
    int cost_decimals,
    bytes tenant not None,
    bytes extension,
    bytes rate,
    bytes matched_prefix,
):
    """The bytes of the Cdr of a rated call that was recorded as the first of its key, outside of an
    upload.

    ``tenant``, ``extension`` and ``rate`` are messages, the last two None where there is none, as
    ``matched_prefix``. ``cost_decimals`` is 4 to 8. ValueError unless the call is rated.
    """
    cdef const record_t* record = records.at(position)
    cdef uint64_t room = FIXED_ROOM
    cdef bytes made
    cdef uint8_t* begin
    cdef uint8_t* at
    if record.status == REFUSED or not 4 <= cost_decimals <= 8 or created_at_ns < 0:
        raise ValueError(f"the call at {position} was not recorded")
    room += record.caller_number.size + record.destination_number.size + record.call_id.size
    room += _room(tenant) + _room(extension) + _room(rate) + _room(matched_prefix)
    made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> room)
    begin = <uint8_t*> PyBytes_AS_STRING(made)
    at = _number(begin, TAG_ID, <uint64_t> cdr_id)
    at = _number(at, TAG_TENANT_ID, <uint64_t> record.tenant_id)
    at = _number(at, TAG_EXTENSION_ID, <uint64_t> record.extension_id)
    at = _text(at, TAG_CALLER_NUMBER, &record.caller_number)
    at = _text(at, TAG_DESTINATION_NUMBER, &record.destination_number)
    at = _number(at, TAG_DIRECTION, record.direction)
    at = _number(at, TAG_DISPOSITION, record.disposition)
    at[0] = TAG_DURATION_SECONDS
    at = write_varint(at + 1, <uint64_t> record.duration_seconds)
    at = _time(at, TAG_STARTED_AT, record.started_at_ns)
    if record.ended_at_ns != NO_TIME:
        at = _time(at, TAG_ENDED_AT, record.ended_at_ns)
    at = _text(at, TAG_CALL_ID, &record.call_id)
    at = _message(at, TAG_TENANT, tenant)
    at = _message(at, TAG_EXTENSION, extension)
    at = _number(at, TAG_STATUS, record.status)
    if record.status == UNRATED:
        at = _number(at, TAG_UNRATED_REASON, record.unrated_reason)
    else:
        at = write_varint(at, TAG_BILL_SECONDS)
        at = write_varint(at, <uint64_t> record.bill_seconds)
        at[0] = <uint8_t> (TAG_COST & 0x7F | 0x80)
        at = write_money(
            at + 1, TAG_COST >> 7, record.cost_units, record.cost_fraction_e8, cost_decimals
        )
    at = _message(at, TAG_RATE, rate)
    at = _number(at, TAG_RATE_REVISION, <uint64_t> record.rate_revision)
    at = _time(at, TAG_CREATED_AT, created_at_ns)
    at = _message(at, TAG_MATCHED_PREFIX, matched_prefix or None)
    return made[:at - begin]


def cdr_tags():
    """The tags that are written and read, by the names of Cdr's fields and "call" of
    CreateCdrRequest; to be compared with the protos."""
    return {
        "call": TAG_CALL,
        "id": TAG_ID,
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
        "tenant": TAG_TENANT,
        "extension": TAG_EXTENSION,
        "status": TAG_STATUS,
        "unrated_reason": TAG_UNRATED_REASON,
        "bill_seconds": TAG_BILL_SECONDS,
        "cost": TAG_COST,
        "rate": TAG_RATE,
        "rate_revision": TAG_RATE_REVISION,
        "created_at": TAG_CREATED_AT,
        "matched_prefix": TAG_MATCHED_PREFIX,
    }
