# cython: cdivision=True
"""The rates of an import as rows to insert: PostgreSQL's binary COPY data, and tuples.

A row has the fields of ``RATE_ROW_FIELDS`` (rate_rows.pyx), then those of ``HISTORY_FIELDS``. The
module depends on no table or connection.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cython cimport final
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ..base.copy_format cimport (
    COPY_HEADER_SIZE,
    NULL_SIZE,
    put_header,
    put_integer,
    put_size,
)
from ..base.memory cimport release, reserve
from ..base.pool cimport pool_item
from ..index.changes cimport change_digit, change_t
from ..index.rate_terms cimport additions_t
from ..index.tables cimport rate_terms_t
from ..pricing.number cimport MAX_DIGITS
from ..pricing.terms cimport BLOCKED_BIT, MAX_INTERVALS, interval_t, terms_t, whole
from .incoming_deck cimport IncomingDeck, incoming_prefix
from .rate_intake cimport incoming_t

from .rate_rows import OPEN_FROM_S, OPEN_TO_S, RATE_ROW_FIELDS

# The fields of a row after those of the rate, each an integer of 8 bytes.
HISTORY_FIELDS = ("created_revision", "created_at_ns", "updated_at_ns")

cdef enum:
    RATE_FIELDS = 15
    FIELD_COUNT = 18
    # Of a row without its destination and intervals, at most.
    FIXED_SIZE = 2 + FIELD_COUNT * (4 + 8) + MAX_DIGITS
    INTERVAL_SIZE = 3 + 3 * 20   # of the text of an interval, at most
    PART_SIZE = 1 << 20          # bytes of a part of COPY data, about
    MAX_PART = 0x7FFFFFFF

assert len(RATE_ROW_FIELDS) == RATE_FIELDS
assert len(RATE_ROW_FIELDS) + len(HISTORY_FIELDS) == FIELD_COUNT

cdef int64_t open_from_s = OPEN_FROM_S
cdef int64_t open_to_s = OPEN_TO_S

cdef uint8_t* _number(uint8_t* at, uint64_t value) noexcept nogil:
    """Write a number as decimal digits."""
    cdef uint8_t digits[20]
    cdef uint32_t count = 0
    while value or count == 0:
        digits[count] = <uint8_t> (c'0' + value % 10)
        value //= 10
        count += 1
    while count:
        count -= 1
        at[0] = digits[count]
        at += 1
    return at


cdef uint8_t* _intervals(uint8_t* at, const interval_t* intervals, uint32_t count) noexcept nogil:
    """Write the JSON of intervals, without spaces. Needs INTERVAL_SIZE bytes for each, and 1."""
    cdef uint32_t i
    at[0] = c'['
    at += 1
    for i in range(count):
        at[0] = c'['
        at = _number(at + 1, intervals[i].start_seconds)
        at[0] = c','
        at = _number(at + 1, intervals[i].price_e8)
        at[0] = c','
        at = _number(at + 1, intervals[i].increment)
        at[0] = c']'
        at[1] = c','
        at += 2
    (at - 1)[0] = c']'
    return at


cdef inline uint32_t _prefix_digits(const incoming_t* rate, uint8_t* digits) noexcept nogil:
    cdef change_t key
    cdef uint32_t i
    key.key_high, key.key_low = rate.key_high, rate.key_low
    for i in range(rate.length):
        digits[i] = <uint8_t> (c'0' + change_digit(&key, <int> i))
    return rate.length


@final
cdef class RateRowWriter:
    """The rows of the numbered rates of an import: ``copy_part`` until it is empty, or the tuples
    of the iterator. ``created_at_ns``: when the rates that are not new were created, by their ids;
    the others are created ``now_ns``. For one thread; the deck must not change meanwhile."""

    cdef IncomingDeck deck
    cdef int64_t revision
    cdef int64_t now_ns
    cdef dict created_at_ns
    cdef uint32_t next_index         # of the rates
    cdef bint is_complete            # the trailer is written
    cdef list terms                  # of each terms: the objects of its fields, or None
    cdef list destinations           # of each destination: its str, or None
    cdef tuple open_from             # of fields
    cdef tuple open_to
    cdef tuple last                  # the fields after the window that all rows share

    def __init__(self, IncomingDeck deck not None, revision, dict created_at_ns not None, now_ns):
        deck._require_idle()
        self.deck = deck
        self.revision = whole(revision, "revision")
        self.now_ns = whole(now_ns, "now_ns")
        self.created_at_ns = created_at_ns
        self.terms = [None] * deck.intake.additions.terms.count
        self.destinations = [None] * deck.intake.additions.destinations.count
        self.open_from = (OPEN_FROM_S, 0)
        self.open_to = (OPEN_TO_S, 0)
        self.last = (deck.tenant_id, revision, now_ns)

    def __len__(self):
        return self.deck.intake.count

    def copy_part(self):
        """The next rows as COPY data: the first part begins with the header, the last one ends
        with the trailer. Empty after the last one. Releases the GIL if all rates are new."""
        cdef uint32_t capacity = 0
        cdef uint32_t size = 0
        cdef uint8_t* data = NULL
        if self.is_complete:
            return b""
        self.deck._require_idle()
        try:
            reserve(<void**> &data, &capacity, PART_SIZE, 1, MAX_PART)
            if self.next_index == 0:
                put_header(data)
                size = COPY_HEADER_SIZE
            if self.created_at_ns:
                while self.next_index < self.deck.intake.count and size < PART_SIZE:
                    created = self.created_at_ns.get(
                        self.deck.intake.rates[self.next_index].rate_id, self.now_ns
                    )
                    self._copy_rows(&data, &capacity, &size, self.next_index + 1, created)
            else:
                with nogil:
                    self._copy_rows(
                        &data, &capacity, &size, self.deck.intake.count, self.now_ns
                    )
            if self.next_index >= self.deck.intake.count:
                reserve(<void**> &data, &capacity, <uint64_t> size + 2, 1, MAX_PART)
                data[size] = data[size + 1] = 0xFF
                size += 2
                self.is_complete = True
            return PyBytes_FromStringAndSize(<const char*> data, size)
        finally:
            release(data)

    def __iter__(self):
        return self

    def __next__(self):
        cdef const incoming_t* rate
        cdef const rate_terms_t* rate_terms
        cdef tuple row, terms
        cdef object version_id, rate_id
        if self.next_index >= self.deck.intake.count:
            raise StopIteration
        rate = &self.deck.intake.rates[self.next_index]
        self.next_index += 1
        rate_terms = &(<const rate_terms_t*> self.deck.intake.additions.rate_terms.data)[
            rate.rate_terms
        ]
        terms = self._terms(rate_terms.terms)
        version_id = rate.version_id
        rate_id = version_id if rate.rate_id == rate.version_id else rate.rate_id
        row = PyTuple_New(FIELD_COUNT)
        _set(row, 0, version_id)
        _set(row, 1, rate_id)
        _set(row, 2, incoming_prefix(rate))
        _set(row, 3, self._destination(rate_terms.destination))
        _set_all(row, 4, terms, 5)
        if rate.from_s == INT64_MIN:
            _set_all(row, 9, self.open_from, 2)
        else:
            _set_all(row, 9, (rate.from_s, rate.from_ns), 2)
        if rate.to_s == INT64_MAX:
            _set_all(row, 11, self.open_to, 2)
        else:
            _set_all(row, 11, (rate.to_s, rate.to_ns), 2)
        _set(row, 13, terms[5])
        _set(row, 14, self.last[0])
        _set(row, 15, self.last[1])
        _set(row, 16, self.created_at_ns.get(rate_id, self.last[2]))
        _set(row, 17, self.last[2])
        return row

    cdef tuple _terms(self, uint32_t number):
        """cost_per_minute_e8 to intervals, and blocked."""
        cdef const additions_t* additions = &self.deck.intake.additions
        cdef const terms_t* terms
        cdef uint8_t text[MAX_INTERVALS * INTERVAL_SIZE + 1]
        cdef const uint8_t* item
        cdef uint8_t* end
        cdef uint32_t size
        found = self.terms[number]
        if found is None:
            terms = &(<const terms_t*> additions.terms.data)[number]
            item = pool_item(&additions.intervals, terms.intervals, &size)
            intervals = None
            if size:
                end = _intervals(
                    text, <const interval_t*> item, size // <uint32_t> sizeof(interval_t)
                )
                intervals = text[: end - text].decode("ascii")
            found = self.terms[number] = (
                terms.price_e8,
                terms.increment & ~<uint32_t> BLOCKED_BIT,
                terms.connect_fee_e8,
                terms.minimum_seconds,
                intervals,
                1 if terms.increment & BLOCKED_BIT else 0,
            )
        return found

    cdef object _destination(self, uint32_t number):
        cdef const uint8_t* item
        cdef uint32_t size
        found = self.destinations[number]
        if found is None:
            item = pool_item(&self.deck.intake.additions.destinations, number, &size)
            found = self.destinations[number] = item[:size].decode()
        return found

    cdef int _copy_rows(
        self, uint8_t** data, uint32_t* capacity, uint32_t* size, uint32_t stop, int64_t created
    ) except -1 nogil:
        """Write rows until ``stop`` or until the part is long enough."""
        cdef const additions_t* additions = &self.deck.intake.additions
        cdef const incoming_t* rate
        cdef const rate_terms_t* rate_terms
        cdef const terms_t* terms
        cdef const uint8_t* destination
        cdef const uint8_t* intervals
        cdef uint32_t destination_size, interval_bytes
        while self.next_index < stop and size[0] < PART_SIZE:
            rate = &self.deck.intake.rates[self.next_index]
            rate_terms = &(<const rate_terms_t*> additions.rate_terms.data)[rate.rate_terms]
            terms = &(<const terms_t*> additions.terms.data)[rate_terms.terms]
            destination = pool_item(
                &additions.destinations, rate_terms.destination, &destination_size
            )
            intervals = pool_item(&additions.intervals, terms.intervals, &interval_bytes)
            reserve(
                <void**> data,
                capacity,
                <uint64_t> size[0] + FIXED_SIZE + destination_size + 1
                + interval_bytes // sizeof(interval_t) * INTERVAL_SIZE,
                1,
                MAX_PART,
            )
            size[0] = <uint32_t> (
                self._copy_row(
                    data[0] + size[0],
                    rate,
                    terms,
                    destination,
                    destination_size,
                    <const interval_t*> intervals,
                    interval_bytes // <uint32_t> sizeof(interval_t),
                    created,
                )
                - data[0]
            )
            self.next_index += 1
        return 0

    cdef uint8_t* _copy_row(
        self,
        uint8_t* at,
        const incoming_t* rate,
        const terms_t* terms,
        const uint8_t* destination,
        uint32_t destination_size,
        const interval_t* intervals,
        uint32_t interval_count,
        int64_t created,
    ) noexcept nogil:
        cdef uint8_t* text
        cdef bint from_open = rate.from_s == INT64_MIN
        cdef bint to_open = rate.to_s == INT64_MAX
        at[0], at[1] = 0, FIELD_COUNT
        at = put_integer(at + 2, <uint64_t> rate.version_id, 8)
        at = put_integer(at, <uint64_t> rate.rate_id, 8)
        at = put_size(at, rate.length)
        at += _prefix_digits(rate, at)
        at = put_size(at, destination_size)
        memcpy(at, destination, destination_size)
        at = put_integer(at + destination_size, terms.price_e8, 8)
        at = put_integer(at, terms.increment & ~<uint32_t> BLOCKED_BIT, 4)
        at = put_integer(at, terms.connect_fee_e8, 8)
        at = put_integer(at, terms.minimum_seconds, 4)
        if interval_count:
            text = _intervals(at + 4, intervals, interval_count)
            put_size(at, <uint32_t> (text - at - 4))
            at = text
        else:
            at = put_size(at, NULL_SIZE)
        at = put_integer(at, <uint64_t> (open_from_s if from_open else rate.from_s), 8)
        at = put_integer(at, 0 if from_open else rate.from_ns, 4)
        at = put_integer(at, <uint64_t> (open_to_s if to_open else rate.to_s), 8)
        at = put_integer(at, 0 if to_open else rate.to_ns, 4)
        at = put_integer(at, 1 if terms.increment & BLOCKED_BIT else 0, 1)
        at = put_integer(at, <uint64_t> self.deck.tenant_id, 8)
        at = put_integer(at, <uint64_t> self.revision, 8)
        at = put_integer(at, <uint64_t> created, 8)
        return put_integer(at, <uint64_t> self.now_ns, 8)


cdef inline void _set(tuple row, Py_ssize_t at, object value):
    Py_INCREF(value)
    PyTuple_SET_ITEM(row, at, value)


cdef inline void _set_all(tuple row, Py_ssize_t at, tuple values, Py_ssize_t count):
    cdef Py_ssize_t i
    for i in range(count):
        _set(row, at + i, values[i])
