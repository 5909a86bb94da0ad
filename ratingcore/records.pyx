# cython: cdivision=True
"""Calls on their way into the record, many at a time and no Python object for each.

A list of them is made of a request's bytes (upload.pyx) or of single calls (``records_of``). Then
they are put in the order of their keys and told apart (keyorder.pyx), rated (recordrating.pyx) and
written as rows (rows.pyx). What identifies a call, and what two calls must share to be one and the
same (rating rule 10), is fixed here: the derived call_id and the packed form that digests are of are
stored in databases and must never change.
"""

from cpython.array cimport array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from cython cimport final
from hashlib import sha256
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .batch cimport REFUSED, UNRATED
from .callparse cimport text_t
from .callrules cimport NO_TIME
from .memory cimport allocate, release, reserve
from .money cimport MAX_SECONDS
from .native cimport store8

cdef enum:
    DERIVED_SIZE = 37            # "auto-" and 32 hexadecimal digits
    DERIVED_HEAD_SIZE = 66       # what is hashed before the two numbers
    PACKED_INTEGERS = 7          # columns of the packed form
    E4 = 10_000
    TURN = 256                   # calls without a call_id that are hashed in one go

cdef const char* HEXADECIMAL = b"0123456789abcdef"


cdef object text_of(const text_t* text):
    if text.size == 0:
        return ""
    return PyUnicode_DecodeUTF8(<const char*> text.data, text.size, NULL)


cdef tuple _content(const record_t* record):
    return (
        record.tenant_id,
        text_of(&record.call_id),
        record.extension_id,
        text_of(&record.caller_number),
        text_of(&record.destination_number),
        record.direction,
        record.disposition,
        record.duration_seconds,
        record.started_at_ns,
        None if record.ended_at_ns == NO_TIME else record.ended_at_ns,
    )


@final
cdef class Records:
    """The calls of one chunk, in their order. Made by ``records_of`` and ``read_upload``.

    A call is named by its position. Those that break a rule (``bad``) keep their position, and have
    neither key nor content nor party. Rating changes the list; it is not for two threads at once.
    """

    def __cinit__(self):
        self.owners = []

    def __init__(self):
        raise TypeError("records_of and read_upload make these")

    def __dealloc__(self):
        release(self.items)
        release(self.party_items)

    def __len__(self):
        return self.count

    def bad(self):
        """The positions of the calls that break a rule, rising, each with the call's bytes."""
        cdef uint32_t i
        cdef text_t* source
        found = []
        for i in range(self.count):
            if self.items[i].party == NO_PARTY:
                source = &self.items[i].source
                found.append(
                    (i, PyBytes_FromStringAndSize(<const char*> source.data, source.size))
                )
        return found

    def part(self, begin, end):
        """The calls from position ``begin`` until before ``end``, as a list of their own."""
        cdef Records made = Records.__new__(Records)
        cdef uint32_t first = begin
        cdef uint32_t last = end
        if not first <= last <= self.count:
            raise IndexError(f"no part from {begin} to {end} of {self.count} calls")
        made.owners = self.owners
        reserve(<void**> &made.items, &made.capacity, last - first, sizeof(record_t), MAX_RECORDS)
        if first < last:
            memcpy(made.items, self.items + first, (last - first) * sizeof(record_t))
        made.count = last - first
        _find_parties(made)
        return made

    def parties(self):
        """Whom the calls concern: the different (tenant_id, extension_id), extension_id 0 for
        none."""
        cdef uint32_t i
        return [
            (self.party_items[i].tenant_id, self.party_items[i].extension_id)
            for i in range(self.party_count)
        ]

    def of_parties(self, parties):
        """The positions of the calls of these parties, rising."""
        cdef bytes wanted = bytes([party in parties for party in self.parties()])
        cdef const uint8_t* is_wanted = wanted
        cdef uint32_t i
        return [
            i
            for i in range(self.count)
            if self.items[i].party != NO_PARTY and is_wanted[self.items[i].party]
        ]

    def key(self, position):
        """(tenant_id, call_id): what the call is recorded under."""
        cdef const record_t* record = self.at(position)
        return record.tenant_id, text_of(&record.call_id)

    def call_id(self, position):
        return text_of(&self.at(position).call_id)

    def content(self, position):
        """What two calls must share to be one and the same: tenant_id, call_id, extension_id,
        caller_number, destination_number, direction, disposition, duration_seconds, started_at_ns,
        ended_at_ns or None."""
        return _content(self.at(position))

    def outcome(self, position):
        """What rating made of the call: status, unrated_reason, bill_seconds, the cost's whole
        units and ten-thousandths, the rate's version_id, the rates' revision; None where there is
        none."""
        cdef const record_t* record = self.at(position)
        cdef bint priced = record.status != UNRATED and record.status != REFUSED
        return (
            record.status,
            record.unrated_reason or None,
            record.bill_seconds if priced else None,
            record.cost_e4 // E4 if priced else None,
            record.cost_e4 % E4 if priced else None,
            record.version_id or None,
            record.rate_revision,
        )

    def packed(self):
        """The calls that break no rule, as bytes that are the same for the same calls for ever:
        seven columns of little-endian 64-bit integers (tenant_id, extension_id, direction,
        disposition, duration_seconds, started_at_ns, ended_at_ns or -1), then the texts
        (caller_number, destination_number, call_id, a column each), which hold no NUL, with a NUL
        after each and one alone where there is none."""
        cdef uint32_t good = 0
        cdef uint64_t size = 0
        cdef record_t* record
        cdef uint32_t i
        for i in range(self.count):
            record = &self.items[i]
            if record.party != NO_PARTY:
                good += 1
                size += record.caller_number.size + record.destination_number.size
                size += record.call_id.size + 3
        size += good * PACKED_INTEGERS * 8 if good else 3
        cdef bytes made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size)
        cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(made)
        if not good:
            return b"\0\0\0"
        with nogil:
            _pack(self.items, self.count, good, at)
        return made

    cdef int add(self, const record_t* record) except -1 nogil:
        if self.count == self.capacity:
            reserve(
                <void**> &self.items,
                &self.capacity,
                <uint64_t> self.count + 1,
                sizeof(record_t),
                MAX_RECORDS,
            )
        self.items[self.count] = record[0]
        self.count += 1
        return 0

    cdef int complete(self) except -1:
        """After the last call was added."""
        _derive_call_ids(self)
        return _find_parties(self)

    cdef int check_positions(self, array positions) except -1:
        """ValueError unless these are positions of calls that break no rule."""
        cdef Py_ssize_t i
        if positions.ob_descr.typecode != c'I':
            raise ValueError("positions must be an array of type I")
        for i in range(len(positions)):
            if (
                positions.data.as_uints[i] >= self.count
                or self.items[positions.data.as_uints[i]].party == NO_PARTY
            ):
                raise ValueError(f"there is no good call at {positions.data.as_uints[i]}")
        return 0

    cdef const record_t* at(self, object position) except NULL:
        cdef int64_t i = position
        if not 0 <= i < self.count or self.items[i].party == NO_PARTY:
            raise IndexError(f"there is no good call at {position}")
        return &self.items[i]


