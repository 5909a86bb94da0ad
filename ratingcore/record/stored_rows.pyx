# cython: cdivision=True
"""Stored rows, read back into records: from PostgreSQL's binary COPY data, and from tuples.

The rows that rows.pyx writes are read unchanged. A database whose constraints were removed may hold
rows that were never recorded. A row with a value that a record cannot hold, or that the table's
constraints refuse, is a *misfit*. It keeps its position, is bad among the records, and is listed
with its first such field. So two different rows never give the same record.

Damaged COPY data raises ValueError and no other exception: its bytes are not trusted.
"""

from cpython.array cimport array, clone
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_CheckExact
from cython cimport final
from libc.stdint cimport INT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ..deck.batch cimport RATED, UNRATED
from ..wire.call_parse cimport is_utf8, text_t
from ..wire.call_rules cimport LAST_DIRECTION, LAST_DISPOSITION, NO_TIME, holds_nul
from ..base.copy_format cimport COPY_HEADER_SIZE, NULL_SIZE, big_endian, big_endian4
from ..base.memory cimport release, reserve
from ..pricing.money cimport E8, MAX_COST_UNITS
from ..pricing.terms cimport MAX_SECONDS
from ..base.native cimport unlikely
from .records cimport MAX_RECORDS, NO_PARTY, Records, find_parties, record_t

from array import array as new_array

from .rows import ROW_FIELDS as _ROW_FIELDS

# The fields of a stored row in their order, as in ROW_FIELDS.
STORED_FIELDS = (("id", 8), *_ROW_FIELDS)

cdef array _INTEGERS = new_array("q")

cdef enum:
    FITS = -1                    # instead of a field
    DAMAGED = -2                 # instead of a field: the bytes are not a row
    SIGNATURE_SIZE = 11
    LAST_REASON = 3
    ARENA_SIZE = 1 << 20         # bytes of texts that one object holds
    # Fields in which NULL, and no other value, means none.
    OPTIONAL = (
        1 << EXTENSION_ID | 1 << ENDED_AT_NS | 1 << UNRATED_REASON | 1 << BILL_SECONDS
        | 1 << COST_UNITS | 1 << COST_FRACTION_E8 | 1 << RATE_VERSION_ID | 1 << UPLOAD_ID
    )
    TEXTS = 1 << CALL_ID | 1 << CALLER_NUMBER | 1 << DESTINATION_NUMBER

cdef const char* SIGNATURE = b"PGCOPY\n\xff\r\n\0"

cdef uint8_t widths[FIELD_COUNT]     # bytes of a field's integer; 0: a text
cdef int64_t least[FIELD_COUNT]      # the least allowed value; undefined for a text
cdef int64_t most[FIELD_COUNT]

_RANGES = {
    "tenant_id": (1, INT64_MAX),
    "extension_id": (1, INT64_MAX),
    "direction": (1, LAST_DIRECTION),
    "disposition": (1, LAST_DISPOSITION),
    "duration_seconds": (0, MAX_SECONDS),
    "started_at_ns": (0, INT64_MAX - 1),
    "ended_at_ns": (0, INT64_MAX - 1),
    "status": (RATED, UNRATED),
    "unrated_reason": (1, LAST_REASON),
    "cost_units": (0, MAX_COST_UNITS),
    "cost_fraction_e8": (0, E8 - 1),
    "rate_version_id": (1, INT64_MAX),
    "upload_id": (1, INT64_MAX),
    "generation": (0, 0x7FFF),
}
for _field, (_name, _width) in enumerate(STORED_FIELDS):
    widths[_field] = _width
    least[_field], most[_field] = _RANGES.get(_name, (0, INT64_MAX))


@final
cdef class StoredRows:
    """Rows in their order. ``records`` has the calls and their outcomes; ``ids``, ``upload_ids`` (0
    for none) and ``created_at_ns`` are arrays of type q. ``misfits`` has (position, field, stored
    value) of each row that no recording can have written. Made by ``read_copy`` and
    ``read_tuples``."""

    def __cinit__(self):
        self.records = Records.__new__(Records)
        self.misfits = []

    def __init__(self):
        raise TypeError("read_copy and read_tuples make these")

    def __dealloc__(self):
        release(self.numbers)

    def __len__(self):
        return self.records.count

    cdef int add(self, const values_t* values) except -1 nogil:
        """Add a row. If it is a misfit, adds nothing and returns the field; else 0."""
        cdef record_t record
        cdef numbers_t* numbers
        cdef int field = _first_misfit(values)
        if unlikely(field != FITS):
            return field
        _set_record(&record, values)
        numbers = self.next_numbers()
        numbers.id = values.integers[ID]
        numbers.upload_id = values.integers[UPLOAD_ID]
        numbers.created_at_ns = values.integers[CREATED_AT_NS]
        self.records.add(&record)
        return 0

    cdef numbers_t* next_numbers(self) except NULL nogil:
        reserve(
            <void**> &self.numbers,
            &self.numbers_capacity,
            <uint64_t> self.records.count + 1,
            sizeof(numbers_t),
            MAX_RECORDS,
        )
        return &self.numbers[self.records.count]

    cdef int add_misfit(self, int64_t row_id, int field, object stored) except -1:
        cdef record_t record
        cdef numbers_t* numbers = self.next_numbers()
        memset(&record, 0, sizeof(record_t))
        record.party = NO_PARTY
        memset(numbers, 0, sizeof(numbers_t))
        numbers.id = row_id
        self.misfits.append((self.records.count, STORED_FIELDS[field][0], stored))
        self.records.add(&record)
        return 0

    cdef int complete(self) except -1:
        """Complete the rows after the last one was added."""
        cdef uint32_t count = self.records.count
        cdef uint32_t i
        self.ids = clone(_INTEGERS, count, zero=False)
        self.upload_ids = clone(_INTEGERS, count, zero=False)
        self.created_at_ns = clone(_INTEGERS, count, zero=False)
        for i in range(count):
            self.ids.data.as_longlongs[i] = self.numbers[i].id
            self.upload_ids.data.as_longlongs[i] = self.numbers[i].upload_id
            self.created_at_ns.data.as_longlongs[i] = self.numbers[i].created_at_ns
        release(self.numbers)
        self.numbers = NULL
        return find_parties(self.records)


