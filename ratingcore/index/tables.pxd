"""The memory layout of one deck: a prefix trie over decimal digits, and the rates.

The index is a trie. A node is a sequence of digits with which longer prefixes begin. For each next
digit it has one bit for a longer node ("child") and one for a prefix that ends there ("slot").
Children of a node are neighbours in ``nodes``, its slots are neighbours in the columns, both in the
order of their digits, so one bit a digit and one base are enough to find them. A prefix with which
no other prefix begins has no node.

Nodes and slots are in post-order: a node's children follow the last of their own descendants, and a
node's slots follow those of its descendants. So a subtree is one run of nodes and one run of slots.
This makes a change cheap: unchanged subtrees are copied as runs (merge.pyx).

A *slot* is a prefix. A *row* is a rate: row r < slot_count is the only rate of slot r, always in
effect; row slot_count + w is windows[w].
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ..pricing.money cimport rounding_t
from ..pricing.terms cimport interval_t, terms_t
from ..base.native cimport popcount10, unlikely
from ..pricing.number cimport dialling_t
from ..base.pool cimport pool_item, pool_t

cdef enum:
    MAX_ROWS = 0x7FFFFFF         # of one deck; a slot and the length of its prefix fit 32 bits
    MAX_JUMP_DIGITS = 7          # a direct table of at most 10^7 entries
    JUMP_BYTES_A_SLOT = 4        # the most memory of the direct table for each slot
    TEN_DIGITS = 0x3FF           # the bits of all digits

cdef enum:
    NO_ROW = -1                  # no rate
    NO_SLOT = 0xFFFFFFF          # no prefix; as jump_t.best has it, with a length of 0
    GROUP_BIT = 0x80000000       # in rate_terms_of: a group; the rest is its first window
    LENGTH_BITS = 4              # jump_t.best: the lowest bits are the length, the others the slot

cdef struct node_t:              # 12 bytes
    uint16_t child_bits          # bit d: digit d leads to a child
    uint16_t slot_bits           # bit d: a prefix ends with digit d
    uint32_t children            # where in nodes the children are; where they would be, if none
    uint32_t slots               # first slot; where it would be, if none

cdef struct jump_t:              # 8 bytes; what is known after the first jump_digits digits
    uint32_t node                # the node there; node_count, which is the empty node, for none
    uint32_t best                # slot << LENGTH_BITS | length of the longest prefix until there

cdef struct rate_terms_t:        # 8 bytes, no padding: compared and hashed as bytes
    uint32_t terms               # item of terms; a deck has few, so they stay in the caches
    uint32_t destination         # item of destinations

cdef struct id_tops_t:           # 8 bytes; the upper halves of a slot's ids
    uint32_t rate
    uint32_t version

cdef struct window_t:            # 56 bytes; a rate with a period, or of a prefix with several
    int64_t from_s               # in effect from here: whole seconds since 1970; INT64_MIN: open
    int64_t to_s                 # in effect until before here; INT64_MAX: open
    int64_t rate_id
    int64_t version_id
    uint32_t from_ns             # nanoseconds of the second
    uint32_t to_ns               # nanoseconds of the second
    uint32_t rate_terms          # item of rate_terms
    uint32_t slot                # the slot of its group
    uint32_t left                # rates of the group from this one on: the last has 1
    uint32_t last_end            # how far after this one the window of its block is that ends last

# A *block* is what lets a search skip windows that have ended. The windows of a group, numbered
# from 1, are in blocks as in a Fenwick tree: that of window n is the windows from n to
# n + lowbit(n) - 1, as far as they exist. ``last_end`` is the distance to the block's window with
# the latest end.

cdef struct tables_t:
    node_t top                   # above the root: "digit" 0 is the empty prefix and the root
    node_t* nodes                # [node_count] in post-order, then one empty node to end walks at
    jump_t* jumps                # [10 ** jump_digits] by those digits; NULL where that is 0
    uint32_t* rate_ids           # [slot_count] the lower half; 0 for a group
    uint32_t* version_ids        # [slot_count] the lower half; 0 for a group
    id_tops_t* id_tops           # [slot_count]; NULL where all are 0, which is nearly always
    uint32_t* rate_terms_of      # [slot_count] item of rate_terms, or GROUP_BIT | first window
    window_t* windows            # [window_count], by slot; of one slot the latest from first
    pool_t rate_terms            # of rate_terms_t
    pool_t terms                 # of terms_t
    pool_t intervals             # of lists of interval_t; item 0 is the empty list
    pool_t destinations          # of UTF-8
    dialling_t dialling          # the tenant's rules for numbers
    uint32_t node_count
    uint32_t slot_count
    uint32_t window_count
    uint32_t group_count         # slots that are groups
    uint32_t jump_digits         # 0 to MAX_JUMP_DIGITS
    uint32_t node_capacity       # allocated nodes; node_count + 1 in the end
    uint32_t slot_capacity       # allocated slots, in each column
    uint32_t window_capacity     # allocated windows
    rounding_t rounding          # the tenant's rule for costs
    bint is_mapped               # the arrays are in a mapping (deck/image.pyx), not allocated

cdef tables_t* tables_new() except NULL
cdef void tables_free(tables_t* tables) noexcept nogil
cdef int tables_freeze(tables_t* tables) except -1 nogil
cdef size_t tables_nbytes(const tables_t* tables) noexcept nogil
cdef int slot_prefix(const tables_t* tables, uint32_t slot, uint8_t* digits) noexcept nogil
cdef int slots_on_path(
    const tables_t* tables,
    const uint8_t* digits,
    uint32_t count,
    uint32_t* slots,
    uint32_t* lengths,
) noexcept nogil
cdef uint32_t rows_in_order(const tables_t* tables, uint32_t* rows) noexcept nogil


cdef inline bint has_child(const node_t* node, uint32_t digit) noexcept nogil:
    return (node.child_bits >> digit & 1) != 0


cdef inline bint has_slot(const node_t* node, uint32_t digit) noexcept nogil:
    return (node.slot_bits >> digit & 1) != 0


cdef inline uint32_t child_count(const node_t* node) noexcept nogil:
    return popcount10(node.child_bits)


cdef inline uint32_t node_slot_count(const node_t* node) noexcept nogil:
    return popcount10(node.slot_bits)


cdef inline bint is_group(const tables_t* tables, uint32_t slot) noexcept nogil:
    return (tables.rate_terms_of[slot] & GROUP_BIT) != 0


cdef inline uint32_t first_window(const tables_t* tables, uint32_t slot) noexcept nogil:
    """The first window of a slot that is a group."""
    return tables.rate_terms_of[slot] & ~<uint32_t> GROUP_BIT


cdef inline uint32_t block_size(uint32_t number) noexcept nogil:
    """The size of the block of a window, if all its windows exist. ``number``: of the group's
    windows, from 1."""
    return number & (~number + 1)


cdef inline uint32_t row_count(const tables_t* tables) noexcept nogil:
    """The number of rates of the deck."""
    return tables.slot_count - tables.group_count + tables.window_count


cdef inline const rate_terms_t* row_rate_terms(const tables_t* tables, uint32_t row) noexcept nogil:
    """The terms of a rate. Here and below, ``row`` is never the slot of a group."""
    cdef uint32_t number
    if row < tables.slot_count:
        number = tables.rate_terms_of[row]
    else:
        number = tables.windows[row - tables.slot_count].rate_terms
    return &(<const rate_terms_t*> tables.rate_terms.data)[number]


cdef inline const terms_t* price_terms(
    const tables_t* tables, const rate_terms_t* rate_terms
) noexcept nogil:
    return &(<const terms_t*> tables.terms.data)[rate_terms.terms]


cdef inline const terms_t* row_terms(const tables_t* tables, uint32_t row) noexcept nogil:
    return price_terms(tables, row_rate_terms(tables, row))


cdef inline int64_t row_rate_id(const tables_t* tables, uint32_t row) noexcept nogil:
    cdef uint64_t rate_id
    if row >= tables.slot_count:
        return tables.windows[row - tables.slot_count].rate_id
    rate_id = tables.rate_ids[row]
    if unlikely(tables.id_tops != NULL):
        rate_id |= <uint64_t> tables.id_tops[row].rate << 32
    return <int64_t> rate_id


cdef inline int64_t row_version_id(const tables_t* tables, uint32_t row) noexcept nogil:
    cdef uint64_t version_id
    if row >= tables.slot_count:
        return tables.windows[row - tables.slot_count].version_id
    version_id = tables.version_ids[row]
    if unlikely(tables.id_tops != NULL):
        version_id |= <uint64_t> tables.id_tops[row].version << 32
    return <int64_t> version_id


cdef inline const uint8_t* rate_terms_destination(
    const tables_t* tables, const rate_terms_t* rate_terms, uint32_t* length
) noexcept nogil:
    """UTF-8, and its length in bytes."""
    return pool_item(&tables.destinations, rate_terms.destination, length)


cdef inline const uint8_t* row_destination(
    const tables_t* tables, uint32_t row, uint32_t* length
) noexcept nogil:
    return rate_terms_destination(tables, row_rate_terms(tables, row), length)


cdef inline const uint8_t* destinations_end(const tables_t* tables) noexcept nogil:
    """The end of the memory of all destinations: a read may pass one destination, but not this."""
    return tables.destinations.data + tables.destinations.size


cdef inline const void* rate_id_place(const tables_t* tables, uint32_t row) noexcept nogil:
    """The address to prefetch for ``row_rate_id``."""
    if row < tables.slot_count:
        return &tables.rate_ids[row]
    return &tables.windows[row - tables.slot_count]


cdef inline const void* destination_place(
    const tables_t* tables, const rate_terms_t* rate_terms
) noexcept nogil:
    """The address to prefetch for ``rate_terms_destination``."""
    return &tables.destinations.ends[rate_terms.destination]


cdef inline const interval_t* terms_intervals(
    const tables_t* tables, const terms_t* terms, uint32_t* count
) noexcept nogil:
    """The intervals of terms, and their count."""
    cdef const uint32_t* ends = tables.intervals.ends
    cdef uint32_t start
    if terms.intervals == 0:
        count[0] = 0
        return NULL
    start = ends[terms.intervals - 1]
    count[0] = (ends[terms.intervals] - start) // <uint32_t> sizeof(interval_t)
    return <const interval_t*> (tables.intervals.data + start)
