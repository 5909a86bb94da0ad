"""Reading tollwire.v1.ImportRatesRequest from protobuf bytes: one parsed rate, and the parsers.

The field numbers are those of rating_service.proto and types.proto; a test compares them with the
compiled descriptor. Varints, lengths and unknown fields are those of call_parse.pxd.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from .call_parse cimport stamp_t, text_t
from ..pricing.terms cimport terms_t


cdef struct wire_rate_t:             # the fields that an import looks at
    int64_t tenant_id
    text_t prefix                    # each text is valid UTF-8
    text_t destination
    text_t cost_per_minute
    text_t connect_fee
    stamp_t effective_from
    stamp_t effective_to
    int32_t billing_increment
    int32_t minimum_seconds
    uint8_t blocked
    uint8_t has_intervals            # 1: at least one, whose fields were not kept


cdef struct wire_head_t:             # the fields of a message besides its rates
    int64_t tenant_id
    int64_t rate_count
    int32_t mode
    uint8_t dry_run
    uint8_t has_rate_count
    uint8_t allow_gap
    stamp_t effective_from


cdef const uint8_t* parse_rate(
    const uint8_t* at, const uint8_t* end, wire_rate_t* rate
) noexcept nogil
cdef const uint8_t* next_rate(
    const uint8_t* at, const uint8_t* end, wire_head_t* head, text_t* rate
) noexcept nogil
cdef bint read_terms_of(const wire_rate_t* wire, terms_t* terms) noexcept nogil
