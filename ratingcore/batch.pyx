# cython: cdivision=True
"""Rating one call and rating blocks of calls: match, then blocked, then charge (rules 1 to 8).

A block goes through each stage as a whole: normalise all numbers, look up all direct entries, take
all lanes one digit further at a time, then charge all. So the memory that one lane waits for is on
its way while the others are worked on. And a step has no branch that depends on the number: what
it finds is chosen with masks, and the lanes that go on are moved together, which costs less than
guessing where each one ends.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from .match cimport longest_slot, match_digits, match_slot, match_t
from .money cimport BLOCKED_BIT, charge_terms, interval_t, terms_t
from .native cimport (
    all_digits,
    leading_number,
    likely,
    load8,
    popcount10,
    prefetch,
    store8,
    unlikely,
)
from .number cimport MAX_DIGITS, dialling_t, normalize
from .tables cimport (
    LENGTH_BITS,
    MAX_ROWS,
    NO_ROW,
    NO_SLOT,
    first_window,
    is_group,
    jump_t,
    node_t,
    row_terms,
    tables_t,
    terms_intervals,
)

cdef enum:
    LANE_DIGITS = 40             # MAX_DIGITS and at least one NO_DIGIT; whole words
    NO_DIGIT = 10                # after the last digit: a bit that no node has

cdef struct lanes_t:
    uint8_t digits[BLOCK][LANE_DIGITS]   # values 0 to 9, then NO_DIGIT
    uint32_t count[BLOCK]                # digits; 0: no valid number, or none needed
    uint64_t longest[BLOCK]              # of the prefixes so far: length << 32 | slot, or NO_SLOT

cdef struct walker_t:                    # a lane that is not at its end
    uint32_t node
    uint32_t lane


cdef inline bint _may_be_rewritten(const dialling_t* rules, uint8_t first) noexcept nogil:
    """Whether a dialling rule may apply to a number that begins with this ASCII digit."""
    return (
        (rules.international_prefix_length > 0 and rules.international_prefix[0] == first)
        or (rules.national_prefix_length > 0 and rules.national_prefix[0] == first)
    )


cdef inline uint32_t _normalize_plain(
    const uint8_t* text, uint32_t size, const dialling_t* rules, uint8_t* digits
) noexcept nogil:
    """The usual number: 8 to 16 digits, perhaps after a "+", that no rule rewrites; else 0.

    The two words overlap where the number is shorter than 16.
    """
    cdef uint64_t head, tail
    cdef bint plus = size > 0 and text[0] == c'+'
    text += plus
    size -= plus
    if not 8 <= size <= 16:
        return 0
    head = load8(text)
    tail = load8(text + size - 8)
    if not all_digits(head) or not all_digits(tail):
        return 0
    if not plus and _may_be_rewritten(rules, text[0]):
        return 0
    store8(digits, head & <uint64_t> 0x0F0F0F0F0F0F0F0F)
    store8(digits + size - 8, tail & <uint64_t> 0x0F0F0F0F0F0F0F0F)
    return size


cdef void _normalize_lane(
    const tables_t* tables, const call_t* call, lanes_t* lanes, uint32_t lane
) noexcept nogil:
    cdef uint8_t text[MAX_DIGITS]
    cdef uint8_t* digits = lanes.digits[lane]
    cdef uint32_t i
    memset(digits + 8, NO_DIGIT, LANE_DIGITS - 8)
    lanes.count[lane] = _normalize_plain(
        call.number, call.number_size, &tables.dialling, digits
    )
    if unlikely(lanes.count[lane] == 0):
        lanes.count[lane] = normalize(call.number, call.number_size, &tables.dialling, text)
        memset(digits, NO_DIGIT, 8)
        for i in range(lanes.count[lane]):
            digits[i] = text[i] & 15


cdef inline uint64_t _packed(uint32_t slot, uint32_t length) noexcept nogil:
    """A prefix in one word, so that a step chooses between two of them without a branch."""
    return <uint64_t> length << 32 | slot


cdef uint32_t _enter(
    const tables_t* tables, uint32_t count, lanes_t* lanes, walker_t* walkers
) noexcept nogil:
    """Put every lane at the node that the direct table names, or at the root.

    Returns how many have one: those are the walkers.
    """
    cdef const jump_t* jumps[BLOCK]
    cdef uint32_t jump_digits = tables.jump_digits
    cdef uint32_t root = tables.top.children if tables.top.child_bits else tables.node_count
    cdef uint32_t top_slot = tables.top.slots if tables.top.slot_bits else NO_SLOT
    cdef uint32_t lane, slot, length
    cdef walker_t walker
    cdef uint32_t kept = 0
    for lane in range(count):
        walkers[lane].lane = lane
        walkers[lane].node = tables.node_count
        lanes.longest[lane] = _packed(NO_SLOT, 0)
        jumps[lane] = NULL
        if likely(jump_digits > 0 and lanes.count[lane] >= jump_digits):
            jumps[lane] = &tables.jumps[leading_number(load8(lanes.digits[lane]), jump_digits)]
            prefetch(jumps[lane])
        elif lanes.count[lane] == 0:
            pass
        elif jump_digits == 0:
            walkers[lane].node = root
            lanes.longest[lane] = _packed(top_slot, 0)
        else:
            slot = longest_slot(tables, lanes.digits[lane], lanes.count[lane], &length)
            lanes.longest[lane] = _packed(slot, length)
    for lane in range(count):
        walker = walkers[lane]
        if likely(jumps[lane] != NULL):
            walker.node = jumps[lane].node
            prefetch(&tables.nodes[walker.node])
            lanes.longest[lane] = _packed(
                jumps[lane].best >> LENGTH_BITS, jumps[lane].best & ((1 << LENGTH_BITS) - 1)
            )
        walkers[kept] = walker
        kept += walker.node != tables.node_count
    return kept


cdef inline uint32_t _step(
    const tables_t* tables,
    lanes_t* lanes,
    const walker_t* walker,
    uint32_t position,
    walker_t* further,
) noexcept nogil:
    """One digit further. 1 where there is a longer node, which ``further`` then names; else 0."""
    cdef uint32_t lane = walker.lane
    cdef const node_t* node = &tables.nodes[walker.node]
    cdef uint32_t digit = lanes.digits[lane][position]
    cdef uint32_t below = (<uint32_t> 1 << digit) - 1
    cdef uint32_t child_bits = node.child_bits
    cdef uint32_t slot_bits = node.slot_bits
    cdef uint64_t prefix = _packed(node.slots + popcount10(slot_bits & below), position + 1)
    cdef uint64_t ends = slot_bits >> digit & 1
    lanes.longest[lane] ^= (lanes.longest[lane] ^ prefix) & (0 - ends)
    further.node = node.children + popcount10(child_bits & below)
    further.lane = lane
    prefetch(&tables.nodes[further.node])
    return child_bits >> digit & 1


cdef void _descend(
    const tables_t* tables, uint32_t left, lanes_t* lanes, walker_t* walkers
) noexcept nogil:
    """Take all walkers to their ends, a digit at a time."""
    cdef walker_t walker
    cdef uint32_t position = tables.jump_digits
    cdef uint32_t i, kept
    while left:
        kept = 0
        for i in range(left):
            walker = walkers[i]
            kept += _step(tables, lanes, &walker, position, &walkers[kept])
        left = kept
        position += 1


cdef void _settle(
    const tables_t* tables,
    const call_t* calls,
    uint32_t count,
    const lanes_t* lanes,
    match_t* matches,
) noexcept nogil:
    """From the longest prefixes to the rates in effect."""
    cdef uint32_t lane, slot
    if tables.group_count == 0:
        for lane in range(count):
            slot = <uint32_t> lanes.longest[lane]
            matches[lane].row = <int32_t> slot if slot != NO_SLOT else NO_ROW
            matches[lane].length = <uint32_t> (lanes.longest[lane] >> 32)
        return
    for lane in range(count):
        prefetch(&tables.offer_of[<uint32_t> lanes.longest[lane]])
    for lane in range(count):
        slot = <uint32_t> lanes.longest[lane]
        if slot != NO_SLOT and is_group(tables, slot):
            prefetch(&tables.windows[first_window(tables, slot)])
    for lane in range(count):
        matches[lane] = match_slot(
            tables,
            lanes.digits[lane],
            <uint32_t> lanes.longest[lane],
            <uint32_t> (lanes.longest[lane] >> 32),
            calls[lane].started_at_ns,
        )


cdef void _match(
    const tables_t* tables,
    const call_t* calls,
    uint32_t count,
    lanes_t* lanes,
    match_t* matches,
) noexcept nogil:
    """The rates of all lanes whose call is billable."""
    cdef walker_t walkers[BLOCK]
    cdef uint32_t lane
    for lane in range(count):
        lanes.count[lane] = 0
        if calls[lane].billable:
            _normalize_lane(tables, &calls[lane], lanes, lane)
    _descend(tables, _enter(tables, count, lanes, walkers), lanes, walkers)
    _settle(tables, calls, count, lanes, matches)


cdef void match_block(
    const tables_t* tables, const call_t* calls, uint32_t count, match_t* matches
) noexcept nogil:
    """The rates of at most BLOCK calls, without charging."""
    cdef lanes_t lanes
    _match(tables, calls, count, &lanes, matches)


cdef inline void _charge(
    const tables_t* tables, const terms_t* terms, int64_t duration_seconds, outcome_t* outcome
) noexcept nogil:
    """Complete an outcome that is otherwise done and 0."""
    cdef uint32_t count
    cdef const interval_t* intervals
    if unlikely((terms.increment & BLOCKED_BIT) != 0):
        outcome.status = UNRATED
        outcome.unrated_reason = BLOCKED
        return
    intervals = terms_intervals(tables, terms, &count)
    if likely(
        charge_terms(
            terms,
            intervals,
            count,
            duration_seconds,
            tables.rounding,
            &outcome.bill_seconds,
            &outcome.cost_e4,
        )
    ):
        outcome.status = RATED
    else:
        outcome.status = REFUSED
        outcome.bill_seconds = 0


cdef void rate_digits(
    const tables_t* tables,
    const uint8_t* digits,
    uint32_t count,
    int64_t started_at_ns,
    int64_t duration_seconds,
    outcome_t* outcome,
) noexcept nogil:
    """Rate one billable call to a normalised number; count 0 stands for an invalid one."""
    cdef match_t match
    memset(outcome, 0, sizeof(outcome_t))
    outcome.row = NO_ROW
    if count == 0:
        outcome.status = UNRATED
        outcome.unrated_reason = INVALID_NUMBER
        return
    match = match_digits(tables, digits, count, started_at_ns)
    if match.row == NO_ROW:
        outcome.status = UNRATED
        outcome.unrated_reason = NO_RATE
        return
    outcome.row = match.row
    outcome.prefix_length = <uint8_t> match.length
    _charge(tables, row_terms(tables, match.row), duration_seconds, outcome)


cdef void rate_block(
    const tables_t* tables, const call_t* calls, uint32_t count, outcome_t* outcomes
) noexcept nogil:
    """Rate at most BLOCK calls."""
    cdef lanes_t lanes
    cdef match_t matches[BLOCK]
    cdef const terms_t* terms[BLOCK]
    cdef outcome_t* outcome
    cdef uint32_t lane
    _match(tables, calls, count, &lanes, matches)
    for lane in range(count):
        prefetch(&tables.offer_of[matches[lane].row & MAX_ROWS])
    for lane in range(count):
        terms[lane] = NULL
        if likely(matches[lane].row != NO_ROW):
            terms[lane] = row_terms(tables, matches[lane].row)
            prefetch(terms[lane])
    for lane in range(count):
        outcome = &outcomes[lane]
        outcome.row = matches[lane].row
        outcome.prefix_length = <uint8_t> matches[lane].length
        outcome.cost_e4 = 0
        outcome.bill_seconds = 0
        outcome.unrated_reason = 0
        if likely(terms[lane] != NULL):
            _charge(tables, terms[lane], calls[lane].duration_seconds, outcome)
        elif not calls[lane].billable:
            outcome.status = NOT_BILLABLE
        else:
            outcome.status = UNRATED
            outcome.unrated_reason = NO_RATE if lanes.count[lane] else INVALID_NUMBER
