"""Checks that the tables of a deck are what tables.pxd says. For tests: it takes its time."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from .match cimport match_t, walk_from_top
from .money cimport (
    BLOCKED_BIT,
    MAX_BILLING_INCREMENT,
    MAX_PRICE_E4,
    MAX_SECONDS,
    interval_t,
    terms_t,
)
from .native cimport popcount10
from .number cimport MAX_DIGITS
from .pool cimport pool_item, pool_t
from .tables cimport (
    CHILD_BITS,
    GROUP_BIT,
    GROUP_SHIFT,
    JUMP_GROUP,
    JUMP_NOTHING,
    LENGTH_BITS,
    NO_NODE,
    NO_ROW,
    SLOT_SHIFT,
    jump_t,
    node_t,
    slot_prefix,
    tables_t,
    terms_intervals,
    window_t,
)

cdef struct reached_t:       # how far the walk, which is in post-order, has come
    uint32_t nodes
    uint32_t slots
    uint32_t windows
    uint32_t groups


cdef int _require(bint holds, str what) except -1:
    if not holds:
        raise AssertionError(what)
    return 0


cdef int _check_group(const tables_t* tables, uint32_t slot, reached_t* reached) except -1:
    cdef const window_t* window
    cdef const window_t* before = NULL
    cdef uint32_t first = tables.terms_of[slot] & ~<uint32_t> GROUP_BIT
    cdef uint32_t i
    _require(tables.rate_ids[slot] == 0 and tables.version_ids[slot] == 0, "a group has no ids")
    _require(first == reached.windows and first < tables.window_count, "windows are in order")
    for i in range(tables.windows[first].left):
        window = &tables.windows[first + i]
        _require(window.slot == slot, "a window knows its slot")
        _require(window.left == tables.windows[first].left - i, "a window counts its group")
        _require(window.terms < tables.terms.count, "terms exist")
        _require(window.from_ns < 1_000_000_000 and window.to_ns < 1_000_000_000, "nanoseconds")
        _require(
            (window.from_s, window.from_ns) < (window.to_s, window.to_ns), "no window is empty"
        )
        _require(
            before == NULL or (window.from_s, window.from_ns) < (before.from_s, before.from_ns),
            "the latest begin comes first",
        )
        before = window
    reached.windows += tables.windows[first].left
    reached.groups += 1
    return 0


cdef int _check_slots(
    const tables_t* tables,
    const node_t* node,
    uint8_t* digits,
    int depth,
    reached_t* reached,
) except -1:
    cdef uint8_t found[MAX_DIGITS]
    cdef uint32_t slot = node.slots
    cdef uint32_t digit
    cdef bint group
    for digit in range(10):
        if not node.bits & (<uint32_t> 1 << (SLOT_SHIFT + digit)):
            continue
        _require(slot < tables.slot_count, "slots exist")
        if depth >= 0:
            digits[depth] = c'0' + digit
        group = (tables.terms_of[slot] & GROUP_BIT) != 0
        _require(
            group == ((node.bits & (<uint32_t> 1 << (GROUP_SHIFT + digit))) != 0),
            "node and column agree on groups",
        )
        if group:
            _check_group(tables, slot, reached)
        else:
            _require(tables.terms_of[slot] < tables.terms.count, "terms exist")
        _require(
            slot_prefix(tables, slot, found) == depth + 1
            and found[: depth + 1] == digits[: depth + 1],
            "a slot leads back to its prefix",
        )
        slot += 1
    return 0


cdef int _check_node(
    const tables_t* tables,
    const node_t* node,
    uint8_t* digits,
    int depth,
    reached_t* reached,
) except -1:
    """A node whose prefix of ``depth`` digits is in ``digits``, and all below it."""
    cdef uint32_t child = node.children
    cdef uint32_t digit
    cdef uint32_t shape = node.bits & (CHILD_BITS | CHILD_BITS << SLOT_SHIFT)
    _require(node.bits >> 30 == 0, "a node has thirty bits")
    _require(
        node.bits >> GROUP_SHIFT & ~(node.bits >> SLOT_SHIFT & CHILD_BITS) == 0,
        "a group is a slot",
    )
    if depth < 0:
        _require(shape & ~<uint32_t> (1 | 1 << SLOT_SHIFT) == 0, "top has one digit")
    else:
        _require(shape != 0, "no node is empty")
    _require(depth < MAX_DIGITS, "no prefix is longer than it may be")
    for digit in range(10):
        if node.bits & (<uint32_t> 1 << digit):
            _require(child < tables.node_count, "children exist")
            if depth >= 0:
                digits[depth] = c'0' + digit
            _check_node(tables, &tables.nodes[child], digits, depth + 1, reached)
            child += 1
    _require(node.children == reached.nodes, "nodes are in post-order")
    reached.nodes = child
    _require(node.slots == reached.slots, "slots are in post-order")
    _check_slots(tables, node, digits, depth, reached)
    reached.slots += popcount10(node.bits >> SLOT_SHIFT & CHILD_BITS)
    return 0


cdef int _check_jumps(const tables_t* tables) except -1:
    """Every entry says what walking its digits from the top finds."""
    cdef uint8_t digits[MAX_DIGITS]
    cdef uint32_t entries = 1
    cdef uint32_t i, rest, position, node, bit
    cdef const node_t* at
    cdef const jump_t* jump
    cdef match_t match
    cdef bint group
    for i in range(tables.jump_digits):
        entries *= 10
    for i in range(entries if tables.jumps != NULL else 0):
        rest = i
        for position in range(tables.jump_digits):
            digits[tables.jump_digits - 1 - position] = <uint8_t> (c'0' + rest % 10)
            rest //= 10
        node = tables.top.children
        group = tables.top.bits >> GROUP_SHIFT != 0
        for position in range(tables.jump_digits):
            at = &tables.nodes[node]
            bit = <uint32_t> 1 << (digits[position] - c'0')
            if at.bits & bit << SLOT_SHIFT:
                group = (at.bits & bit << GROUP_SHIFT) != 0
            if not at.bits & bit:
                node = NO_NODE
                break
            node = at.children + popcount10(at.bits & (bit - 1))
        jump = &tables.jumps[i]
        _require(jump.node == node, "a jump leads where a walk does")
        if group:
            _require(jump.best == JUMP_GROUP, "a jump knows of a group")
            continue
        walk_from_top(tables, digits, tables.jump_digits, 0, &match)
        if match.row == NO_ROW:
            _require(jump.best == JUMP_NOTHING, "a jump knows of no match")
        else:
            _require(
                jump.best == <uint32_t> match.row << LENGTH_BITS | match.length,
                "a jump has the match of a walk",
            )
    return 0


cdef int _check_pool(const pool_t* pool, uint32_t stride) except -1:
    cdef uint32_t i, length
    cdef const uint8_t* item
    cdef set seen = set()
    _require(pool.stride == stride, "a pool has the stride of its items")
    for i in range(pool.count):
        if not stride:
            _require(pool.ends[i] <= pool.size, "an item ends within the pool")
            _require(i == 0 or pool.ends[i - 1] <= pool.ends[i], "items follow each other")
        item = pool_item(pool, i, &length)
        seen.add(item[:length])
    _require(len(seen) == pool.count, "the items of a pool are distinct")
    _require(pool.buckets == NULL, "a deck's pool is frozen")
    return 0


cdef int _check_terms(const tables_t* tables) except -1:
    cdef const terms_t* terms
    cdef const interval_t* intervals
    cdef uint32_t i, j, count, increment
    for i in range(tables.terms.count):
        terms = &(<const terms_t*> tables.terms.data)[i]
        increment = terms.increment & ~<uint32_t> BLOCKED_BIT
        _require(1 <= increment <= MAX_BILLING_INCREMENT, "an increment is in its range")
        _require(terms.price_e4 <= MAX_PRICE_E4, "a price is in its range")
        _require(terms.connect_fee_e4 <= MAX_PRICE_E4, "a fee is in its range")
        _require(terms.minimum_seconds <= MAX_SECONDS, "a minimum is in its range")
        _require(terms.destination < tables.destinations.count, "a destination exists")
        _require(terms.intervals < tables.intervals.count, "an interval list exists")
        intervals = terms_intervals(tables, terms, &count)
        _require(count > 0 or terms.intervals == 0, "item 0 is the empty list")
        for j in range(count):
            _require(
                intervals[j].start_seconds > (intervals[j - 1].start_seconds if j else 0),
                "intervals rise",
            )
    return 0


cdef int check_tables(const tables_t* tables) except -1:
    """AssertionError names the first invariant that is broken."""
    cdef uint8_t digits[MAX_DIGITS]
    cdef reached_t reached
    memset(&reached, 0, sizeof(reached_t))
    _check_node(tables, &tables.top, digits, -1, &reached)
    _require(reached.nodes == tables.node_count, "all nodes are reached")
    _require(reached.slots == tables.slot_count, "all slots are reached")
    _require(reached.windows == tables.window_count, "all windows are reached")
    _require(reached.groups == tables.group_count, "all groups are counted")
    _check_pool(&tables.terms, sizeof(terms_t))
    _check_pool(&tables.intervals, 0)
    _check_pool(&tables.destinations, 0)
    _check_terms(tables)
    return _check_jumps(tables)
