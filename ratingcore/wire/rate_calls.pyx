# cython: cdivision=True
"""Rates a request from its bytes to the response's bytes, without a Python object for each call.

A request is a message whose field 1 is repeated tollwire.v1.Call (StreamRateCallsRequest,
BatchRateCallsRequest). The response has repeated RatedCall as field 1, one for each call, in order.
The GIL is released for the whole request, except for three steps: the look-up of each tenant of the
request, each block with a call for ``refer``, and the growth of the response.

The core rates every valid call. It passes all others (a missing direction, an unknown tenant, a
cost above 15 digits, …) to ``refer`` unchanged, so that one module has the texts of all errors.

intake.pyx reads the calls, rated_call_writer.pyx writes the response; this module calls them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from .rated_call_writer cimport look_ahead, measure_block, write_block
from ..deck.batch cimport BLOCK, UNRATED, call_t, outcome_t, rate_block
from .bulk cimport block_t, job_t, options_t, source_t
from .call_parse cimport TAG_CALLS, read_bytes, read_uint32, text_t
from ..deck.deck cimport Deck
from .intake cimport may_end_with_options, read_block, read_options, unread_calls
from ..base.memory cimport bytes_data, resize_bytes
from ..base.native cimport likely, unlikely
from .tenant_map cimport tenant_map_add, tenant_map_free, tenant_map_find, tenant_map_t, tenant_t
from .tally cimport KINDS, Tally, count_block


cdef struct scratch_t:                 # the buffers of one request
    block_t blocks[2]               # the current one and the next
    call_t calls[BLOCK]             # one tenant's, of a block that has several
    outcome_t outcomes[BLOCK]       # of those


# tollwire.v1.RatedCallView.RATED_CALL_VIEW_BASIC
VIEW_BASIC = 2


cdef class _Request:
    """The state of one request: its source, its tenants, and the response so far."""

    cdef object find_deck
    cdef object refer
    cdef list decks                 # keeps the tables alive
    cdef list answers               # of refer, for the current block
    cdef source_t source
    cdef uint32_t max_calls
    cdef bint is_basic
    cdef uint32_t call_count
    cdef int64_t counts[KINDS]      # of the outcomes so far
    cdef tenant_map_t tenant_map
    cdef PyObject* response         # bytes, the first size of which are written; or NULL
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    def __dealloc__(self):
        tenant_map_free(&self.tenant_map)
        Py_XDECREF(self.response)


cdef int _resolve_tenant(_Request request, int64_t id) except -1:
    """Look up a tenant, unless it is in the map."""
    cdef tenant_t* tenant = tenant_map_add(&request.tenant_map, id)
    cdef Deck deck
    if tenant.id != 0:
        return 0
    deck = request.find_deck(id)
    if deck is not None:
        request.decks.append(deck)
        tenant.tables = deck.tables
        tenant.revision = deck.revision
    tenant.id = id
    request.tenant_map.count += 1
    return 0


cdef int _resolve_tenants(_Request request, const block_t* block) except -1:
    """Look up the tenants of all calls of the block that are not referred."""
    cdef const job_t* job
    cdef uint32_t i
    for i in range(block.count):
        job = &block.jobs[i]
        if not job.referred:
            _resolve_tenant(request, job.tenant_id)
    return 0


cdef bint _find_known_tenants(_Request request, block_t* block) noexcept nogil:
    """Set the tenant of every valid call, or the free slot of the map for it. Returns whether all
    tenants are in the map."""
    cdef const tenant_t* tenant = NULL
    cdef bint known = True
    cdef uint32_t i
    if request.tenant_map.capacity == 0:
        return False
    for i in range(block.count):
        # Neighbours often have the same tenant.
        if tenant == NULL or tenant.id != block.jobs[i].tenant_id:
            if block.jobs[i].referred:
                continue
            tenant = tenant_map_find(&request.tenant_map, block.jobs[i].tenant_id)
            known &= tenant.id != 0
        block.jobs[i].tenant = tenant
    return known


cdef int _find_tenants(_Request request, block_t* block) except -1 nogil:
    """Set the tenant of every valid call. Refer calls whose tenant does not exist."""
    cdef job_t* job
    cdef uint32_t i
    if not _find_known_tenants(request, block):
        with gil:
            _resolve_tenants(request, block)
        _find_known_tenants(request, block)
    if likely(block.tenant_id and block.jobs[0].tenant.tables != NULL):
        return 0
    block.tenant_id = 0
    for i in range(block.count):
        job = &block.jobs[i]
        if not job.referred and job.tenant.tables == NULL:
            job.referred = 1
    return 0


cdef void _rate_tenant(
    scratch_t* scratch, block_t* block, uint32_t first, uint8_t* rated
) noexcept nogil:
    """Rate the calls of the tenant of call ``first`` among the calls of the block from there on."""
    cdef const tenant_t* tenant = block.jobs[first].tenant
    cdef uint32_t places[BLOCK]
    cdef uint32_t found = 0
    cdef uint32_t i
    for i in range(first, block.count):
        if not block.jobs[i].referred and block.jobs[i].tenant == tenant:
            scratch.calls[found] = block.calls[i]
            places[found] = i
            rated[i] = 1
            found += 1
    rate_block(tenant.tables, scratch.calls, found, scratch.outcomes)
    for i in range(found):
        block.outcomes[places[i]] = scratch.outcomes[i]


cdef void _rate_calls(scratch_t* scratch, block_t* block) noexcept nogil:
    """Rate the calls of the block that are not referred."""
    cdef uint8_t rated[BLOCK]
    cdef uint32_t i
    if likely(block.tenant_id):
        rate_block(block.jobs[0].tenant.tables, block.calls, block.count, block.outcomes)
        return
    memset(rated, 0, BLOCK)
    for i in range(block.count):
        if not block.jobs[i].referred and not rated[i]:
            _rate_tenant(scratch, block, i, rated)


cdef int _refer_calls(_Request request, block_t* block) except -1:
    """Call ``refer`` for the referred calls of the block."""
    cdef job_t* job
    cdef bytes answer
    cdef uint32_t i
    request.answers = []
    for i in range(block.count):
        job = &block.jobs[i]
        if job.referred:
            answer = request.refer(
                PyBytes_FromStringAndSize(<const char*> job.source.data, job.source.size)
            )
            request.answers.append(answer)
            job.answer.data = <const uint8_t*> PyBytes_AS_STRING(answer)
            job.answer.size = <uint32_t> PyBytes_GET_SIZE(answer)
    return 0


cdef int _make_room(_Request request, uint64_t needed) except -1:
    """Make room for a response of ``size`` bytes, and for an estimate for the calls that are not
    read yet: most answers are longer than their calls, by less than half."""
    cdef Py_ssize_t unread = request.source.end - request.source.at
    cdef Py_ssize_t capacity = <Py_ssize_t> needed + unread + unread // 2
    request.capacity = 0
    resize_bytes(&request.response, capacity)
    request.capacity = capacity
    return 0


cdef int _write_answers(
    _Request request, const block_t* block, uint64_t room
) except -1 nogil:
    """``room``: as ``measure_block`` says."""
    cdef uint64_t needed = <uint64_t> request.size + room
    cdef uint8_t* start
    if unlikely(needed > <uint64_t> request.capacity):
        with gil:
            _make_room(request, needed)
    start = bytes_data(request.response)
    request.size = (
        write_block(block, request.source.end, request.is_basic, start + request.size) - start
    )
    return 0


cdef enum:
    DONE = 0
    MALFORMED = 1
    TOO_MANY = 2


cdef int _rate_all(_Request request) except -1 nogil:
    """Process the whole request, unless an error concerns all of it."""
    cdef scratch_t scratch
    cdef block_t* block = &scratch.blocks[0]
    cdef block_t* next_block = &scratch.blocks[1]
    cdef uint64_t room
    cdef bint counted = False
    if not read_block(&request.source, block):
        return MALFORMED
    while block.count:
        request.call_count += block.count
        if request.call_count > request.max_calls:
            return TOO_MANY
        _find_tenants(request, block)
        _rate_calls(&scratch, block)
        if unlikely(not look_ahead(block)):
            # To refer a call takes long, so the rest is counted first.
            if not counted:
                if unread_calls(&request.source) > request.max_calls - request.call_count:
                    return TOO_MANY
                counted = True
            with gil:
                _refer_calls(request, block)
        count_block(block, request.counts)
        room = measure_block(block)
        # Prefetches the data of the rates while the next calls are read.
        if not read_block(&request.source, next_block):
            return MALFORMED
        _write_answers(request, block, room)
        block, next_block = next_block, block
    return DONE


cdef bytes _take_response(_Request request):
    """Take the response out of the request."""
    cdef bytes response = b""
    if request.response != NULL:
        resize_bytes(&request.response, request.size)
        response = <bytes> request.response
        Py_XDECREF(request.response)
        request.response = NULL
    return response


cdef _Request _request(
    bytes request_bytes, object find_deck, object refer, int64_t now_ns, uint32_t max_calls
):
    """The caller keeps ``request_bytes`` until the request is done."""
    cdef _Request request = _Request()
    request.find_deck = find_deck
    request.refer = refer
    request.decks = []
    request.source.at = <const uint8_t*> PyBytes_AS_STRING(request_bytes)
    request.source.end = request.source.at + PyBytes_GET_SIZE(request_bytes)
    request.source.now_ns = now_ns
    request.max_calls = max_calls
    return request


class MalformedRequest(ValueError):
    """The request's bytes are not a protobuf message of its type."""