def records_of(contents):
    """A list of calls, each given as ``Records.content`` gives it; they are held to no rule here.

    An empty call_id is derived. None stands for a call that breaks a rule. OverflowError or
    ValueError: a number is outside what its field can hold.
    """
    cdef Records records = Records.__new__(Records)
    cdef record_t record
    for content in contents:
        memset(&record, 0, sizeof(record_t))
        record.party = NO_PARTY
        if content is not None:
            _set_content(&record, content, records.owners)
        records.add(&record)
    records.complete()
    return records


cdef int _set_text(text_t* text, str given, list owners) except -1:
    cdef bytes data = given.encode()
    owners.append(data)
    text.data = <const uint8_t*> PyBytes_AS_STRING(data)
    text.size = <uint32_t> len(data)
    return 0


cdef int _set_content(record_t* record, tuple content, list owners) except -1:
    cdef int64_t duration_seconds
    (
        tenant_id,
        call_id,
        extension_id,
        caller_number,
        destination_number,
        direction,
        disposition,
        duration,
        started_at_ns,
        ended_at_ns,
    ) = content
    duration_seconds = duration
    if not 0 <= duration_seconds <= MAX_SECONDS:
        raise ValueError(f"duration_seconds must be 0 to {MAX_SECONDS}, not {duration}")
    record.party = 0
    record.tenant_id = tenant_id
    record.extension_id = extension_id
    record.direction = direction
    record.disposition = disposition
    record.duration_seconds = <int> duration_seconds
    record.started_at_ns = started_at_ns
    record.ended_at_ns = NO_TIME if ended_at_ns is None else ended_at_ns
    _set_text(&record.call_id, call_id, owners)
    _set_text(&record.caller_number, caller_number, owners)
    return _set_text(&record.destination_number, destination_number, owners)


cdef int _derive_call_ids(Records records) except -1:
    """Give a call_id to every call that came without: the same for the same content, for ever.

    SHA-256, cut to 128 bits, over a fixed layout in which no two calls look alike: little-endian
    integers of fixed width, and the texts behind their lengths.
    """
    cdef uint32_t missing = 0
    cdef uint32_t i
    cdef record_t* record
    cdef bytes made
    cdef char* at
    for i in range(records.count):
        record = &records.items[i]
        missing += record.party != NO_PARTY and record.call_id.size == 0
    if not missing:
        return 0
    made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> missing * DERIVED_SIZE)
    records.owners.append(made)
    at = PyBytes_AS_STRING(made)
    for i in range(records.count):
        record = &records.items[i]
        if record.party != NO_PARTY and record.call_id.size == 0:
            memcpy(at, b"auto-", 5)
            _hash_content(record, at + 5)
            record.call_id.data = <const uint8_t*> at
            record.call_id.size = DERIVED_SIZE
            at += DERIVED_SIZE
            if not i % TURN:
                with nogil:
                    pass  # others wait for the GIL, which hashing so little does not give up
    return 0


