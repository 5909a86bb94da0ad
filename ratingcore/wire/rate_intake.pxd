"""The rates of an import: their layout, the simple valid ones, their order."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..index.rate_terms cimport additions_t
from ..index.tables cimport tables_t
from .rate_parse cimport wire_rate_t

cdef struct incoming_t:          # 72 bytes
    uint64_t key_high            # the prefix, as in change_t
    uint64_t key_low
    int64_t from_s               # the window, as in window_t
    int64_t to_s
    int64_t version_id           # 0 until it is known
    int64_t rate_id              # 0 until it is known
    uint32_t from_ns
    uint32_t to_ns
    uint32_t rate_terms          # item of additions.rate_terms
    uint32_t index               # position in the deck, from 0
    uint8_t length               # digits of the prefix

cdef struct instant_t:
    int64_t s
    uint32_t ns

cdef struct effect_t:            # which prefixes have a rate in effect at one instant
    uint32_t before              # in the base
    uint32_t after               # after the import
    uint32_t gaps                # in effect before, not after, and with a later rate
    int64_t begins_s             # the start of the first rate after that instant
    uint32_t begins_ns           # begins_s is INT64_MAX without such a rate

cdef struct growth_t:            # the deck after the import
    uint32_t most_rates          # of one prefix, of those with a rate of the import
    uint64_t most_bytes          # by which the deck grows at most

cdef struct intake_t:
    incoming_t* rates            # [count]
    additions_t additions        # the terms of the rates
    instant_t from_default       # the start of a rate without one
    uint32_t count
    uint32_t capacity

cdef int intake_init(intake_t* intake) except -1 nogil
cdef void intake_free(intake_t* intake) noexcept nogil
cdef size_t intake_nbytes(const intake_t* intake) noexcept nogil
cdef incoming_t* intake_add(intake_t* intake) except NULL nogil
cdef int intake_take(
    intake_t* intake, const wire_rate_t* wire, int64_t tenant_id, uint32_t index
) except -1 nogil
cdef void intake_sort(intake_t* intake) noexcept nogil
cdef int by_key(const incoming_t* a, const incoming_t* b) noexcept nogil
cdef int intake_compare(
    intake_t* intake,
    const tables_t* base,
    bint replace,
    const instant_t* closing,
    const instant_t* at,
    uint32_t* gone,
    uint32_t* gone_count,
    uint32_t* updated_count,
    uint32_t* closed,
    uint32_t* closed_count,
    effect_t* effect,
    growth_t* growth,
) except -1 nogil
