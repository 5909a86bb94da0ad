"""Calls before they are recorded: the layout of one, and the list of them."""

from cpython.array cimport array
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from ..wire.call_parse cimport text_t

cdef enum:
    MAX_RECORDS = 0xFFFFFF       # in one list
    NO_PARTY = 0xFFFFFFFF        # record_t.party of a call that is refused

cdef struct record_t:
    text_t call_id               # as sent, or derived; these three are UTF-8 without NUL
    text_t caller_number
    text_t destination_number
    text_t source                # the call's own bytes, if it was read from bytes
    int64_t tenant_id
    int64_t extension_id         # 0: none
    int64_t started_at_ns
    int64_t ended_at_ns          # or call_rules.NO_TIME
    uint64_t cost_units          # set by rate_records, as the fields below: whole units
    int64_t bill_seconds
    int64_t version_id           # of the rate that priced the call; 0: none did
    int64_t rate_revision
    int32_t duration_seconds     # 0 to MAX_SECONDS
    int32_t occurrence           # among calls of equal content; 0 and 1: the first
    uint32_t party               # item of party_items; NO_PARTY: the call breaks a rule
    uint32_t cost_fraction_e8    # the rest of the cost
    int16_t generation           # of the call_id: how many CDRs of it were reversed before, from 0
    uint8_t direction
    uint8_t disposition
    uint8_t status               # as in outcome_t; REFUSED also before it is rated
    uint8_t unrated_reason       # 0: none
    uint8_t is_derived           # 1: the call was sent without a call_id

cdef struct party_t:             # tenant and extension of a call
    int64_t tenant_id
    int64_t extension_id         # 0: none


cdef class Records:
    cdef record_t* items         # [count]
    cdef party_t* party_items    # [party_count], all different
    cdef list owners             # of the bytes that the texts point to
    cdef uint32_t count
    cdef uint32_t capacity
    cdef uint32_t party_count
    cdef uint32_t party_capacity

    cdef int add(self, const record_t* record) except -1 nogil
    cdef int complete(self) except -1
    cdef int check_positions(self, array positions) except -1
    cdef const record_t* at(self, object position) except NULL


cdef object text_of(const text_t* text)
cdef int find_parties(Records records) except -1
