# cython: cdivision=True
"""Rates one call or a block of calls: match, then blocked, then charge (rules 1 to 8).

Each stage processes the whole block: normalise all numbers, look up all direct entries, move all
lanes forward by one digit at a time, then charge all. So the processor loads the memory for one
lane while it works on the others. No step has a branch that depends on the number: it writes its
result to a place that counts or to one that does not, and moves the remaining lanes together. That
costs less than mispredicted branches.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from ..index.match cimport longest_slot, match_digits, match_slot, match_t
from ..pricing.money cimport charge_any, charge_fast
from ..pricing.terms cimport BLOCKED_BIT, interval_t, terms_t
from ..base.native cimport (
    bits_below,
    digit_values,
    leading_number,
    likely,
    load8,
    no_digits,
    popcount10,
    prefetch,
    store8,
    unlikely,
)
from ..pricing.number cimport MAX_DIGITS, dialling_t, normalize
from ..index.tables cimport (
    LENGTH_BITS,
    MAX_ROWS,
    NO_ROW,
    NO_SLOT,
    first_window,
    is_group,
    jump_t,
    node_t,
    rate_terms_t,
    row_rate_terms,
    row_terms,
    tables_t,
    terms_intervals,
)

cdef enum:
    LANE_DIGITS = 36             # MAX_DIGITS and at least one NO_DIGIT
    NO_DIGIT = 10                # after the last digit: a bit that no node has

cdef extern from *:
    """
    #define RC_ALL_NO_DIGIT 0x0A0A0A0A0A0A0A0AULL
    """
    const uint64_t ALL_NO_DIGIT "RC_ALL_NO_DIGIT"   # eight of them

cdef struct lane_t:              # 64 bytes; the look-up of one call
    uint8_t digits[LANE_DIGITS]  # values 0 to 9, then NO_DIGIT
    uint32_t count               # digits; 0: no valid number, or none needed
    const jump_t* start          # where the walk begins
    uint64_t prefix[2]           # [1]: the longest so far; [0]: results that do not count

cdef struct lanes_t:
    lane_t lanes[BLOCK]
    jump_t starts[BLOCK]         # for lanes without an entry in the direct table

cdef struct walkers_t:           # the lanes that have not ended, and a spare one
    const node_t* nodes[BLOCK + 1]
    lane_t* lanes[BLOCK + 1]


cdef uint32_t _rewritten_first(const dialling_t* rules) noexcept nogil:
    """The first digits, as bits, of the numbers that a dialling rule may rewrite."""
    cdef uint32_t bits = 0
    if rules.international_prefix_length > 0:
        bits |= <uint32_t> 1 << (rules.international_prefix[0] & 15)
    if rules.national_prefix_length > 0:
        bits |= <uint32_t> 1 << (rules.national_prefix[0] & 15)
    return bits


cdef inline uint32_t _normalize_plain(
    const uint8_t* text,
    uint32_t size,
    uint32_t rewritten_first,
    uint8_t* digits,
    uint64_t* first_digits,
) noexcept nogil:
    """Normalise a number in the common form: 8 to 16 digits, with or without "+", that no rule
    rewrites. Returns the count of digits, or 0 for any other form.

    Writes 16 digits, and the first 8 once more: a load of them would wait for the stores, which
    overlap if the number is shorter than 16.
    """
    cdef uint64_t head, tail
    cdef bint plus = size > 0 and text[0] == c'+'
    text += plus
    size -= plus
    if unlikely(size - 8 > 8):   # modulo 2**32
        return 0
    head = digit_values(load8(text))
    tail = digit_values(load8(text + size - 8))
    if unlikely((no_digits(head) | no_digits(tail)) != 0):
        return 0
    if unlikely((rewritten_first >> (head & 15) & 1) != 0) and not plus:
        return 0
    store8(digits, head)
    store8(digits + 8, ALL_NO_DIGIT)
    store8(digits + size - 8, tail)
    first_digits[0] = head
    return size


cdef void _normalize_any(
    const call_t* call, const dialling_t* rules, lane_t* lane, uint64_t* first_digits
) noexcept nogil:
    cdef uint8_t text[MAX_DIGITS]
    cdef uint32_t i
    lane.count = normalize(call.number, call.number_size, rules, text)
    memset(lane.digits, NO_DIGIT, LANE_DIGITS)
    for i in range(lane.count):
        lane.digits[i] = text[i] & 15
    first_digits[0] = load8(lane.digits)


cdef inline uint64_t _packed(uint32_t slot, uint32_t length) noexcept nogil:
    """A prefix in one word: length << 32 | slot, or NO_SLOT."""
    return <uint64_t> length << 32 | slot


cdef void _start_without_table(
    const tables_t* tables, const lane_t* lane, jump_t* start
) noexcept nogil:
    """The start of a lane without an entry in the direct table: none, if it has no digits; the
    root, if the deck has no such table; its end, if it is shorter than all entries."""
    cdef uint32_t slot = NO_SLOT
    cdef uint32_t length = 0
    start.node = tables.node_count
    if lane.count > 0 and tables.jump_digits == 0:
        if tables.top.child_bits:
            start.node = tables.top.children
        if tables.top.slot_bits:
            slot = tables.top.slots
    elif lane.count > 0:
        slot = longest_slot(tables, lane.digits, lane.count, &length)
    start.best = slot << LENGTH_BITS | length


cdef void _begin(
    const tables_t* tables, const call_t* calls, uint32_t count, lanes_t* lanes
) noexcept nogil:
    """Normalise all numbers, and find the start of each walk."""
    cdef uint32_t rewritten_first = _rewritten_first(&tables.dialling)
    cdef uint32_t jump_digits = tables.jump_digits
    cdef uint64_t first_digits = 0
    cdef lane_t* lane
    cdef uint32_t i
    for i in range(count):
        lane = &lanes.lanes[i]
        lane.count = 0
        if likely(calls[i].billable):
            memset(lane.digits + 16, NO_DIGIT, LANE_DIGITS - 16)
            lane.count = _normalize_plain(
                calls[i].number,
                calls[i].number_size,
                rewritten_first,
                lane.digits,
                &first_digits,
            )
            if unlikely(lane.count == 0):
                _normalize_any(&calls[i], &tables.dialling, lane, &first_digits)
        if likely(lane.count >= jump_digits and jump_digits > 0):
            lane.start = &tables.jumps[leading_number(first_digits, jump_digits)]
            prefetch(lane.start)
        else:
            lane.start = &lanes.starts[i]
            _start_without_table(tables, lane, &lanes.starts[i])


cdef uint32_t _enter(
    const tables_t* tables, uint32_t count, lanes_t* lanes, walkers_t* walkers
) noexcept nogil:
    """Set every lane to its start. Returns the number of lanes that continue."""
    cdef const node_t* end = &tables.nodes[tables.node_count]
    cdef const node_t* node
    cdef lane_t* lane
    cdef uint32_t i, best
    cdef uint32_t kept = 0
    for i in range(count):
        lane = &lanes.lanes[i]
        best = lane.start.best
        lane.prefix[1] = _packed(best >> LENGTH_BITS, best & ((1 << LENGTH_BITS) - 1))
        node = &tables.nodes[lane.start.node]
        prefetch(node)
        walkers.lanes[kept] = lane
        walkers.nodes[kept] = node
        kept += node != end
    return kept


cdef inline uint32_t _step(
    const node_t* nodes, walkers_t* walkers, uint32_t from_, uint32_t position, uint32_t to
) noexcept nogil:
    """Move forward by one digit. 1 if a longer node exists, which ``to`` is then at; else 0."""
    cdef lane_t* lane = walkers.lanes[from_]
    cdef const node_t* node = walkers.nodes[from_]
    cdef const node_t* further
    cdef uint32_t digit = lane.digits[position]
    cdef uint32_t below = bits_below(digit)
    cdef uint32_t child_bits = node.child_bits
    cdef uint32_t slot_bits = node.slot_bits
    lane.prefix[slot_bits >> digit & 1] = _packed(
        node.slots + popcount10(slot_bits & below), position + 1
    )
    further = nodes + (node.children + popcount10(child_bits & below))
    prefetch(further)
    walkers.nodes[to] = further
    walkers.lanes[to] = lane
    return child_bits >> digit & 1


cdef void _descend(const tables_t* tables, uint32_t left, walkers_t* walkers) noexcept nogil:
    """Move all walkers to their ends, a digit at a time."""
    cdef const node_t* nodes = tables.nodes
    cdef uint32_t position = tables.jump_digits
    cdef uint32_t i, kept
    while left:
        kept = 0
        for i in range(left):
            kept += _step(nodes, walkers, i, position, kept)
        left = kept
        position += 1


cdef void _settle(
    const tables_t* tables,
    const call_t* calls,
    uint32_t count,
    const lanes_t* lanes,
    match_t* matches,
) noexcept nogil:
    """Find the rates in effect for the longest prefixes."""
    cdef const lane_t* lane
    cdef uint32_t i, slot
    if tables.group_count == 0:
        for i in range(count):
            lane = &lanes.lanes[i]
            slot = <uint32_t> lane.prefix[1]
            matches[i].row = <int32_t> slot if slot != NO_SLOT else NO_ROW
            matches[i].length = <uint32_t> (lane.prefix[1] >> 32)
        return
    for i in range(count):
        prefetch(&tables.rate_terms_of[<uint32_t> lanes.lanes[i].prefix[1]])
    for i in range(count):
        slot = <uint32_t> lanes.lanes[i].prefix[1]
        if slot != NO_SLOT and is_group(tables, slot):
            prefetch(&tables.windows[first_window(tables, slot)])
    for i in range(count):
        lane = &lanes.lanes[i]
        matches[i] = match_slot(
            tables,
            lane.digits,
            <uint32_t> lane.prefix[1],
            <uint32_t> (lane.prefix[1] >> 32),
            calls[i].started_at_ns,
        )


cdef inline void _match(
    const tables_t* tables,
    const call_t* calls,
    uint32_t count,
    lanes_t* lanes,
    match_t* matches,
) noexcept nogil:
    """Find the rates of all lanes with a billable call."""
    cdef walkers_t walkers
    _begin(tables, calls, count, lanes)
    _descend(tables, _enter(tables, count, lanes, &walkers), &walkers)
    _settle(tables, calls, count, lanes, matches)


cdef void match_block(
    const tables_t* tables, const call_t* calls, uint32_t count, match_t* matches
) noexcept nogil:
    """Find the rates of at most BLOCK calls, without charging."""
    cdef lanes_t lanes
    _match(tables, calls, count, &lanes, matches)


cdef void _charge_general(
    const tables_t* tables, const terms_t* terms, int64_t duration_seconds, outcome_t* outcome
) noexcept nogil:
    cdef uint32_t count
    cdef const interval_t* intervals
    outcome.bill_seconds = 0
    outcome.cost_scaled = 0
    if (terms.increment & BLOCKED_BIT) != 0:
        outcome.status = UNRATED
        outcome.unrated_reason = BLOCKED
        return
    intervals = terms_intervals(tables, terms, &count)
    if charge_any(
        terms,
        intervals,
        count,
        duration_seconds,
        &tables.rounding,
        &outcome.bill_seconds,
        &outcome.cost_scaled,
    ):
        outcome.status = RATED
    else:
        outcome.status = REFUSED
        outcome.bill_seconds = 0


cdef inline void _charge(
    const tables_t* tables,
    const terms_t* terms,
    int64_t duration_seconds,
    outcome_t* outcome,
) noexcept nogil:
    """Complete the outcome of a call with a rate."""
    outcome.unrated_reason = 0
    if unlikely(not terms.fast):
        _charge_general(tables, terms, duration_seconds, outcome)
        return
    outcome.status = RATED
    charge_fast(
        terms,
        <uint32_t> duration_seconds,
        &tables.rounding,
        &outcome.bill_seconds,
        &outcome.cost_scaled,
    )


cdef void _leave_unrated(outcome_t* outcome, uint8_t status, uint8_t reason) noexcept nogil:
    memset(outcome, 0, sizeof(outcome_t))
    outcome.row = NO_ROW
    outcome.status = status
    outcome.unrated_reason = reason


cdef void rate_digits(
    const tables_t* tables,
    const uint8_t* digits,
    uint32_t count,
    int64_t started_at_ns,
    int64_t duration_seconds,
    outcome_t* outcome,
) noexcept nogil:
    """Rate one billable call to a normalised number. Count 0 means an invalid number."""
    cdef match_t match
    if count == 0:
        _leave_unrated(outcome, UNRATED, INVALID_NUMBER)
        return
    match = match_digits(tables, digits, count, started_at_ns)
    if match.row == NO_ROW:
        _leave_unrated(outcome, UNRATED, NO_RATE)
        return
    outcome.row = match.row
    outcome.prefix_length = <uint8_t> match.length
    _charge(
        tables,
        row_terms(tables, match.row),
        duration_seconds,
        outcome,
    )


cdef void rate_block(
    const tables_t* tables, const call_t* calls, uint32_t count, outcome_t* outcomes
) noexcept nogil:
    """Rate at most BLOCK calls."""
    cdef lanes_t lanes
    cdef match_t matches[BLOCK]
    cdef const rate_terms_t* rate_terms[BLOCK]
    cdef const terms_t* terms = <const terms_t*> tables.terms.data
    cdef outcome_t* outcome
    cdef uint32_t i
    _match(tables, calls, count, &lanes, matches)
    for i in range(count):
        prefetch(&tables.rate_terms_of[matches[i].row & MAX_ROWS])
    for i in range(count):
        rate_terms[i] = NULL
        if likely(matches[i].row != NO_ROW):
            rate_terms[i] = row_rate_terms(tables, matches[i].row)
            prefetch(rate_terms[i])
    for i in range(count):
        outcome = &outcomes[i]
        if likely(rate_terms[i] != NULL):
            outcome.row = matches[i].row
            outcome.prefix_length = <uint8_t> matches[i].length
            _charge(tables, &terms[rate_terms[i].terms], calls[i].duration_seconds, outcome)
        elif not calls[i].billable:
            _leave_unrated(outcome, NOT_BILLABLE, 0)
        elif lanes.lanes[i].count:
            _leave_unrated(outcome, UNRATED, NO_RATE)
        else:
            _leave_unrated(outcome, UNRATED, INVALID_NUMBER)
