# cython: cdivision=True
"""Stored rates, read into builders: from PostgreSQL's binary COPY data, and from tuples.

``RATE_ROW_FIELDS`` is the order of the fields of a row. No object is made for a rate that comes as
COPY data, and its bytes are read without the GIL. The module depends on no table or connection.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_CheckExact
from cython cimport final
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memset

from ..base.copy_format cimport COPY_HEADER_SIZE, NULL_SIZE, big_endian, big_endian4
from ..base.native cimport unlikely
from ..deck.builder cimport DeckBuilder
from ..index.changes cimport PUT, change_t, set_key
from ..index.rate_terms cimport additions_put
from ..pricing.number cimport MAX_DIGITS
from ..pricing.terms cimport (
    MAX_INTERVALS,
    check_interval,
    check_terms,
    fault_t,
    interval_t,
    terms_t,
)
from .call_parse cimport is_utf8, text_t

# The fields of a row in their order, each with the bytes of its integer; 0 for a text. The window
# is stored as whole seconds and nanoseconds. ``intervals`` is a JSON list, not empty, of lists of
# start_seconds, cost_per_minute_e8 and billing_increment, or NULL; all others are never NULL.
RATE_ROW_FIELDS = (
    ("version_id", 8),
    ("rate_id", 8),
    ("prefix", 0),
    ("destination", 0),
    ("cost_per_minute_e8", 8),
    ("billing_increment", 4),
    ("connect_fee_e8", 8),
    ("minimum_seconds", 4),
    ("intervals", 0),
    ("effective_from_s", 8),
    ("effective_from_nanos", 4),
    ("effective_to_s", 8),
    ("effective_to_nanos", 4),
    ("blocked", 1),
    ("tenant_id", 8),
)
# Seconds of an open window, as stored: outside the years 1 to 9999.
OPEN_FROM_S = -62_135_596_801
OPEN_TO_S = 253_402_300_800

cdef int64_t stored_open_from = OPEN_FROM_S
cdef int64_t stored_open_to = OPEN_TO_S

cdef enum:                       # the fields in their order
    VERSION_ID
    RATE_ID
    PREFIX
    DESTINATION
    COST_PER_MINUTE
    BILLING_INCREMENT
    CONNECT_FEE
    MINIMUM_SECONDS
    INTERVALS
    FROM_S
    FROM_NANOS
    TO_S
    TO_NANOS
    BLOCKED
    TENANT_ID
    FIELD_COUNT

cdef enum:
    SIGNATURE_SIZE = 11
    MAX_DESTINATION_BYTES = 0xFFFF
    MAX_NUMBER_DIGITS = 18       # of an integer of an interval
    # Outcomes of adding a row, besides 0.
    BAD = 1                      # a value that a rate cannot have
    DAMAGED = 2                  # the bytes are not a row

cdef const char* SIGNATURE = b"PGCOPY\n\xff\r\n\0"

cdef uint8_t widths[FIELD_COUNT]

for _field, (_name, _width) in enumerate(RATE_ROW_FIELDS):
    widths[_field] = _width

cdef struct row_t:                   # one row as it is stored, not checked
    int64_t integers[FIELD_COUNT]    # undefined for a text
    text_t texts[FIELD_COUNT]        # undefined for an integer
    bint has_intervals               # else they are NULL


cdef const uint8_t* _read_fields(const uint8_t* at, const uint8_t* end, row_t* row) noexcept nogil:
    """Read the fields of a row. Returns its end; NULL: damaged."""
    cdef uint32_t size
    cdef int field
    row.has_intervals = True
    for field in range(FIELD_COUNT):
        if unlikely(end - at < 4):
            return NULL
        size = big_endian4(at)
        at += 4
        if size == NULL_SIZE and field == INTERVALS:
            row.has_intervals = False
            continue
        if unlikely(size > <size_t> (end - at)):
            return NULL
        if widths[field] == 0:
            row.texts[field].data = at
            row.texts[field].size = size
        elif unlikely(size != widths[field]):
            return NULL
        else:
            row.integers[field] = big_endian(at, size)
        at += size
    return at


cdef bint _read_window(const row_t* row, change_t* change) noexcept nogil:
    cdef int64_t from_nanos = row.integers[FROM_NANOS]
    cdef int64_t to_nanos = row.integers[TO_NANOS]
    if not (0 <= from_nanos < 1_000_000_000 and 0 <= to_nanos < 1_000_000_000):
        return False
    change.from_s, change.to_s = INT64_MIN, INT64_MAX
    if row.integers[FROM_S] != stored_open_from:
        change.from_s, change.from_ns = row.integers[FROM_S], <uint32_t> from_nanos
    if row.integers[TO_S] != stored_open_to:
        change.to_s, change.to_ns = row.integers[TO_S], <uint32_t> to_nanos
    return change.from_s < change.to_s or (
        change.from_s == change.to_s and change.from_ns < change.to_ns
    )


cdef bint _read_prefix(const text_t* prefix, change_t* change) noexcept nogil:
    cdef uint32_t i
    if prefix.size > MAX_DIGITS:
        return False
    for i in range(prefix.size):
        if not c'0' <= prefix.data[i] <= c'9':
            return False
    set_key(change, prefix.data, prefix.size)
    return True


cdef const uint8_t* _read_number(
    const uint8_t* at, const uint8_t* end, int64_t* number
) noexcept nogil:
    """Read digits, with spaces before and after. Returns their end; NULL: no number of 64 bits."""
    cdef const uint8_t* first
    at = _skip_spaces(at, end)
    first = at
    number[0] = 0
    while at < end and c'0' <= at[0] <= c'9':
        number[0] = number[0] * 10 + (at[0] - c'0')
        at += 1
    return _skip_spaces(at, end) if 0 < at - first <= MAX_NUMBER_DIGITS else NULL


cdef const uint8_t* _skip_spaces(const uint8_t* at, const uint8_t* end) noexcept nogil:
    while at < end and at[0] == c' ':
        at += 1
    return at


cdef const uint8_t* _after(const uint8_t* at, const uint8_t* end, uint8_t sign) noexcept nogil:
    """The byte after the sign, which may follow spaces. NULL: another byte, or ``at`` is NULL."""
    if at == NULL:
        return NULL
    at = _skip_spaces(at, end)
    return at + 1 if at < end and at[0] == sign else NULL


cdef int _read_intervals(const text_t* text, interval_t* parts) noexcept nogil:
    """Read the intervals of a rate from their JSON. Returns their count; -1 if a rate cannot have
    them."""
    cdef const uint8_t* end = text.data + text.size
    cdef const uint8_t* at = _after(text.data, end, c'[')
    cdef const uint8_t* next_at
    cdef int64_t values[3]
    cdef uint32_t before = 0
    cdef int count = 0
    cdef int i
    cdef fault_t fault
    while count < MAX_INTERVALS:
        at = _after(at, end, c'[')
        for i in range(3):
            if at != NULL:
                at = _read_number(at, end, &values[i])
                at = _after(at, end, c',' if i < 2 else c']')
        if at == NULL or not check_interval(
            values[0], values[1], values[2], before, &parts[count], &fault
        ):
            return -1
        before = parts[count].start_seconds
        count += 1
        next_at = _after(at, end, c',')
        if next_at == NULL:
            at = _after(at, end, c']')
            return count if at != NULL and _skip_spaces(at, end) == end else -1
        at = next_at
    return -1


cdef int _add(DeckBuilder builder, const row_t* row) except -1 nogil:
    """Add a row to a builder. Returns 0, or BAD."""
    cdef change_t change
    cdef terms_t terms
    cdef fault_t fault
    cdef interval_t parts[MAX_INTERVALS]
    cdef const text_t* destination = &row.texts[DESTINATION]
    cdef int interval_count = 0
    memset(&change, 0, sizeof(change_t))
    if unlikely(
        not _read_prefix(&row.texts[PREFIX], &change)
        or not _read_window(row, &change)
        or destination.size > MAX_DESTINATION_BYTES
        or not is_utf8(destination.data, destination.size)
    ):
        return BAD
    if unlikely(row.has_intervals):
        interval_count = _read_intervals(&row.texts[INTERVALS], parts)
        if interval_count < 0:
            return BAD
    if unlikely(not check_terms(
        row.integers[COST_PER_MINUTE],
        row.integers[BILLING_INCREMENT],
        row.integers[CONNECT_FEE],
        row.integers[MINIMUM_SECONDS],
        <uint32_t> interval_count,
        row.integers[BLOCKED] != 0,
        &terms,
        &fault,
    )):
        return BAD
    change.kind = PUT
    change.version_id = row.integers[VERSION_ID]
    change.rate_id = row.integers[RATE_ID]
    additions_put(
        &builder.additions,
        &terms,
        parts,
        <uint32_t> interval_count,
        destination.data,
        destination.size,
        &change.rate_terms,
    )
    builder._add(&change)
    return 0


cdef int _read_integer(object value, int64_t* number) except -1:
    """Returns 0, or BAD for another value than an int of 64 bits."""
    cdef int overflow = 0
    if not PyLong_CheckExact(value):
        return BAD
    number[0] = PyLong_AsLongLongAndOverflow(value, &overflow)
    return BAD if overflow else 0


cdef int _read_text(object value, text_t* text) except -1:
    """Refer to the bytes of a str, which owns them. Returns 0, or BAD for another value."""
    cdef Py_ssize_t size = 0
    if not PyUnicode_CheckExact(value):
        return BAD
    text.data = <const uint8_t*> PyUnicode_AsUTF8AndSize(value, &size)
    text.size = <uint32_t> size
    return BAD if size > 0x7FFFFFFF else 0


cdef int _read_tuple(tuple values, row_t* row) except -1:
    """Returns 0, or BAD."""
    cdef int field
    if len(values) != FIELD_COUNT:
        raise ValueError(f"a stored rate has {FIELD_COUNT} values, not {len(values)}")
    row.has_intervals = values[INTERVALS] is not None
    for field in range(FIELD_COUNT):
        if widths[field]:
            if _read_integer(values[field], &row.integers[field]):
                return BAD
        elif field != INTERVALS or row.has_intervals:
            if _read_text(values[field], &row.texts[field]):
                return BAD
    return 0


@final
cdef class RateRows:
    """Reads stored rates in parts. For one thread.

    Without a builder, the rows of a tenant follow each other, and each tenant gets a builder of its
    own. With one, it gets all rows, which may come from several queries.
    """

    cdef DeckBuilder builder     # of the rows that are read now; None: no row was read
    cdef int64_t tenant_id       # of the last row
    cdef bint is_single          # all rows are for ``builder``
    cdef bint has_begun          # the header of COPY data is read, and not yet its trailer
    cdef list complete           # of (tenant_id, builder)

    def __cinit__(self, DeckBuilder builder=None):
        self.builder = builder
        self.is_single = builder is not None
        self.complete = []

    def read(self, part):
        """Read the next part: whole rows of COPY data as bytes (the first part begins with the
        header, the last one ends with the trailer), or a list of tuples. Returns (tenant_id,
        DeckBuilder) of each tenant whose rows are complete. ValueError for a value that a rate
        cannot have and for damaged data."""
        if type(part) is bytes:
            self._read_copy(part)
        else:
            for values in part:
                self._read_values(values)
        return self._take()

    def end(self):
        """The same for the tenant of the last rows, after all parts are read. ValueError if COPY
        data has no trailer."""
        if self.has_begun:
            raise ValueError("damaged COPY data: no trailer")
        if self.builder is not None and not self.is_single:
            self.complete.append((self.tenant_id, self.builder))
            self.builder = None
        return self._take()

    cdef list _take(self):
        complete, self.complete = self.complete, []
        return complete

    cdef int _read_values(self, object values) except -1:
        cdef row_t row
        if _read_tuple(values, &row) or self._put(&row):
            raise ValueError(f"a stored rate is not valid: {tuple(values)}")
        return 0

    cdef int _read_copy(self, bytes data) except -1:
        cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
        cdef const uint8_t* end = at + PyBytes_GET_SIZE(data)
        cdef row_t row
        cdef int failed = 0
        if not self.has_begun:
            if end - at < COPY_HEADER_SIZE or memcmp(at, SIGNATURE, SIGNATURE_SIZE) != 0 or any(
                data[SIGNATURE_SIZE:COPY_HEADER_SIZE]
            ):
                raise ValueError("damaged COPY data: no header")
            at += COPY_HEADER_SIZE
            self.has_begun = True
        with nogil:
            while at < end and not failed:
                if end - at >= 2 and at[0] == 0xFF and at[1] == 0xFF:
                    failed = 0 if end - at == 2 else DAMAGED
                    self.has_begun = False
                    break
                if unlikely(end - at < 2 or at[0] != 0 or at[1] != FIELD_COUNT):
                    failed = DAMAGED
                    break
                at = _read_fields(at + 2, end, &row)
                failed = DAMAGED if unlikely(at == NULL) else self._put(&row)
        if failed == DAMAGED:
            raise ValueError("damaged COPY data")
        if failed:
            raise ValueError(
                f"a stored rate is not valid: tenant {row.integers[TENANT_ID]},"
                f" version {row.integers[VERSION_ID]}"
            )
        return 0

    cdef int _put(self, const row_t* row) except -1 nogil:
        """Add a row to the builder of its tenant. Returns 0, or BAD."""
        if unlikely(not self.is_single and (
            self.tenant_id != row.integers[TENANT_ID] or self.builder is None
        )):
            with gil:
                if self.builder is not None:
                    self.complete.append((self.tenant_id, self.builder))
                self.builder = DeckBuilder()
                self.tenant_id = row.integers[TENANT_ID]
        return _add(self.builder, row)
