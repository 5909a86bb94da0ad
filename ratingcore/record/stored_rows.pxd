"""Stored rows of calls: the layout of one that is read, and the list of them."""

from cpython.array cimport array
from libc.stdint cimport int64_t, uint32_t

from ..wire.call_parse cimport text_t
from .records cimport Records

cdef enum:                       # the fields of a row in their order: "id", then rows.ROW_FIELDS
    ID
    TENANT_ID
    CALL_ID
    EXTENSION_ID
    CALLER_NUMBER
    DESTINATION_NUMBER
    DIRECTION
    DISPOSITION
    DURATION_SECONDS
    STARTED_AT_NS
    ENDED_AT_NS
    STATUS
    UNRATED_REASON
    BILL_SECONDS
    COST_UNITS
    COST_FRACTION_E8
    RATE_VERSION_ID
    RATE_REVISION
    UPLOAD_ID
    CREATED_AT_NS
    GENERATION
    FIELD_COUNT

cdef struct values_t:            # one row as it is stored, not checked
    int64_t integers[FIELD_COUNT]    # 0 if NULL; undefined for a text
    text_t texts[FIELD_COUNT]        # undefined for an integer, and if NULL
    uint32_t nulls                   # bit f: field f is NULL

cdef struct numbers_t:           # the fields of a row besides its call and outcome
    int64_t id
    int64_t upload_id            # 0: none
    int64_t created_at_ns


cdef class StoredRows:
    cdef readonly Records records      # a row at each position; bad if the row is a misfit
    cdef readonly array ids            # q, [len(records)]
    cdef readonly array upload_ids     # q, [len(records)]; 0: none
    cdef readonly array created_at_ns  # q, [len(records)]
    cdef readonly list misfits         # of (position, field, stored value)
    cdef numbers_t* numbers            # [numbers_capacity], until the rows are complete
    cdef uint32_t numbers_capacity

    cdef numbers_t* next_numbers(self) except NULL nogil
    cdef int add(self, const values_t* values) except -1 nogil
    cdef int add_misfit(self, int64_t row_id, int field, object stored) except -1
    cdef int complete(self) except -1
