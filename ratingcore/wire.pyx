# cython: cdivision=True
"""From a request's bytes to the response's bytes: rating without a Python object for each call.

A request is a message whose field 1 is repeated tollwire.v1.Call (StreamRateCallsRequest,
BatchRateCallsRequest), a response one whose field 1 is repeated RatedCall, one for each call, in
order. The GIL is given up for the whole request, but for short visits: once for each tenant that a
request names, and once for each block of calls that has one that only ``refer`` can answer.

The core rates every call whose fields are in order. All others (a missing direction, a tenant that is
not there, a cost past 15 digits, …) it hands to ``refer`` as they came, so that what is wrong
with a call is worded in one place.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from .callparse cimport (
    MAX_DEPTH,
    TAG_CALLS,
    TAG_MIN_RATE_REVISION,
    parse_call,
    read_bytes,
    read_uint32,
    read_varint,
    skip_field,
    text_t,
    wire_call_t,
)
from .callrules cimport ANSWERED, OUTBOUND, obeys_rules, times_t
from .batch cimport BLOCK, REFUSED, UNRATED, call_t, outcome_t, rate_block
from .deck cimport Deck
from .memory cimport release, reserve
from .money cimport BLOCKED_BIT, terms_t
from .native cimport likely, prefetch, unlikely
from .number cimport MAX_DIGITS, dialling_t, normalize
from .tables cimport (
    NO_ROW,
    destination_place,
    rate_id_place,
    row_destination,
    row_rate_id,
    row_terms,
    tables_t,
)

cdef enum:
    MAX_RESPONSE = 0x7FFFFFFF       # bytes
    MAX_VARINT = 10
    # Of one RatedCall, what is neither call_id nor destination: tags and lengths, five varints,
    # the prefix and two amounts of up to 20 characters.
    FIXED_ROOM = 16 * 3 + 6 * MAX_VARINT + MAX_DIGITS + 2 * 20

# How tollwire.v1.RatedCall is written: field number << 3 | wire type.
cdef enum:
    TAG_RATED = 1 << 3 | 2
    TAG_RATED_CALL_ID = 1 << 3 | 2
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

cdef struct tenant_t:
    int64_t id                      # 0: a free place
    const tables_t* tables          # NULL: asked for and not there
    int64_t revision

cdef struct job_t:
    wire_call_t call
    text_t source                   # the call's own bytes
    const tenant_t* tenant          # undefined where the call is referred
    times_t times
    outcome_t outcome
    uint8_t referred                # the core leaves the call to refer
    uint8_t rated                   # outcome is set

cdef class _Request:
    """One request on its way: what was asked, whom it concerns, and the response so far."""

    cdef object find_deck
    cdef object refer
    cdef list decks                 # keeps the tables alive
    cdef list answers               # of refer, for the block at hand
    cdef const uint8_t* at
    cdef const uint8_t* end
    cdef int64_t now_ns
    cdef uint32_t max_calls
    cdef uint32_t call_count
    cdef tenant_t* tenants          # open-addressing hash by id
    cdef uint32_t tenant_count
    cdef uint32_t tenant_capacity   # a power of two, or 0
    cdef uint8_t* response
    cdef uint32_t size
    cdef uint32_t capacity
    cdef job_t jobs[BLOCK]

    def __dealloc__(self):
        release(self.tenants)
        release(self.response)


cdef tenant_t* _place(tenant_t* tenants, uint32_t capacity, int64_t id) noexcept nogil:
    """Where this tenant is, or would be. ``capacity`` is a power of two with a free place."""
    cdef uint32_t mask = capacity - 1
    cdef uint32_t i = <uint32_t> ((<uint64_t> id * 0x9E3779B97F4A7C15ULL) >> 32) & mask
    while tenants[i].id != 0 and tenants[i].id != id:
        i = (i + 1) & mask
    return &tenants[i]


cdef int _grow_tenants(_Request request) except -1:
    """Room for one more tenant, at most half full."""
    cdef tenant_t* old = request.tenants
    cdef uint32_t old_capacity = request.tenant_capacity
    cdef void* fresh = NULL
    cdef uint32_t capacity = 0
    cdef uint32_t i
    if 2 * (request.tenant_count + 1) <= old_capacity:
        return 0
    reserve(&fresh, &capacity, 2 * old_capacity if old_capacity else 8, sizeof(tenant_t), 1 << 30)
    memset(fresh, 0, capacity * sizeof(tenant_t))
    for i in range(old_capacity):
        if old[i].id != 0:
            _place(<tenant_t*> fresh, capacity, old[i].id)[0] = old[i]
    request.tenants = <tenant_t*> fresh
    request.tenant_capacity = capacity
    release(old)
    return 0


cdef int _meet(_Request request, int64_t id) except -1:
    """Look a tenant up that the request has not named before."""
    cdef tenant_t* place
    cdef Deck deck
    _grow_tenants(request)
    place = _place(request.tenants, request.tenant_capacity, id)
    if place.id != 0:
        return 0
    deck = request.find_deck(id)
    if deck is not None:
        request.decks.append(deck)
        place.tables = deck.tables
        place.revision = deck.revision
    place.id = id
    request.tenant_count += 1
    return 0


cdef int _read_block(_Request request) except -2 nogil:
    """Parse up to BLOCK calls into the jobs. Returns how many; -1: the request is malformed."""
    cdef int count = 0
    cdef uint32_t tag
    cdef job_t* job
    while request.at < request.end and count < BLOCK:
        request.at = read_uint32(request.at, request.end, &tag)
        if request.at == NULL or tag >> 3 == 0:
            return -1
        if unlikely(tag != TAG_CALLS):
            request.at = skip_field(request.at, request.end, tag, MAX_DEPTH)
            if request.at == NULL:
                return -1
            continue
        job = &request.jobs[count]
        request.at = read_bytes(request.at, request.end, &job.source)
        if request.at == NULL:
            return -1
        if parse_call(job.source.data, request.at, &job.call, MAX_DEPTH - 1) == NULL:
            return -1
        job.referred = not obeys_rules(&job.call, request.now_ns, &job.times)
        job.rated = False
        count += 1
    return count


cdef int _find_tenants(_Request request, int count) except -1 nogil:
    """Lead every job that is in order to its tenant; refer those whose tenant is not there."""
    cdef job_t* job
    cdef const tenant_t* place
    cdef int i
    cdef bint strangers = request.tenant_capacity == 0
    if not strangers:
        for i in range(count):
            job = &request.jobs[i]
            place = _place(request.tenants, request.tenant_capacity, job.call.tenant_id)
            job.tenant = place
            strangers |= place.id == 0 and not job.referred
    if unlikely(strangers):
        with gil:
            for i in range(count):
                if not request.jobs[i].referred:
                    _meet(request, request.jobs[i].call.tenant_id)
        for i in range(count):
            job = &request.jobs[i]
            if not job.referred:
                job.tenant = _place(
                    request.tenants, request.tenant_capacity, job.call.tenant_id
                )
    for i in range(count):
        job = &request.jobs[i]
        if not job.referred and job.tenant.tables == NULL:
            job.referred = True
    return 0


cdef void _rate_run(_Request request, int first, int count, const tables_t* tables) noexcept nogil:
    """Rate the calls of one tenant among those of the block from ``first`` on."""
    cdef call_t calls[BLOCK]
    cdef outcome_t outcomes[BLOCK]
    cdef int places[BLOCK]
    cdef uint32_t found = 0
    cdef uint32_t k
    cdef int32_t row
    cdef int i
    cdef job_t* job
    for i in range(first, count):
        job = &request.jobs[i]
        if job.rated or job.referred or job.tenant.tables != tables:
            continue
        calls[found].number = job.call.destination_number.data
        calls[found].number_size = job.call.destination_number.size
        calls[found].started_at_ns = job.times.started_at_ns
        calls[found].duration_seconds = job.call.duration_seconds
        calls[found].billable = (
            job.call.direction == OUTBOUND and job.call.disposition == ANSWERED
        )
        places[found] = i
        found += 1
    rate_block(tables, calls, found, outcomes)
    for k in range(found):
        job = &request.jobs[places[k]]
        job.outcome = outcomes[k]
        job.rated = True
        row = outcomes[k].row
        if row != NO_ROW:
            # What the response says of the rate, read when it is written. Not in a function of its
            # own: one that does nothing but prefetch has no effect to gcc, which leaves it out.
            prefetch(rate_id_place(tables, row))
            prefetch(destination_place(tables, row))


cdef bint _rate_jobs(_Request request, int count) noexcept nogil:
    """Rate the calls of a block, tenant by tenant. Returns whether any of them is referred."""
    cdef job_t* job
    cdef bint referred = False
    cdef int i
    for i in range(count):
        job = &request.jobs[i]
        if not job.rated and not job.referred:
            _rate_run(request, i, count, job.tenant.tables)
        if unlikely(not job.referred and job.outcome.status == REFUSED):
            job.referred = True
        referred |= job.referred
    return referred


cdef inline uint8_t* _varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value >= 0x80:
        at[0] = <uint8_t> (value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t> value
    return at + 1


cdef inline uint8_t* _bytes(uint8_t* at, uint8_t tag, const uint8_t* data, uint32_t size) noexcept nogil:
    at[0] = tag
    at = _varint(at + 1, size)
    memcpy(at, data, size)
    return at + size


cdef inline void _two_digits(uint8_t* at, uint32_t number) noexcept nogil:
    at[0] = <uint8_t> (48 + number // 10)  # 48: "0"
    at[1] = <uint8_t> (48 + number % 10)


cdef inline uint8_t* _money(uint8_t* at, uint8_t tag, uint64_t amount_e4) noexcept nogil:
    """A decimal with exactly four digits after the point."""
    cdef uint64_t units = amount_e4 // 10_000
    cdef uint32_t fraction = <uint32_t> (amount_e4 - units * 10_000)
    cdef uint32_t small
    cdef uint8_t* text
    cdef int digits = 1
    cdef uint64_t above = 10
    while units >= above:
        digits += 1
        above *= 10
    at[0] = tag
    at[1] = <uint8_t> (digits + 5)
    text = at + 2 + digits
    text[0] = 46  # "."
    _two_digits(text + 1, fraction // 100)
    _two_digits(text + 3, fraction % 100)
    at = text + 5
    while units >> 32:
        text -= 1
        text[0] = <uint8_t> (48 + units % 10)
        units //= 10
        digits -= 1
    small = <uint32_t> units
    while digits:
        text -= 1
        text[0] = <uint8_t> (48 + small % 10)
        small //= 10
        digits -= 1
    return at


cdef inline bint _may_be_rewritten(const dialling_t* rules, uint8_t first) noexcept nogil:
    """Whether a dialling rule may apply to a number that begins with this character."""
    return (
        (rules.international_prefix_length > 0 and rules.international_prefix[0] == first)
        or (rules.national_prefix_length > 0 and rules.national_prefix[0] == first)
    )


cdef inline uint8_t* _write_prefix(uint8_t* at, const job_t* job) noexcept nogil:
    """matched_prefix: the first digits of the normalised number."""
    cdef const dialling_t* rules = &job.tenant.tables.dialling
    cdef const uint8_t* text = job.call.destination_number.data
    cdef uint32_t size = job.call.destination_number.size
    cdef uint32_t count = job.outcome.prefix_length
    cdef uint8_t digits[MAX_DIGITS]
    cdef bint plus, plain
    cdef uint32_t i
    if count == 0:
        return at
    at[0] = TAG_MATCHED_PREFIX
    at[1] = <uint8_t> count
    at += 2
    plus = text[0] == c'+'
    # Nearly always they stand in the number as it was sent.
    plain = size >= plus + count and (plus or not _may_be_rewritten(rules, text[0]))
    if plain:
        for i in range(count):
            at[i] = text[plus + i]
            plain &= c'0' <= at[i] <= c'9'
    if unlikely(not plain):
        normalize(text, size, rules, digits)
        memcpy(at, digits, count)
    return at + count


cdef uint8_t* _write_rate(uint8_t* at, const job_t* job) noexcept nogil:
    """The fields of the rate that matched: rate_id to billing_increment."""
    cdef const tables_t* tables = job.tenant.tables
    cdef const terms_t* terms = row_terms(tables, job.outcome.row)
    cdef const uint8_t* destination
    cdef uint32_t size
    at[0] = TAG_RATE_ID
    at = _varint(at + 1, row_rate_id(tables, job.outcome.row))
    at = _write_prefix(at, job)
    destination = row_destination(tables, job.outcome.row, &size)
    if size:
        at = _bytes(at, TAG_DESTINATION, destination, size)
    at = _money(at, TAG_COST_PER_MINUTE, terms.price_e4)
    at[0] = TAG_BILLING_INCREMENT
    return _varint(at + 1, terms.increment & ~<uint32_t> BLOCKED_BIT)


cdef uint8_t* _write_rated(uint8_t* at, const job_t* job) noexcept nogil:
    """One RatedCall's fields, in their order."""
    if job.call.call_id.size:
        at = _bytes(at, TAG_RATED_CALL_ID, job.call.call_id.data, job.call.call_id.size)
    at[0] = TAG_STATUS
    at[1] = job.outcome.status
    at += 2
    if job.outcome.status == UNRATED:
        at[0] = TAG_UNRATED_REASON
        at[1] = job.outcome.unrated_reason
        at += 2
    else:
        at[0] = TAG_BILL_SECONDS
        at = _varint(at + 1, job.outcome.bill_seconds)
        at = _money(at, TAG_COST, job.outcome.cost_e4)
    if job.outcome.row != NO_ROW:
        at = _write_rate(at, job)
    at[0] = TAG_RATE_REVISION
    return _varint(at + 1, job.tenant.revision)


