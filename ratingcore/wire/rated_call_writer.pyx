# cython: cdivision=True
"""Writes the outcomes of a block of calls: a response's field 1, repeated tollwire.v1.RatedCall.

The fields of a RatedCall are short, and to copy a few bytes too many costs less than a loop or
branch that depends on their count. So most fields are written as whole words, and the next field
overwrites the rest. ``measure_block`` returns the most room that this takes.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from ..deck.batch cimport REFUSED, UNRATED, call_t, outcome_t
from .bulk cimport block_t, job_t
from .call_parse cimport text_t
from ..pricing.money cimport E8, split_cost
from ..pricing.terms cimport BLOCKED_BIT, terms_t
from ..base.native cimport all_digits, likely, load8, prefetch, unlikely
from .wire_writer cimport MAX_VARINT, write_money, write_varint
from ..pricing.number cimport MAX_DIGITS, dialling_t, normalize
from ..index.tables cimport (
    NO_ROW,
    destination_place,
    destinations_end,
    rate_terms_destination,
    price_terms,
    rate_id_place,
    row_rate_terms,
    row_rate_id,
    tables_t,
)

cdef enum:
    WORDS = 32                      # bytes of a copy, unless fewer are readable
    # The bytes of one RatedCall besides call_id and destination: tags and lengths, six varints, the
    # prefix, two amounts of up to 20 characters, and the surplus of the last copy.
    FIXED_ROOM = 16 * 3 + 6 * MAX_VARINT + MAX_DIGITS + 2 * 20 + WORDS

# The tags of tollwire.v1.RatedCall: field number << 3 | wire type.
cdef enum:
    TAG_RATED = 1 << 3 | 2          # StreamRateCallsResponse.rated, BatchRateCallsResponse.rated
    TAG_CALL_ID = 1 << 3 | 2
    TAG_STATUS = 2 << 3 | 0
    TAG_UNRATED_REASON = 3 << 3 | 0
    TAG_BILL_SECONDS = 4 << 3 | 0
    TAG_COST = 5 << 3 | 2
    TAG_RATE_ID = 6 << 3 | 0
    TAG_MATCHED_PREFIX = 7 << 3 | 2
    TAG_DESTINATION = 8 << 3 | 2
    TAG_COST_PER_MINUTE = 9 << 3 | 2
    TAG_BILLING_INCREMENT = 10 << 3 | 0
    TAG_RATE_REVISION = 11 << 3 | 0


cdef inline uint8_t* _short_varint(uint8_t* at, uint64_t value) noexcept nogil:
    """The same for one byte or two, without a branch that depends on the size."""
    cdef uint64_t more = value >= 0x80
    if unlikely(value >= 0x4000):
        return write_varint(at, value)
    at[0] = <uint8_t> (value | more << 7)
    at[1] = <uint8_t> (value >> 7)
    return at + 1 + more


cdef inline uint8_t* _text(
    uint8_t* at, uint8_t tag, const text_t* text, const uint8_t* readable_end
) noexcept nogil:
    """Write a field of bytes, from memory that is readable until ``readable_end``."""
    at[0] = tag
    if likely(text.size <= WORDS and readable_end - text.data >= WORDS):
        at[1] = <uint8_t> text.size
        memcpy(at + 2, text.data, WORDS)
        return at + 2 + text.size
    at = write_varint(at + 1, text.size)
    memcpy(at, text.data, text.size)
    return at + text.size


cdef inline uint8_t* _price(uint8_t* at, uint8_t tag, uint64_t price_e8) noexcept nogil:
    cdef uint64_t units = price_e8 // E8
    return write_money(at, tag, units, <uint32_t> (price_e8 - units * E8), 0)


cdef inline uint8_t* _cost(
    uint8_t* at, uint64_t cost_scaled, uint32_t cost_decimals
) noexcept nogil:
    cdef uint64_t units
    cdef uint32_t fraction_e8 = split_cost(cost_scaled, cost_decimals, &units)
    return write_money(at, TAG_COST, units, fraction_e8, cost_decimals)


cdef inline bint _may_be_rewritten(const dialling_t* rules, uint8_t first) noexcept nogil:
    """Whether a dialling rule may apply to a number that begins with this character."""
    return (
        (rules.international_prefix_length > 0 and rules.international_prefix[0] == first)
        or (rules.national_prefix_length > 0 and rules.national_prefix[0] == first)
    )


cdef inline uint64_t _first(uint64_t word, uint32_t count) noexcept nogil:
    """The first ``count`` of eight characters, 1 to 8, with zeros ("0") before them."""
    return word << (64 - 8 * count) | (<uint64_t> 0x3030303030303030 >> (8 * count - 1) >> 1)


cdef inline bint _begins_with_digits(const uint8_t* text, uint32_t count) noexcept nogil:
    """Whether the first ``count`` of 16 characters are digits. False for more than 16."""
    if count <= 8:
        return all_digits(_first(load8(text), count))
    return (
        count <= 16
        and all_digits(load8(text))
        and all_digits(_first(load8(text + 8), count - 8))
    )


cdef uint8_t* _any_prefix(
    uint8_t* at, const text_t* number, const dialling_t* rules, uint32_t count
) noexcept nogil:
    cdef uint8_t digits[MAX_DIGITS]
    normalize(number.data, number.size, rules, digits)
    memcpy(at, digits, count)
    return at + count


cdef inline uint8_t* _prefix(
    uint8_t* at,
    const call_t* call,
    const dialling_t* rules,
    uint32_t count,
    const uint8_t* readable_end,
) noexcept nogil:
    """Write matched_prefix: the first digits of the normalised number, which are nearly always the
    first characters of the number as it was sent."""
    cdef const uint8_t* text = call.number
    cdef bint plus = text[0] == c'+'
    cdef text_t number
    at[0] = TAG_MATCHED_PREFIX
    at[1] = <uint8_t> count
    at += 2
    text += plus
    if (
        likely(plus + count <= call.number_size and readable_end - text >= 16)
        and likely(plus or not _may_be_rewritten(rules, text[0]))
        and likely(_begins_with_digits(text, count))
    ):
        memcpy(at, text, 16)
        return at + count
    number.data = call.number
    number.size = call.number_size
    return _any_prefix(at, &number, rules, count)


cdef inline uint8_t* _rate(
    uint8_t* at,
    const job_t* job,
    const call_t* call,
    const outcome_t* outcome,
    const uint8_t* request_end,
) noexcept nogil:
    """Write the fields of the rate that matched: rate_id to billing_increment."""
    cdef const tables_t* tables = job.tenant.tables
    cdef const terms_t* terms = price_terms(tables, job.rate_terms)
    at[0] = TAG_RATE_ID
    at = write_varint(at + 1, row_rate_id(tables, outcome.row))
    if outcome.prefix_length:
        at = _prefix(at, call, &tables.dialling, outcome.prefix_length, request_end)
    if job.destination.size:
        at = _text(at, TAG_DESTINATION, &job.destination, destinations_end(tables))
    at = _price(at, TAG_COST_PER_MINUTE, terms.price_e8)
    at[0] = TAG_BILLING_INCREMENT
    return write_varint(at + 1, terms.increment & ~<uint32_t> BLOCKED_BIT)


cdef inline uint8_t* _rated_call(
    uint8_t* at,
    const job_t* job,
    const call_t* call,
    const outcome_t* outcome,
    const uint8_t* request_end,
) noexcept nogil:
    """Write the fields of one RatedCall in their order."""
    if job.call_id.size:
        at = _text(at, TAG_CALL_ID, &job.call_id, request_end)
    at[0] = TAG_STATUS
    at[1] = outcome.status
    if unlikely(outcome.status == UNRATED):
        at[2] = TAG_UNRATED_REASON
        at[3] = outcome.unrated_reason
        at += 4
    else:
        at[2] = TAG_BILL_SECONDS
        at = _short_varint(at + 3, outcome.bill_seconds)
        at = _cost(at, outcome.cost_scaled, job.tenant.tables.rounding.cost_decimals)
    if job.rate_terms != NULL:
        at = _rate(at, job, call, outcome, request_end)
    at[0] = TAG_RATE_REVISION
    return write_varint(at + 1, job.tenant.revision)


cdef inline uint8_t* _basic_rated_call(
    uint8_t* at, const job_t* job, const outcome_t* outcome
) noexcept nogil:
    """Write the fields of RATED_CALL_VIEW_BASIC in their order: fewer than 128 bytes."""
    at[0] = TAG_STATUS
    at[1] = outcome.status
    at += 2
    if likely(outcome.status != UNRATED):
        at[0] = TAG_BILL_SECONDS
        at = _short_varint(at + 1, outcome.bill_seconds)
        at = _cost(at, outcome.cost_scaled, job.tenant.tables.rounding.cost_decimals)
    if job.rate_terms != NULL:
        at[0] = TAG_RATE_ID
        at = write_varint(at + 1, row_rate_id(job.tenant.tables, outcome.row))
    return at


cdef bint look_ahead(block_t* block) noexcept nogil:
    """Prefetch the data of the rates that matched, and refer the calls whose cost exceeds its
    limit. Returns whether no call of the block is referred."""
    cdef bint none = True
    cdef const tables_t* tables
    cdef uint32_t i
    cdef int32_t row
    cdef job_t* job
    for i in range(block.count):
        job = &block.jobs[i]
        if unlikely(job.referred or block.outcomes[i].status == REFUSED):
            job.referred = 1
            none = False
            continue
        row = block.outcomes[i].row
        job.rate_terms = NULL
        if row != NO_ROW:
            tables = job.tenant.tables
            prefetch(rate_id_place(tables, row))
            job.rate_terms = row_rate_terms(tables, row)
            prefetch(destination_place(tables, job.rate_terms))
    return none


cdef uint64_t measure_block(block_t* block) noexcept nogil:
    """The most bytes that ``write_block`` needs. Call it after ``look_ahead``, and after the
    referred calls have their answers."""
    cdef uint64_t room = <uint64_t> block.count * FIXED_ROOM
    cdef uint32_t i
    cdef job_t* job
    for i in range(block.count):
        job = &block.jobs[i]
        if unlikely(job.referred):
            room += job.answer.size
            continue
        room += job.call_id.size
        if job.rate_terms != NULL:
            job.destination.data = rate_terms_destination(
                job.tenant.tables, job.rate_terms, &job.destination.size
            )
            # It may be in two cache lines.
            prefetch(job.destination.data)
            prefetch(job.destination.data + WORDS - 1)
            room += job.destination.size
    return room


cdef uint8_t* write_block(
    const block_t* block, const uint8_t* request_end, bint is_basic, uint8_t* at
) noexcept nogil:
    """Write the answers to all calls of the block. Returns their end. ``is_basic``: the fields of
    RATED_CALL_VIEW_BASIC only."""
    cdef const job_t* job
    cdef uint8_t* start
    cdef uint32_t i, size, length_bytes
    for i in range(block.count):
        job = &block.jobs[i]
        start = at
        start[0] = TAG_RATED
        if unlikely(job.referred):
            at = write_varint(start + 1, job.answer.size)
            memcpy(at, job.answer.data, job.answer.size)
            at += job.answer.size
            continue
        if is_basic:
            at = _basic_rated_call(start + 2, job, &block.outcomes[i])
            start[1] = <uint8_t> (at - start - 2)
            continue
        # Nearly all are shorter than 128 bytes: their length takes one byte.
        at = _rated_call(start + 2, job, &block.calls[i], &block.outcomes[i], request_end)
        size = <uint32_t> (at - start - 2)
        start[1] = <uint8_t> size
        if unlikely(size >= 0x80):
            length_bytes = 2 if size < 0x4000 else 3
            memmove(start + 1 + length_bytes, start + 2, size)
            at = write_varint(start + 1, size) + size
    return at


def rated_call_tags():
    """The tags by the names of RatedCall's fields; for the comparison with the proto."""
    return {
        "call_id": TAG_CALL_ID,
        "status": TAG_STATUS,
        "unrated_reason": TAG_UNRATED_REASON,
        "bill_seconds": TAG_BILL_SECONDS,
        "cost": TAG_COST,
        "rate_id": TAG_RATE_ID,
        "matched_prefix": TAG_MATCHED_PREFIX,
        "destination": TAG_DESTINATION,
        "cost_per_minute": TAG_COST_PER_MINUTE,
        "billing_increment": TAG_BILLING_INCREMENT,
        "rate_revision": TAG_RATE_REVISION,
    }
