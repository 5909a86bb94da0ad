"""Checks the tables of a deck against tables.pxd. For tests, because it is slow."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memset

from ..pricing.terms cimport are_complete, check_interval, fault_t, interval_t, terms_t
from ..base.native cimport popcount10
from ..pricing.number cimport MAX_DIGITS
from ..base.pool cimport pool_item, pool_t
from .tables cimport (
    LENGTH_BITS,
    NO_SLOT,
    TEN_DIGITS,
    block_size,
    first_window,
    has_child,
    has_slot,
    is_group,
    jump_t,
    node_slot_count,
    node_t,
    rate_terms_t,
    row_rate_id,
    row_version_id,
    slot_prefix,
    slots_on_path,
    tables_t,
    terms_intervals,
    window_t,
)

cdef struct reached_t:       # how far the walk, in post-order, has come
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
    cdef uint32_t first = first_window(tables, slot)
    cdef const window_t* other
    cdef const window_t* ends
    cdef uint32_t i, j, last
    _require(row_rate_id(tables, slot) == 0, "a group has no rate of its own")
    _require(row_version_id(tables, slot) == 0, "nor a version of its own")
    _require(first == reached.windows and first < tables.window_count, "windows are in order")
    for i in range(tables.windows[first].left):
        window = &tables.windows[first + i]
        _require(window.slot == slot, "a window has the number of its slot")
        _require(window.left == tables.windows[first].left - i, "a window counts its group")
        _require(window.rate_terms < tables.rate_terms.count, "rate terms exist")
        _require(window.from_ns < 1_000_000_000 and window.to_ns < 1_000_000_000, "nanoseconds")
        _require(
            (window.from_s, window.from_ns) < (window.to_s, window.to_ns), "no window is empty"
        )
        _require(
            before == NULL or (window.from_s, window.from_ns) < (before.from_s, before.from_ns),
            "the latest begin comes first",
        )
        last = i
        for j in range(i, min(i + block_size(i + 1), tables.windows[first].left)):
            other = &tables.windows[first + j]
            ends = &tables.windows[first + last]
            if (other.to_s, other.to_ns) > (ends.to_s, ends.to_ns):
                last = j
        _require(window.last_end == last - i, "a window leads to the last end of its block")
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
    for digit in range(10):
        if not has_slot(node, digit):
            continue
        _require(slot < tables.slot_count, "slots exist")
        if depth >= 0:
            digits[depth] = c'0' + digit
        if is_group(tables, slot):
            _check_group(tables, slot, reached)
        else:
            _require(tables.rate_terms_of[slot] < tables.rate_terms.count, "rate terms exist")
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
    """Check a node and its descendants. Its prefix of ``depth`` digits is in ``digits``."""
    cdef uint32_t child = node.children
    cdef uint32_t digit
    cdef uint32_t digits_used = node.child_bits | node.slot_bits
    _require(digits_used <= TEN_DIGITS, "there are ten digits")
    if depth < 0:
        _require(digits_used <= 1, "top has one digit")
    else:
        _require(digits_used != 0, "no node is empty")
    _require(depth < MAX_DIGITS, "no prefix is longer than MAX_DIGITS")
    for digit in range(10):
        if has_child(node, digit):
            _require(child < tables.node_count, "children exist")
            if depth >= 0:
                digits[depth] = c'0' + digit
            _check_node(tables, &tables.nodes[child], digits, depth + 1, reached)
            child += 1
    _require(node.children == reached.nodes, "nodes are in post-order")
    reached.nodes = child
    _require(node.slots == reached.slots, "slots are in post-order")
    _check_slots(tables, node, digits, depth, reached)
    reached.slots += node_slot_count(node)
    return 0


cdef int _check_jumps(const tables_t* tables) except -1:
    """Check that each entry equals the result of a walk from the top."""
    cdef uint8_t digits[MAX_DIGITS]
    cdef uint32_t entries = 1
    cdef uint32_t i, _i, rest, position, node, digit
    cdef const node_t* at
    cdef const jump_t* jump
    cdef uint32_t slots[MAX_DIGITS + 1]
    cdef uint32_t lengths[MAX_DIGITS + 1]
    cdef int found
    for _i in range(tables.jump_digits):
        entries *= 10
    for i in range(entries if tables.jumps != NULL else 0):
        rest = i
        for position in range(tables.jump_digits):
            digits[tables.jump_digits - 1 - position] = <uint8_t> (c'0' + rest % 10)
            rest //= 10
        node = tables.top.children
        for position in range(tables.jump_digits):
            at = &tables.nodes[node]
            digit = digits[position] - c'0'
            if not has_child(at, digit):
                node = tables.node_count
                break
            node = at.children + popcount10(at.child_bits & ((1 << digit) - 1))
        jump = &tables.jumps[i]
        _require(jump.node == node, "a jump leads where a walk does")
        found = slots_on_path(tables, digits, tables.jump_digits, slots, lengths)
        if found == 0:
            _require(jump.best == <uint32_t> NO_SLOT << LENGTH_BITS, "a jump has no prefix")
        else:
            _require(
                jump.best == slots[found - 1] << LENGTH_BITS | lengths[found - 1],
                "a jump has the longest prefix until there",
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


cdef int _check_rate_terms(const tables_t* tables) except -1:
    cdef const rate_terms_t* rate_terms
    cdef uint32_t i
    for i in range(tables.rate_terms.count):
        rate_terms = &(<const rate_terms_t*> tables.rate_terms.data)[i]
        _require(rate_terms.terms < tables.terms.count, "terms exist")
        _require(rate_terms.destination < tables.destinations.count, "a destination exists")
    return 0


cdef int _check_terms(const tables_t* tables) except -1:
    cdef const terms_t* terms
    cdef fault_t fault
    cdef const interval_t* intervals
    cdef interval_t interval
    cdef uint32_t i, j, count
    for i in range(tables.terms.count):
        terms = &(<const terms_t*> tables.terms.data)[i]
        _require(are_complete(terms), "terms are complete and in their ranges")
        _require(terms.intervals < tables.intervals.count, "an interval list exists")
        intervals = terms_intervals(tables, terms, &count)
        _require(count > 0 or terms.intervals == 0, "item 0 is the empty list")
        for j in range(count):
            _require(
                check_interval(
                    intervals[j].start_seconds,
                    <int64_t> intervals[j].price_e8,
                    intervals[j].increment,
                    intervals[j - 1].start_seconds if j else 0,
                    &interval,
                    &fault,
                ),
                "intervals rise, and are in their ranges",
            )
    return 0


cdef int check_tables(const tables_t* tables) except -1:
    """AssertionError names the first broken invariant."""
    cdef uint8_t digits[MAX_DIGITS]
    cdef reached_t reached
    cdef node_t at_end
    memset(&reached, 0, sizeof(reached_t))
    _check_node(tables, &tables.top, digits, -1, &reached)
    _require(reached.nodes == tables.node_count, "all nodes are reached")
    at_end = tables.nodes[tables.node_count]
    _require(at_end.child_bits == 0 and at_end.slot_bits == 0, "the last node is empty")
    _require(reached.slots == tables.slot_count, "all slots are reached")
    _require(reached.windows == tables.window_count, "all windows are reached")
    _require(reached.groups == tables.group_count, "all groups are counted")
    _check_pool(&tables.rate_terms, sizeof(rate_terms_t))
    _check_pool(&tables.terms, sizeof(terms_t))
    _check_pool(&tables.intervals, 0)
    _check_pool(&tables.destinations, 0)
    _check_rate_terms(tables)
    _check_terms(tables)
    return _check_jumps(tables)