cdef uint32_t _room(const job_t* job) noexcept nogil:
    """Bytes that the response to a call may need at most."""
    cdef uint32_t size = 0
    if likely(job.outcome.row != NO_ROW):
        row_destination(job.tenant.tables, job.outcome.row, &size)
    return FIXED_ROOM + job.call.call_id.size + size


cdef int _write_answer(_Request request, int index) except -1:
    """The response to a call that was referred."""
    cdef bytes answer = request.answers[index]
    cdef Py_ssize_t size = PyBytes_GET_SIZE(answer)
    cdef uint8_t* at
    reserve(
        <void**> &request.response,
        &request.capacity,
        <uint64_t> request.size + size + 1 + MAX_VARINT,
        1,
        MAX_RESPONSE,
    )
    at = _bytes(
        request.response + request.size,
        TAG_RATED,
        <const uint8_t*> PyBytes_AS_STRING(answer),
        <uint32_t> size,
    )
    request.size = <uint32_t> (at - request.response)
    return 0


cdef int _write_block(_Request request, int count) except -1 nogil:
    cdef job_t* job
    cdef uint8_t* start
    cdef uint8_t* body
    cdef uint8_t* at
    cdef uint32_t size, length_bytes
    cdef int i
    for i in range(count):
        job = &request.jobs[i]
        if not job.referred and job.outcome.row != NO_ROW:
            prefetch(row_destination(job.tenant.tables, job.outcome.row, &size))
    for i in range(count):
        job = &request.jobs[i]
        if unlikely(job.referred):
            with gil:
                _write_answer(request, i)
            continue
        size = _room(job)
        if unlikely(request.size + size > request.capacity):
            reserve(
                <void**> &request.response,
                &request.capacity,
                <uint64_t> request.size + size,
                1,
                MAX_RESPONSE,
            )
        start = request.response + request.size
        start[0] = TAG_RATED
        # Nearly all are shorter than 128 bytes: their length takes one byte.
        body = start + 2
        at = _write_rated(body, job)
        size = <uint32_t> (at - body)
        if size >= 0x80:
            length_bytes = 2 if size < 0x4000 else 3
            memmove(start + 1 + length_bytes, body, size)
            at = start + 1 + length_bytes + size
        _varint(start + 1, size)
        request.size = <uint32_t> (at - request.response)
    return 0


