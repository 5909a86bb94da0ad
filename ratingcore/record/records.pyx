# cython: cdivision=True
"""Lists of calls before they are recorded, without a Python object for each call.

A list is made from a request's bytes (upload.pyx) or from single calls (``records_of``). Then the
calls are sorted by key and new ones are found (key_order.pyx), rated (record_rating.pyx) and
written as rows (rows.pyx). ``Content`` defines when two calls are the same (rating rule 10).
"""

from cpython.array cimport array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from cython cimport final
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ..deck.batch cimport REFUSED, UNRATED
from ..wire.call_parse cimport text_t
from ..wire.call_rules cimport NO_TIME
from .identity cimport PACKED_INTEGERS, derive_call_ids, pack
from ..base.memory cimport allocate, release, reserve
from ..pricing.terms cimport MAX_SECONDS

from .values import Content, RecordOutcome

# A named tuple's own constructor takes three times as long.
cdef object _new_tuple = tuple.__new__


cdef object text_of(const text_t* text):
    if text.size == 0:
        return ""
    return PyUnicode_DecodeUTF8(<const char*> text.data, text.size, NULL)


cdef object _content(const record_t* record):
    return _new_tuple(Content, (
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
    ))


@final
cdef class Records:
    """The calls of one chunk, in their order. Made by ``records_of`` and ``read_upload``.

    Methods take the position of a call. Calls that break a rule (``bad``) keep their position, and
    have no key, content or party. Rating changes the list; only one thread may use it at a time.
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

    def source(self, position):
        """The bytes of the call, good or bad, as they were sent; b"" if it was not read from
        bytes."""
        cdef const text_t* source
        if not 0 <= position < self.count:
            raise IndexError(f"there is no call at {position}")
        source = &self.items[<uint32_t> position].source
        if source.size == 0:
            return b""
        return PyBytes_FromStringAndSize(<const char*> source.data, source.size)

    def part(self, begin, end):
        """The calls from position ``begin`` until before ``end``, as a new list."""
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
        find_parties(made)
        return made

    def parties(self):
        """The different (tenant_id, extension_id) of the calls, extension_id 0 for none."""
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
        """(tenant_id, call_id), the key of the call."""
        cdef const record_t* record = self.at(position)
        return record.tenant_id, text_of(&record.call_id)

    def call_id(self, position):
        return text_of(&self.at(position).call_id)

    def content(self, position):
        """The call as a ``Content``, by which calls are compared."""
        return _content(self.at(position))

    def outcome(self, position):
        """The ``RecordOutcome`` of the call."""
        cdef const record_t* record = self.at(position)
        cdef bint priced = record.status != UNRATED and record.status != REFUSED
        return _new_tuple(RecordOutcome, (
            record.status,
            record.unrated_reason or None,
            record.bill_seconds if priced else None,
            record.cost_units if priced else None,
            record.cost_fraction_e8 if priced else None,
            record.version_id or None,
            record.rate_revision,
        ))

    def generation(self, position):
        """The number of CDRs of the call's key that were reversed before this one."""
        return self.at(position).generation

    def set_generation(self, position, int16_t generation):
        """Set the generation of the call, which is 0 by default."""
        cdef record_t* record = <record_t*> self.at(position)
        if generation < 0:
            raise ValueError(f"generation must be 0 or above, not {generation}")
        record.generation = generation

    def set_first_generation(self):
        """Set the generation of all calls to 0 again, after a failed attempt to record them."""
        cdef uint32_t i
        for i in range(self.count):
            self.items[i].generation = 0

    def duration_seconds(self):
        """The sum of the durations of the calls that break no rule."""
        cdef int64_t total = 0
        cdef uint32_t i
        for i in range(self.count):
            if self.items[i].party != NO_PARTY:
                total += self.items[i].duration_seconds
        return total

    def derived(self, positions=None):
        """The number of calls with a derived call_id: of all, or at these positions."""
        cdef int64_t count = 0
        cdef uint32_t i
        if positions is None:
            for i in range(self.count):
                count += self.items[i].is_derived
        else:
            for position in positions:
                count += self.at(position).is_derived
        return count

    def packed(self):
        """The calls that break no rule, as bytes that never change for the same calls: seven
        columns of little-endian 64-bit integers (tenant_id, extension_id, direction, disposition,
        duration_seconds, started_at_ns, ended_at_ns or -1), then the texts (caller_number,
        destination_number, call_id, a column each), which hold no NUL, with a NUL after each text,
        also after an empty one."""
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
            pack(self.items, self.count, good, at)
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
        """Complete the list after the last call was added."""
        derive_call_ids(self.items, self.count, self.owners)
        return find_parties(self)

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


def records_of(contents, int32_t occurrence=0):
    """A list of calls, each given as a ``Content`` or a tuple of its values. Checks no rule.

    An empty call_id is derived, with this ``occurrence``. None: a call that breaks a rule.
    OverflowError or ValueError for a number outside the range of its field.
    """
    cdef Records records = Records.__new__(Records)
    cdef record_t record
    for content in contents:
        memset(&record, 0, sizeof(record_t))
        record.party = NO_PARTY
        if content is not None:
            _set_content(&record, content, records.owners)
            record.occurrence = occurrence
        records.add(&record)
    records.complete()
    return records


cdef int _set_text(text_t* text, str given, list owners) except -1:
    cdef bytes data = given.encode()
    owners.append(data)
    text.data = <const uint8_t*> PyBytes_AS_STRING(data)
    text.size = <uint32_t> len(data)
    return 0


cdef int _set_content(record_t* record, content, list owners) except -1:
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


cdef int find_parties(Records records) except -1:
    """Number the different (tenant_id, extension_id) in the order of their first calls."""
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
