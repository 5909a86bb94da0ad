# cython: cdivision=True
"""Rated calls as rows for bulk inserts: PostgreSQL's binary COPY format, its arrays, and tuples.

``ROW_FIELDS`` is the order of the fields of a row. A row of COPY has its id before them; SQLite
assigns the ids. The module depends on no table or connection.
"""

from cpython.array cimport array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ..deck.batch cimport UNRATED
from ..wire.call_parse cimport text_t
from ..wire.call_rules cimport NO_TIME
from ..base.copy_format cimport (
    COPY_HEADER_SIZE,
    NULL_SIZE,
    big_endian4,
    put_header,
    put_integer,
    put_size,
)
from ..base.memory cimport release, reserve
from .records cimport Records, record_t, text_of
from .stored_rows cimport (
    BILL_SECONDS,
    CALLER_NUMBER,
    CALL_ID,
    COST_FRACTION_E8,
    COST_UNITS,
    CREATED_AT_NS,
    DESTINATION_NUMBER,
    DIRECTION,
    DISPOSITION,
    DURATION_SECONDS,
    ENDED_AT_NS,
    EXTENSION_ID,
    RATE_REVISION,
    RATE_VERSION_ID,
    STARTED_AT_NS,
    STATUS,
    TENANT_ID,
    UNRATED_REASON,
    UPLOAD_ID,
)

# The fields of a row in their order, each with the bytes of its integer; 0 for a text.
ROW_FIELDS = (
    ("tenant_id", 8),
    ("call_id", 0),
    ("extension_id", 8),
    ("caller_number", 0),
    ("destination_number", 0),
    ("direction", 2),
    ("disposition", 2),
    ("duration_seconds", 4),
    ("started_at_ns", 8),
    ("ended_at_ns", 8),
    ("status", 2),
    ("unrated_reason", 2),
    ("bill_seconds", 8),
    ("cost_units", 8),
    ("cost_fraction_e8", 4),
    ("rate_version_id", 8),
    ("rate_revision", 8),
    ("upload_id", 8),
    ("created_at_ns", 8),
    ("generation", 2),
)

cdef enum:
    FIELD_COUNT = 21                         # the id and ROW_FIELDS
    FIXED_SIZE = 2 + FIELD_COUNT * (4 + 8)   # of a row without its texts, at most
    MAX_COPY = 0x7FFFFFFF                    # bytes
    TRAILER_SIZE = 2
    ARRAY_HEADER_SIZE = 20

cdef inline uint8_t* _null(uint8_t* at) noexcept nogil:
    return put_size(at, NULL_SIZE)


cdef inline uint8_t* _optional(uint8_t* at, uint64_t value, uint32_t size) noexcept nogil:
    """Write an integer; 0 becomes NULL."""
    return put_integer(at, value, size) if value else _null(at)


cdef inline uint8_t* _text(uint8_t* at, const text_t* text) noexcept nogil:
    at = put_size(at, text.size)
    if text.size:
        memcpy(at, text.data, text.size)
    return at + text.size


cdef uint8_t* _row(
    uint8_t* at, const record_t* record, int64_t row_id, int64_t upload_id, int64_t created_at_ns
) noexcept nogil:
    at[0] = 0
    at[1] = FIELD_COUNT
    at = put_integer(at + 2, <uint64_t> row_id, 8)
    at = put_integer(at, <uint64_t> record.tenant_id, 8)
    at = _text(at, &record.call_id)
    at = _optional(at, <uint64_t> record.extension_id, 8)
    at = _text(at, &record.caller_number)
    at = _text(at, &record.destination_number)
    at = put_integer(at, record.direction, 2)
    at = put_integer(at, record.disposition, 2)
    at = put_integer(at, <uint64_t> record.duration_seconds, 4)
    at = put_integer(at, <uint64_t> record.started_at_ns, 8)
    if record.ended_at_ns == NO_TIME:
        at = _null(at)
    else:
        at = put_integer(at, <uint64_t> record.ended_at_ns, 8)
    at = put_integer(at, record.status, 2)
    at = _optional(at, record.unrated_reason, 2)
    if record.status == UNRATED:
        at = _null(_null(_null(at)))
    else:
        at = put_integer(at, <uint64_t> record.bill_seconds, 8)
        at = put_integer(at, record.cost_units, 8)
        at = put_integer(at, record.cost_fraction_e8, 4)
    at = _optional(at, <uint64_t> record.version_id, 8)
    at = put_integer(at, <uint64_t> record.rate_revision, 8)
    at = _optional(at, <uint64_t> upload_id, 8)
    at = put_integer(at, <uint64_t> created_at_ns, 8)
    return put_integer(at, <uint64_t> record.generation, 2)