cdef int _refer_block(_Request request, int count) except -1:
    """Ask for the answers to the calls of the block that the core leaves alone."""
    cdef job_t* job
    cdef int i
    request.answers = [None] * count
    for i in range(count):
        job = &request.jobs[i]
        if job.referred:
            request.answers[i] = request.refer(
                PyBytes_FromStringAndSize(<const char*> job.source.data, job.source.size)
            )
    return 0


cdef int _rate_request(_Request request) except -1 nogil:
    """The whole request. 0: done; 1: malformed; 2: too many calls."""
    cdef int count
    while request.at < request.end:
        count = _read_block(request)
        if count < 0:
            return 1
        request.call_count += count
        if request.call_count > request.max_calls:
            return 2
        _find_tenants(request, count)
        if unlikely(_rate_jobs(request, count)):
            with gil:
                _refer_block(request, count)
        _write_block(request, count)
    return 0


cdef _Request _request(
    bytes request_bytes, object find_deck, object refer, int64_t now_ns, uint32_t max_calls
):
    """The caller keeps ``request_bytes`` for as long."""
    cdef _Request request = _Request()
    request.find_deck = find_deck
    request.refer = refer
    request.decks = []
    request.at = <const uint8_t*> PyBytes_AS_STRING(request_bytes)
    request.end = request.at + PyBytes_GET_SIZE(request_bytes)
    request.now_ns = now_ns
    request.max_calls = max_calls
    return request