class TooManyCalls(ValueError):
    """The request has more calls than are allowed."""


class OtherOptions(ValueError):
    """The request has other options than it was rated with: these."""

    def __init__(self, int64_t min_rate_revision, int32_t view):
        super().__init__(f"the request has min_rate_revision {min_rate_revision}, view {view}")
        self.min_rate_revision = min_rate_revision
        self.view = view


def rate_request(
    bytes request_bytes not None,
    find_deck,
    refer,
    int64_t now_ns,
    uint32_t max_calls,
    int64_t min_rate_revision=0,
    int32_t view=0,
    Tally tally=None,
):
    """The response's bytes for a request's bytes.

    ``find_deck(tenant_id)`` returns the Deck of a tenant, or None. It is called once for each
    tenant of the request, so that all calls of a tenant are rated at one revision. ``refer(call)``
    returns the RatedCall's bytes for a Call's bytes. ``now_ns`` is the start of calls without one.
    ``min_rate_revision`` and ``view`` are the options for which ``find_deck`` and ``refer`` were
    prepared; ``view`` VIEW_BASIC writes the fields of that view only. ``tally`` counts the calls
    that were not referred, if the request succeeds.

    MalformedRequest if protobuf refuses the request; TooManyCalls above ``max_calls``;
    OtherOptions if the request has others.
    """
    cdef _Request request = _request(request_bytes, find_deck, refer, now_ns, max_calls)
    cdef const options_t* options
    cdef int outcome
    request.is_basic = view == VIEW_BASIC
    with nogil:
        outcome = _rate_all(request)
    if outcome == MALFORMED:
        raise MalformedRequest("the request is not a valid protobuf message of its type")
    if outcome == TOO_MANY:
        raise TooManyCalls(f"at most {max_calls} calls in one request")
    options = &request.source.options
    if options.min_rate_revision != min_rate_revision or options.view != view:
        raise OtherOptions(options.min_rate_revision, options.view)
    if tally is not None:
        tally.take(request.counts)
    return _take_response(request)