cdef uint64_t _room(
    const record_t* records, const uint32_t* order, Py_ssize_t count
) noexcept nogil:
    """The most bytes that a COPY of these calls needs."""
    cdef uint64_t size = COPY_HEADER_SIZE + TRAILER_SIZE
    cdef const record_t* record
    cdef Py_ssize_t i
    for i in range(count):
        record = &records[order[i]]
        size += FIXED_SIZE + record.call_id.size
        size += record.caller_number.size + record.destination_number.size
    return size


def copy_data(
    Records records not None,
    array order not None,
    int64_t first_id,
    int64_t upload_id,
    int64_t created_at_ns,
):
    """The rated calls at these positions as PostgreSQL's binary COPY data, a row each, with ids
    from ``first_id`` on. No cost may exceed its limit. ``upload_id`` 0: none. OverflowError above 2
    GiB."""
    cdef Py_ssize_t count = len(order)
    cdef Py_ssize_t i
    cdef uint32_t capacity = 0
    cdef uint8_t* data = NULL
    cdef uint8_t* at
    records.check_positions(order)
    try:
        with nogil:
            reserve(
                <void**> &data,
                &capacity,
                _room(records.items, order.data.as_uints, count),
                1,
                MAX_COPY,
            )
            at = put_header(data)
            for i in range(count):
                at = _row(
                    at,
                    &records.items[order.data.as_uints[i]],
                    first_id + i,
                    upload_id,
                    created_at_ns,
                )
            at[0] = at[1] = 0xFF
        return PyBytes_FromStringAndSize(<const char*> data, at + TRAILER_SIZE - data)
    finally:
        release(data)


def column_arrays(const uint8_t[::1] data not None, uint32_t count):
    """The columns of ``copy_data``, the id first, as PostgreSQL's binary arrays: for an INSERT
    whose rows are the elements of its parameters. ``count``: of the rows."""
    cdef uint64_t[FIELD_COUNT] sizes
    cdef (uint8_t*)[FIELD_COUNT] ends
    cdef const uint8_t* at = &data[0]
    cdef const uint8_t* field
    cdef uint64_t size
    cdef uint32_t _row_index, column
    cdef list columns = []
    memset(sizes, 0, sizeof(sizes))
    field = at + COPY_HEADER_SIZE
    for _row_index in range(count):
        field += 2
        for column in range(FIELD_COUNT):
            size = _field_size(field)
            sizes[column] += size
            field += size
    assert field + TRAILER_SIZE == at + len(data), "the data has other rows"
    for column in range(FIELD_COUNT):
        made = PyBytes_FromStringAndSize(NULL, ARRAY_HEADER_SIZE + sizes[column])
        columns.append(made)
        ends[column] = _array_header(<uint8_t*> PyBytes_AS_STRING(made), column, count)
    field = at + COPY_HEADER_SIZE
    for _row_index in range(count):
        field += 2
        for column in range(FIELD_COUNT):
            size = _field_size(field)
            memcpy(ends[column], field, size)
            ends[column] += size
            field += size
    return columns


cdef inline uint64_t _field_size(const uint8_t* field) noexcept nogil:
    """The bytes of a field of COPY with its size before it. An element of an array has the same
    form."""
    cdef uint32_t size = big_endian4(field)
    return 4 if size == NULL_SIZE else 4 + <uint64_t> size


cdef uint8_t* _array_header(uint8_t* at, uint32_t column, uint32_t count) noexcept:
    """One dimension, which may have NULLs, the type, the count, and the lower bound 1."""
    cdef uint32_t size = 8 if column == 0 else <uint32_t> ROW_FIELDS[column - 1][1]
    cdef uint32_t type_id = {8: 20, 4: 23, 2: 21, 0: 25}[size]
    cdef uint32_t[5] numbers = [1, 1, type_id, count, 1]
    cdef uint32_t i
    for i in range(5):
        at = put_size(at, numbers[i])
    return at


# Fields that often have one value in all rows.
SHAREABLE_FIELDS = (
    "tenant_id",
    "extension_id",
    "ended_at_ns",
    "unrated_reason",
    "rate_revision",
    "upload_id",
    "created_at_ns",
    "generation",
)


def shared_fields(Records records not None, array order not None):
    """Those of SHAREABLE_FIELDS that have one value in the rows of the rated calls at these
    positions, in their order."""
    cdef const record_t* first
    cdef const record_t* record
    cdef bint tenant = True, extension = True, ended = True, reason = True
    cdef bint revision = True, generation = True
    cdef Py_ssize_t i
    records.check_positions(order)
    for i in range(1, len(order)):
        first = &records.items[order.data.as_uints[0]]
        record = &records.items[order.data.as_uints[i]]
        tenant &= record.tenant_id == first.tenant_id
        extension &= record.extension_id == first.extension_id
        ended &= record.ended_at_ns == first.ended_at_ns
        reason &= record.unrated_reason == first.unrated_reason
        revision &= record.rate_revision == first.rate_revision
        generation &= record.generation == first.generation
    is_shared = (tenant, extension, ended, reason, revision, True, True, generation)
    return tuple([name for name, same in zip(SHAREABLE_FIELDS, is_shared) if same])