class MalformedRequest(ValueError):
    """The request's bytes are not a protobuf message of its type."""


class TooManyCalls(ValueError):
    """The request has more calls than are allowed."""


def rate_request(
    bytes request_bytes not None,
    find_deck,
    refer,
    int64_t now_ns,
    uint32_t max_calls,
):
    """The response's bytes for a request's bytes.

    ``find_deck(tenant_id)`` returns the Deck of a tenant, or None; it is asked once for each tenant of
    the request, so that the request sees one revision of each.
    ``refer(call)`` returns the RatedCall's bytes for a Call's bytes.
    ``now_ns`` is when calls without a start are taken to have started.

    MalformedRequest where protobuf would refuse the request; TooManyCalls above ``max_calls``.
    """
    cdef _Request request = _request(request_bytes, find_deck, refer, now_ns, max_calls)
    cdef int outcome
    with nogil:
        outcome = _rate_request(request)
    if outcome == 1:
        raise MalformedRequest("the request is not a valid protobuf message of its type")
    if outcome == 2:
        raise TooManyCalls(f"at most {max_calls} calls in one request")
    return PyBytes_FromStringAndSize(<const char*> request.response, request.size)


cdef bint _is_lone_call(_Request request) noexcept nogil:
    """Whether the request is one Call in field 1 and nothing else."""
    cdef uint32_t tag
    cdef text_t call
    cdef const uint8_t* at = read_uint32(request.at, request.end, &tag)
    if at == NULL or tag != TAG_CALLS:
        return False
    return read_bytes(at, request.end, &call) == request.end