cdef int _hash_content(const record_t* record, char* digits) except -1:
    """Write the first 32 hexadecimal digits."""
    cdef const text_t* caller = &record.caller_number
    cdef const text_t* called = &record.destination_number
    cdef bint ended = record.ended_at_ns != NO_TIME
    cdef bytes data = PyBytes_FromStringAndSize(
        NULL, DERIVED_HEAD_SIZE + <Py_ssize_t> caller.size + called.size
    )
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    cdef bytes digest
    cdef const uint8_t* hashed
    cdef uint32_t i
    memcpy(at, b"tollwire.call.1", 15)
    store8(at + 15, <uint64_t> record.tenant_id)
    store8(at + 23, <uint64_t> record.extension_id)
    at[31] = record.direction
    at[32] = record.disposition
    store8(at + 33, <uint64_t> record.duration_seconds)
    at[41] = ended
    store8(at + 42, <uint64_t> record.ended_at_ns if ended else 0)
    store8(at + 50, <uint64_t> record.started_at_ns)
    store8(at + 58, <uint64_t> called.size << 32 | caller.size)
    at += DERIVED_HEAD_SIZE
    if caller.size:
        memcpy(at, caller.data, caller.size)
    if called.size:
        memcpy(at + caller.size, called.data, called.size)
    digest = sha256(data).digest()
    hashed = digest
    for i in range(16):
        digits[2 * i] = HEXADECIMAL[hashed[i] >> 4]
        digits[2 * i + 1] = HEXADECIMAL[hashed[i] & 15]
    return 0


cdef int _find_parties(Records records) except -1:
    """Number the different (tenant_id, extension_id) by when they first come."""
    cdef uint32_t size = 16
    cdef uint32_t* places               # open-addressing hash: 1 + party, 0 where free
    cdef uint32_t i
    while size < 2 * records.count:
        size *= 2
    places = <uint32_t*> allocate(size, 4)
    try:
        records.party_count = 0
        for i in range(records.count):
            if records.items[i].party != NO_PARTY:
                _find_party(records, &records.items[i], places, size - 1)
    finally:
        release(places)
    return 0


cdef int _find_party(
    Records records, record_t* record, uint32_t* places, uint32_t mask
) except -1:
    cdef party_t* parties = records.party_items
    cdef uint64_t mixed = <uint64_t> record.tenant_id * 0x9E3779B97F4A7C15ULL
    cdef uint32_t place
    mixed = (mixed ^ <uint64_t> record.extension_id) * 0x9E3779B97F4A7C15ULL
    place = <uint32_t> (mixed >> 32) & mask
    while places[place] != 0:
        record.party = places[place] - 1
        if (
            parties[record.party].tenant_id == record.tenant_id
            and parties[record.party].extension_id == record.extension_id
        ):
            return 0
        place = (place + 1) & mask
    reserve(
        <void**> &records.party_items,
        &records.party_capacity,
        <uint64_t> records.party_count + 1,
        sizeof(party_t),
        MAX_RECORDS,
    )
    record.party = records.party_count
    records.party_items[record.party].tenant_id = record.tenant_id
    records.party_items[record.party].extension_id = record.extension_id
    records.party_count += 1
    places[place] = records.party_count
    return 0


cdef void _pack(
    const record_t* records, uint32_t count, uint32_t good, uint8_t* at
) noexcept nogil:
    """See Records.packed; ``good`` of the calls break no rule."""
    cdef uint8_t* texts = at + <size_t> good * PACKED_INTEGERS * 8
    cdef size_t column = <size_t> good * 8
    cdef const record_t* record
    cdef uint32_t i
    for i in range(count):
        record = &records[i]
        if record.party == NO_PARTY:
            continue
        store8(at, <uint64_t> record.tenant_id)
        store8(at + column, <uint64_t> record.extension_id)
        store8(at + 2 * column, record.direction)
        store8(at + 3 * column, record.disposition)
        store8(at + 4 * column, <uint64_t> record.duration_seconds)
        store8(at + 5 * column, <uint64_t> record.started_at_ns)
        store8(at + 6 * column, <uint64_t> record.ended_at_ns)
        at += 8
    for i in range(count):
        if records[i].party != NO_PARTY:
            texts = _pack_text(texts, &records[i].caller_number)
    for i in range(count):
        if records[i].party != NO_PARTY:
            texts = _pack_text(texts, &records[i].destination_number)
    for i in range(count):
        if records[i].party != NO_PARTY:
            texts = _pack_text(texts, &records[i].call_id)


cdef inline uint8_t* _pack_text(uint8_t* at, const text_t* text) noexcept nogil:
    if text.size:
        memcpy(at, text.data, text.size)
    at[text.size] = 0
    return at + text.size + 1