cdef inline bint _is_null(const values_t* values, int field) noexcept nogil:
    return (values.nulls >> field & 1) != 0


cdef inline bint _is_text(const text_t* text) noexcept nogil:
    return not holds_nul(text) and is_utf8(text.data, text.size)


cdef int _first_misfit(const values_t* values) noexcept nogil:
    """The first field whose value no recording can have written, or FITS."""
    cdef int field
    for field in range(TENANT_ID, FIELD_COUNT):
        if unlikely(_is_null(values, field)):
            if not OPTIONAL >> field & 1:
                return field
        elif widths[field] == 0:
            if not _is_text(&values.texts[field]):
                return field
        elif not least[field] <= values.integers[field] <= most[field]:
            return field
    if values.texts[CALL_ID].size == 0:
        return CALL_ID
    return _first_misfit_of_outcome(values)


cdef int _first_misfit_of_outcome(const values_t* values) noexcept nogil:
    """Check that UNRATED has only a reason, every other status a cost, and RATED a rate."""
    cdef bint unrated = values.integers[STATUS] == UNRATED
    cdef bint rated = values.integers[STATUS] == RATED
    if unrated == _is_null(values, UNRATED_REASON):
        return UNRATED_REASON
    if unrated != _is_null(values, BILL_SECONDS):
        return BILL_SECONDS
    if unrated != _is_null(values, COST_UNITS):
        return COST_UNITS
    if unrated != _is_null(values, COST_FRACTION_E8):
        return COST_FRACTION_E8
    return RATE_VERSION_ID if rated == _is_null(values, RATE_VERSION_ID) else FITS


cdef void _set_record(record_t* record, const values_t* values) noexcept nogil:
    memset(&record.source, 0, sizeof(text_t))
    record.party = 0
    record.tenant_id = values.integers[TENANT_ID]
    record.call_id = values.texts[CALL_ID]
    record.extension_id = values.integers[EXTENSION_ID]
    record.caller_number = values.texts[CALLER_NUMBER]
    record.destination_number = values.texts[DESTINATION_NUMBER]
    record.direction = <uint8_t> values.integers[DIRECTION]
    record.disposition = <uint8_t> values.integers[DISPOSITION]
    record.duration_seconds = <int32_t> values.integers[DURATION_SECONDS]
    record.started_at_ns = values.integers[STARTED_AT_NS]
    record.ended_at_ns = NO_TIME if _is_null(values, ENDED_AT_NS) else values.integers[ENDED_AT_NS]
    record.status = <uint8_t> values.integers[STATUS]
    record.unrated_reason = <uint8_t> values.integers[UNRATED_REASON]
    record.bill_seconds = values.integers[BILL_SECONDS]
    record.cost_units = <uint64_t> values.integers[COST_UNITS]
    record.cost_fraction_e8 = <uint32_t> values.integers[COST_FRACTION_E8]
    record.version_id = values.integers[RATE_VERSION_ID]
    record.rate_revision = values.integers[RATE_REVISION]
    record.generation = <int16_t> values.integers[GENERATION]


# PostgreSQL's binary COPY data.


cdef const uint8_t* _read_fields(
    const uint8_t* at, const uint8_t* end, values_t* values
) noexcept nogil:
    """Read the fields of a row. Returns its end; NULL: damaged."""
    cdef uint32_t size
    cdef int field
    values.nulls = 0
    for field in range(FIELD_COUNT):
        if unlikely(end - at < 4):
            return NULL
        size = big_endian4(at)
        at += 4
        if size == NULL_SIZE:
            values.nulls |= <uint32_t> 1 << field
            values.integers[field] = 0
            continue
        if unlikely(size > <size_t> (end - at)):
            return NULL
        if widths[field] == 0:
            values.texts[field].data = at
            values.texts[field].size = size
        elif unlikely(size != widths[field]):
            return NULL
        else:
            values.integers[field] = big_endian(at, size)
        at += size
    return at