def rate_lone_call(bytes request_bytes not None, find_deck, int64_t now_ns):
    """The RateCallResponse's bytes for a RateCallRequest's bytes; None where they need more than a
    price: a request with other fields than its call, an error to be worded, a call without a rate.

    ``find_deck`` and ``now_ns`` as for ``rate_request``. The GIL is kept: one call is rated sooner
    than the GIL would be given up and had again.
    """
    cdef _Request request = _request(request_bytes, find_deck, None, now_ns, 1)
    if not _is_lone_call(request) or _read_block(request) != 1:
        return None
    _find_tenants(request, 1)
    if _rate_jobs(request, 1) or request.jobs[0].outcome.status == UNRATED:
        return None
    _write_block(request, 1)
    return PyBytes_FromStringAndSize(<const char*> request.response, request.size)


def min_rate_revision(bytes request_bytes not None):
    """The min_rate_revision of a request, 0 where it has none; looks into no call.

    MalformedRequest where its outermost fields are not in order.
    """
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(request_bytes)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(request_bytes)
    cdef uint64_t revision = 0
    cdef uint32_t tag
    with nogil:
        while at < end and at != NULL:
            at = read_uint32(at, end, &tag)
            if at == NULL or tag >> 3 == 0:
                at = NULL
            elif tag == TAG_MIN_RATE_REVISION:
                at = read_varint(at, end, &revision)
            else:
                at = skip_field(at, end, tag, MAX_DEPTH)
            if at == NULL:
                break
    if at == NULL:
        raise MalformedRequest("the request is not a valid protobuf message of its type")
    return <int64_t> revision


def rated_call_tags():
    """The tags that are written, by the names of RatedCall's fields; to be compared with the proto."""
    return {
        "call_id": TAG_RATED_CALL_ID,
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