cdef class RowTuples:
    """An iterator of tuples of the rated calls at some positions. It makes one tuple at a time,
    because the garbage collector has to scan thousands of tuples that exist at once.

    Each tuple has the values of ``rows_each`` rows: first those of the fields ``shared``, once, and
    then for each row those of the other fields of ROW_FIELDS. Rows that are left over are not
    read."""

    cdef Records records
    cdef array order
    cdef Py_ssize_t next_index
    cdef Py_ssize_t rows_each
    cdef object upload_id
    cdef object created_at_ns
    cdef Py_ssize_t shared_count
    cdef uint8_t[FIELD_COUNT] fields         # of ROW_FIELDS, those of ``shared`` first

    def __init__(
        self,
        Records records not None,
        array order not None,
        upload_id,
        created_at_ns,
        Py_ssize_t rows_each=1,
        shared=(),
    ):
        """``upload_id`` 0: none. ``shared`` is from ``shared_fields`` of these positions, or
        empty."""
        cdef uint32_t count = 0
        if rows_each < 1:
            raise ValueError(f"rows_each must be 1 or above, not {rows_each}")
        records.check_positions(order)
        self.records = records
        self.order = order
        self.upload_id = upload_id or None
        self.created_at_ns = created_at_ns
        self.rows_each = rows_each
        for is_shared in (True, False):
            for field, (name, _size) in enumerate(ROW_FIELDS, 1):
                if (name in shared) == is_shared:
                    self.fields[count] = field
                    count += 1
            if is_shared:
                self.shared_count = count

    def __iter__(self):
        return self

    def __next__(self):
        cdef Py_ssize_t row_size = FIELD_COUNT - 1 - self.shared_count
        cdef Py_ssize_t at = self.shared_count
        cdef Py_ssize_t end = self.next_index + self.rows_each
        cdef const record_t* record
        cdef tuple made
        cdef Py_ssize_t i
        if end > len(self.order):
            raise StopIteration
        made = PyTuple_New(self.shared_count + self.rows_each * row_size)
        record = &self.records.items[self.order.data.as_uints[self.next_index]]
        for i in range(self.shared_count):
            _set_item(made, i, self._value(record, self.fields[i]))
        while self.next_index < end:
            record = &self.records.items[self.order.data.as_uints[self.next_index]]
            self.next_index += 1
            for i in range(row_size):
                _set_item(made, at, self._value(record, self.fields[self.shared_count + i]))
                at += 1
        return made

    cdef object _value(self, const record_t* record, uint8_t field):
        cdef bint priced = record.status != UNRATED
        if field == TENANT_ID:
            return record.tenant_id
        elif field == CALL_ID:
            return text_of(&record.call_id)
        elif field == EXTENSION_ID:
            return record.extension_id if record.extension_id else None
        elif field == CALLER_NUMBER:
            return text_of(&record.caller_number)
        elif field == DESTINATION_NUMBER:
            return text_of(&record.destination_number)
        elif field == DIRECTION:
            return record.direction
        elif field == DISPOSITION:
            return record.disposition
        elif field == DURATION_SECONDS:
            return record.duration_seconds
        elif field == STARTED_AT_NS:
            return record.started_at_ns
        elif field == ENDED_AT_NS:
            return None if record.ended_at_ns == NO_TIME else record.ended_at_ns
        elif field == STATUS:
            return record.status
        elif field == UNRATED_REASON:
            return record.unrated_reason if record.unrated_reason else None
        elif field == BILL_SECONDS:
            return record.bill_seconds if priced else None
        elif field == COST_UNITS:
            return record.cost_units if priced else None
        elif field == COST_FRACTION_E8:
            return record.cost_fraction_e8 if priced else None
        elif field == RATE_VERSION_ID:
            return record.version_id if record.version_id else None
        elif field == RATE_REVISION:
            return record.rate_revision
        elif field == UPLOAD_ID:
            return self.upload_id
        elif field == CREATED_AT_NS:
            return self.created_at_ns
        else:
            return record.generation


cdef inline void _set_item(tuple made, Py_ssize_t at, object value) noexcept:
    """Set an item of a new tuple."""
    Py_INCREF(value)
    PyTuple_SET_ITEM(made, at, value)