cdef const uint8_t* _first_row(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The end of the header. NULL: it is not one."""
    cdef uint32_t size
    if end - at < COPY_HEADER_SIZE or memcmp(at, SIGNATURE, SIGNATURE_SIZE) != 0:
        return NULL
    if big_endian4(at + SIGNATURE_SIZE) >> 16:
        return NULL  # a flag that changes the format
    size = big_endian4(at + SIGNATURE_SIZE + 4)
    at += COPY_HEADER_SIZE
    return at + size if size <= <size_t> (end - at) else NULL


cdef int _read_all(
    StoredRows rows, const uint8_t** place, const uint8_t* end, values_t* values
) except -3 nogil:
    """Add the rows from ``at`` on. Returns FITS at the end; the field of a misfit, whose row is
    then in ``values``; or DAMAGED. ``at`` is then the end of the last row that was read."""
    cdef const uint8_t* at = place[0]
    cdef int field
    while end - at >= 2:
        if at[0] == 0xFF and at[1] == 0xFF:
            return FITS if end - at == 2 else DAMAGED
        if unlikely(at[0] != 0 or at[1] != FIELD_COUNT):
            return DAMAGED
        at = _read_fields(at + 2, end, values)
        if unlikely(at == NULL or values.nulls & 1 << ID):
            return DAMAGED
        field = rows.add(values)
        place[0] = at
        if unlikely(field):
            return field
    return DAMAGED


cdef object _stored(const values_t* values, int field):
    if _is_null(values, field):
        return None
    if widths[field]:
        return values.integers[field]
    return PyBytes_FromStringAndSize(
        <const char*> values.texts[field].data, values.texts[field].size
    )


def read_copy(bytes data not None):
    """Read the rows of one whole COPY of STORED_FIELDS, from its header to its trailer. ValueError
    for other data. Releases the GIL, and keeps ``data``."""
    cdef StoredRows rows = StoredRows.__new__(StoredRows)
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(data)
    cdef values_t values
    cdef int field = DAMAGED
    at = _first_row(at, end)
    while at != NULL:
        with nogil:
            field = _read_all(rows, &at, end, &values)
        if field < 0:
            break
        rows.add_misfit(values.integers[ID], field, _stored(&values, field))
    if field != FITS:
        raise ValueError(f"damaged COPY data behind {len(rows)} rows")
    rows.records.owners.append(data)
    rows.complete()
    return rows


# Tuples.


cdef class _Arena:
    """Copies of texts, in objects that ``owners`` keeps. So each tuple can be freed after it is
    read."""

    cdef list owners
    cdef uint8_t* at
    cdef Py_ssize_t left

    cdef int keep(self, text_t* text) except -1:
        cdef bytes room
        cdef Py_ssize_t size = text.size
        if size > self.left:
            self.left = max(size, ARENA_SIZE)
            room = PyBytes_FromStringAndSize(NULL, self.left)
            self.owners.append(room)
            self.at = <uint8_t*> PyBytes_AS_STRING(room)
        if size:
            memcpy(self.at, text.data, size)
        text.data = self.at
        self.at += size
        self.left -= size
        return 0


cdef int _take(values_t* values, int field, object value, _Arena arena) except -2:
    """Set a field of the row. Returns FITS, or the field if its type cannot be the value's."""
    cdef Py_ssize_t size = 0
    cdef int overflow = 0
    if value is None:
        values.nulls |= <uint32_t> 1 << field
        values.integers[field] = 0
        return FITS
    if TEXTS >> field & 1:
        if not PyUnicode_CheckExact(value):
            return field
        try:
            values.texts[field].data = <const uint8_t*> PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:
            return field
        if unlikely(size >> 32):
            return field
        values.texts[field].size = <uint32_t> size
        arena.keep(&values.texts[field])
        return FITS
    if not PyLong_CheckExact(value):
        return field
    values.integers[field] = PyLong_AsLongLongAndOverflow(value, &overflow)
    return field if overflow else FITS


def read_tuples(rows):
    """Read rows, each a tuple of the values of STORED_FIELDS. ValueError for a row without an id or
    with another number of values."""
    cdef StoredRows made = StoredRows.__new__(StoredRows)
    cdef _Arena arena = _Arena.__new__(_Arena)
    cdef values_t values
    cdef tuple row
    cdef int field
    cdef int misfit
    arena.owners = made.records.owners
    for row in rows:
        if row is None or len(row) != FIELD_COUNT:
            raise ValueError(f"a stored row has {FIELD_COUNT} values")
        misfit = FITS
        values.nulls = 0
        for field in range(FIELD_COUNT):
            if _take(&values, field, row[field], arena) != FITS and misfit == FITS:
                misfit = field
        if misfit == ID or values.nulls & 1 << ID:
            raise ValueError(f"a stored row has no id: {row[ID]!r}")
        if misfit == FITS:
            misfit = made.add(&values) or FITS
        if misfit != FITS:
            made.add_misfit(values.integers[ID], misfit, row[misfit])
    made.complete()
    return made
