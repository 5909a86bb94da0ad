# cython: cdivision=True
"""The digest of recorded rows: of rows before they are written, and of rows that were read back
(stored_rows.pyx), with the same packing.

It is stored, and auditors compute it themselves: a format that was ever written must never change.
SHA-256 over the head ``tollwire.cdrs.N`` and the canonical bytes of the rows: columns of
little-endian 64-bit integers, then three columns of texts (call_id, caller_number,
destination_number), which hold no NUL, with a NUL after each.

Format 2, in which new rows are digested, has eighteen columns of integers: id, tenant_id,
extension_id or 0, direction, disposition, duration_seconds, started_at_ns, ended_at_ns or -1,
status, unrated_reason or 0, bill_seconds or 0, the whole units of the cost or 0, the rest of it in
10^-8 or 0, rate_version_id or 0, rate_revision, upload_id or 0, created_at_ns, generation.

Format 1 has sixteen: one column for the cost instead of two, in ten-thousandths or 0, and none for
the generation. It cannot hold a cost with more decimals or a generation above 0, so a row with
either was never digested in it.
"""

from cpython.array cimport array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from hashlib import sha256
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ..deck.batch cimport UNRATED
from ..wire.call_parse cimport text_t
from ..base.native cimport store8
from .records cimport Records, record_t
from .stored_rows cimport StoredRows

cdef enum:
    INTEGERS_1 = 16              # columns of the canonical bytes
    INTEGERS_2 = 18
    E4 = 10_000

# The format of new digests.
FORMAT = 2
# Digested first, so that no digest of other data equals one of rows.
HEADS = {1: b"tollwire.cdrs.1", 2: b"tollwire.cdrs.2"}