cdef bint _is_lone_call(const source_t* source) noexcept nogil:
    """Whether the request is one Call in field 1 and nothing else."""
    cdef uint32_t tag
    cdef text_t call
    cdef const uint8_t* at = read_uint32(source.at, source.end, &tag)
    if at == NULL or tag != TAG_CALLS:
        return False
    return read_bytes(at, source.end, &call) == source.end


def rate_lone_call(bytes request_bytes not None, find_deck, int64_t now_ns, Tally tally=None):
    """The RateCallResponse's bytes for a RateCallRequest's bytes. None for a request that the
    service must answer: one with other fields than its call, an error, a call without a rate.

    ``find_deck``, ``now_ns`` and ``tally`` as for ``rate_request``. Keeps the GIL: rating one call
    takes less time than to release and acquire it.
    """
    cdef scratch_t scratch
    return _rate_lone_call(request_bytes, find_deck, now_ns, tally, &scratch)


cdef class _DeckFinder:
    """``find_deck`` for one of several requests."""

    cdef object find_deck
    cdef Py_ssize_t index

    def __call__(self, tenant_id):
        return self.find_deck(self.index, tenant_id)


def rate_lone_calls(list requests not None, find_deck, int64_t now_ns, Tally tally=None):
    """``rate_lone_call`` for each of ``requests``, in order. ``find_deck(index, tenant_id)`` also
    gets the index of the request."""
    cdef scratch_t scratch
    cdef _DeckFinder finder = _DeckFinder()
    cdef list answers = []
    finder.find_deck = find_deck
    for request in requests:
        answers.append(_rate_lone_call(request, finder, now_ns, tally, &scratch))
        finder.index += 1
    return answers


cdef object _rate_lone_call(
    bytes request_bytes, object find_deck, int64_t now_ns, Tally tally, scratch_t* scratch
):
    cdef _Request request = _request(request_bytes, find_deck, None, now_ns, 1)
    cdef block_t* block = &scratch.blocks[0]
    if not _is_lone_call(&request.source) or not read_block(&request.source, block):
        return None
    _find_tenants(request, block)
    _rate_calls(scratch, block)
    if not look_ahead(block) or block.outcomes[0].status == UNRATED:
        return None
    _write_answers(request, block, measure_block(block))
    if tally is not None:
        count_block(block, request.counts)
        tally.take(request.counts)
    return _take_response(request)


def likely_options(bytes request_bytes not None):
    """The min_rate_revision and the view of a request that has them last, where protobuf's own
    libraries write them. For any other request these values or 0. Reads no call, and returns at
    once if the last bytes are another field.

    MalformedRequest if the outermost fields of the request are found to be malformed.
    """
    cdef const uint8_t* start = <const uint8_t*> PyBytes_AS_STRING(request_bytes)
    cdef const uint8_t* end = start + PyBytes_GET_SIZE(request_bytes)
    cdef options_t options
    cdef bint readable = True
    memset(&options, 0, sizeof(options))
    if may_end_with_options(start, end):
        with nogil:
            readable = read_options(start, end, &options)
    if not readable:
        raise MalformedRequest("the request is not a valid protobuf message of its type")
    return options.min_rate_revision, options.view