cdef inline void _pack_integers(
    uint8_t* at,
    size_t column,
    int format,
    const record_t* record,
    int64_t row_id,
    int64_t upload_id,
    int64_t created_at_ns,
) noexcept nogil:
    """Write the row to each of the columns, which are ``column`` bytes each."""
    cdef bint priced = record.status != UNRATED
    store8(at, <uint64_t> row_id)
    store8(at + column, <uint64_t> record.tenant_id)
    store8(at + 2 * column, <uint64_t> record.extension_id)
    store8(at + 3 * column, record.direction)
    store8(at + 4 * column, record.disposition)
    store8(at + 5 * column, <uint64_t> record.duration_seconds)
    store8(at + 6 * column, <uint64_t> record.started_at_ns)
    store8(at + 7 * column, <uint64_t> record.ended_at_ns)
    store8(at + 8 * column, record.status)
    store8(at + 9 * column, record.unrated_reason)
    store8(at + 10 * column, <uint64_t> record.bill_seconds if priced else 0)
    at += 11 * column
    if format == 1:
        store8(at, record.cost_units * E4 + record.cost_fraction_e8 // E4 if priced else 0)
    else:
        store8(at, record.cost_units if priced else 0)
        at += column
        store8(at, record.cost_fraction_e8 if priced else 0)
        store8(at + 5 * column, <uint64_t> record.generation)
    store8(at + column, <uint64_t> record.version_id)
    store8(at + 2 * column, <uint64_t> record.rate_revision)
    store8(at + 3 * column, <uint64_t> upload_id)
    store8(at + 4 * column, <uint64_t> created_at_ns)


cdef inline uint8_t* _pack_text(uint8_t* at, const text_t* text) noexcept nogil:
    if text.size:
        memcpy(at, text.data, text.size)
    at[text.size] = 0
    return at + text.size + 1


cdef inline const record_t* _in_order(
    const record_t* items, const uint32_t* order, uint32_t i
) noexcept nogil:
    """``order`` NULL: all records, in their order."""
    return &items[order[i]] if order != NULL else &items[i]


cdef uint64_t _size(
    const record_t* items, const uint32_t* order, uint32_t count, size_t integers
) noexcept nogil:
    cdef uint64_t size = <uint64_t> count * (integers * 8 + 3)
    cdef const record_t* record
    cdef uint32_t i
    for i in range(count):
        record = _in_order(items, order, i)
        size += record.call_id.size
        size += record.caller_number.size
        size += record.destination_number.size
    return size


cdef void _pack_texts(
    uint8_t* at, const record_t* items, const uint32_t* order, uint32_t count
) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        at = _pack_text(at, &_in_order(items, order, i).call_id)
    for i in range(count):
        at = _pack_text(at, &_in_order(items, order, i).caller_number)
    for i in range(count):
        at = _pack_text(at, &_in_order(items, order, i).destination_number)


cdef bint _fits_format_1(const record_t* record) noexcept nogil:
    return record.generation == 0 and (
        record.status == UNRATED or record.cost_fraction_e8 % E4 == 0
    )


cdef bytes _digest(int format, bytes packed):
    hashed = sha256(HEADS[format])
    hashed.update(packed)  # releases the GIL from 2 KB on
    return hashed.digest()


def digest_of_new(
    Records records not None,
    array order not None,
    int64_t first_id,
    int64_t upload_id,
    int64_t created_at_ns,
):
    """The digest of the rated calls at these positions as rows with the ids from ``first_id`` on.
    No cost may exceed its limit. ``upload_id`` 0: none."""
    cdef uint32_t count = <uint32_t> len(order)
    cdef size_t column = <size_t> count * 8
    cdef const uint32_t* positions
    cdef const record_t* items = records.items
    cdef bytes packed
    cdef uint8_t* at
    cdef uint32_t i
    records.check_positions(order)
    positions = order.data.as_uints
    packed = PyBytes_FromStringAndSize(
        NULL, <Py_ssize_t> _size(items, positions, count, INTEGERS_2)
    )
    at = <uint8_t*> PyBytes_AS_STRING(packed)
    with nogil:
        for i in range(count):
            _pack_integers(
                at + 8 * <size_t> i,
                column,
                2,
                &items[positions[i]],
                first_id + i,
                upload_id,
                created_at_ns,
            )
        _pack_texts(at + INTEGERS_2 * column, items, positions, count)
    return _digest(FORMAT, packed)


def digest_of_stored(StoredRows rows not None, begin, end, int format=FORMAT):
    """The digest of the rows from position ``begin`` until before ``end``, without misfits, in this
    format (a key of HEADS). b"": the format cannot hold a value of a row."""
    cdef size_t integers = INTEGERS_1 if format == 1 else INTEGERS_2
    cdef uint32_t first = begin
    cdef uint32_t last = end
    cdef uint32_t count
    cdef size_t column
    cdef const record_t* items
    cdef const int64_t* ids = <const int64_t*> rows.ids.data.as_longlongs
    cdef const int64_t* upload_ids = <const int64_t*> rows.upload_ids.data.as_longlongs
    cdef const int64_t* created = <const int64_t*> rows.created_at_ns.data.as_longlongs
    cdef bytes packed
    cdef uint8_t* at
    cdef uint32_t i
    if not first <= last <= rows.records.count:
        raise IndexError(f"no part from {begin} to {end} of {len(rows)} rows")
    if format not in HEADS:
        raise ValueError(f"there is no format {format}")
    count = last - first
    column = <size_t> count * 8
    items = rows.records.items + first
    if format == 1:
        for i in range(count):
            if not _fits_format_1(&items[i]):
                return b""
    packed = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> _size(items, NULL, count, integers))
    at = <uint8_t*> PyBytes_AS_STRING(packed)
    with nogil:
        for i in range(count):
            _pack_integers(
                at + 8 * <size_t> i,
                column,
                format,
                &items[i],
                ids[first + i],
                upload_ids[first + i],
                created[first + i],
            )
        _pack_texts(at + integers * column, items, NULL, count)
    return _digest(format, packed)


def set_unrated(Records records not None, position, uint8_t unrated_reason, int64_t rate_revision):
    """Restore the recorded state of a call that was priced late: UNRATED, for this reason, by the
    rates of this revision."""
    cdef record_t* record = <record_t*> records.at(position)
    record.status = UNRATED
    record.unrated_reason = unrated_reason
    record.bill_seconds = 0
    record.cost_units = 0
    record.cost_fraction_e8 = 0
    record.version_id = 0
    record.rate_revision = rate_revision
