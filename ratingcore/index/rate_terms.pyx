"""Rate terms, with the prices, interval lists and destinations that they refer to.

Equal rate terms are stored once in a deck, and copied from deck to deck. Unused ones remain for a
while: finding them reads every rate, so it happens only after rates were removed. They are
renumbered only if that frees enough memory.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from ..base.memory cimport allocate, release
from ..pricing.terms cimport interval_t, terms_t
from ..base.pool cimport (
    pool_copy,
    pool_free,
    pool_init,
    pool_intern,
    pool_intern_one,
    pool_item,
    pool_nbytes,
    pool_t,
)
from .tables cimport is_group, price_terms, rate_terms_t, row_rate_terms, tables_t


ctypedef int (*intern_t)(
    pool_t* pool, const void* item, uint32_t length, uint32_t* number
) except -1 nogil

cdef enum:
    FEW = 4     # up to this count of new items, a linear search is cheaper than a hash table


cdef void _init_pools(additions_t* additions) noexcept nogil:
    pool_init(&additions.rate_terms, sizeof(rate_terms_t))
    pool_init(&additions.terms, sizeof(terms_t))
    pool_init(&additions.intervals, 0)
    pool_init(&additions.destinations, 0)


cdef int additions_init(additions_t* additions) except -1 nogil:
    cdef uint32_t number
    _init_pools(additions)
    return pool_intern(&additions.intervals, NULL, 0, &number)


cdef void additions_free(additions_t* additions) noexcept nogil:
    pool_free(&additions.rate_terms)
    pool_free(&additions.terms)
    pool_free(&additions.intervals)
    pool_free(&additions.destinations)


cdef size_t additions_nbytes(const additions_t* additions) noexcept nogil:
    return (
        pool_nbytes(&additions.rate_terms)
        + pool_nbytes(&additions.terms)
        + pool_nbytes(&additions.intervals)
        + pool_nbytes(&additions.destinations)
    )


cdef int additions_put(
    additions_t* additions,
    terms_t* terms,
    const interval_t* intervals,
    uint32_t interval_count,
    const uint8_t* destination,
    uint32_t destination_size,
    uint32_t* number,
) except -1 nogil:
    """Add the terms of one rate. Sets ``terms.intervals``, and ``number`` to its rate terms."""
    cdef rate_terms_t rate_terms
    terms.intervals = 0
    if interval_count:
        pool_intern(
            &additions.intervals,
            intervals,
            interval_count * <uint32_t> sizeof(interval_t),
            &terms.intervals,
        )
    pool_intern(&additions.terms, terms, sizeof(terms_t), &rate_terms.terms)
    pool_intern(
        &additions.destinations, destination, destination_size, &rate_terms.destination
    )
    return pool_intern(&additions.rate_terms, &rate_terms, sizeof(rate_terms_t), number)


cdef int additions_copy(
    additions_t* target, const additions_t* source, uint32_t source_number, uint32_t* number
) except -1 nogil:
    """Add the rate terms ``source_number`` of other additions. Sets ``number`` to theirs here."""
    cdef rate_terms_t rate_terms = (<const rate_terms_t*> source.rate_terms.data)[source_number]
    cdef terms_t terms = (<const terms_t*> source.terms.data)[rate_terms.terms]
    cdef uint32_t interval_bytes, size
    cdef const uint8_t* intervals = pool_item(&source.intervals, terms.intervals, &interval_bytes)
    cdef const uint8_t* destination = pool_item(
        &source.destinations, rate_terms.destination, &size
    )
    return additions_put(
        target,
        &terms,
        <const interval_t*> intervals,
        interval_bytes // <uint32_t> sizeof(interval_t),
        destination,
        size,
        number,
    )


cdef bint _is_same_item(
    const pool_t* pool, uint32_t number, const pool_t* other_pool, uint32_t other_number
) noexcept nogil:
    cdef uint32_t size, other_size
    cdef const uint8_t* item = pool_item(pool, number, &size)
    cdef const uint8_t* other = pool_item(other_pool, other_number, &other_size)
    # The address of an empty item may be NULL, which memcmp does not allow.
    return size == other_size and (size == 0 or memcmp(item, other, size) == 0)


cdef bint is_same_terms(
    const additions_t* additions, uint32_t number, const tables_t* tables, uint32_t row
) noexcept nogil:
    """Whether the rate terms ``number`` of the additions equal those of a rate of a deck."""
    cdef const rate_terms_t* ours = &(<const rate_terms_t*> additions.rate_terms.data)[number]
    cdef const rate_terms_t* theirs = row_rate_terms(tables, row)
    cdef const terms_t* present = price_terms(tables, theirs)
    cdef terms_t terms = (<const terms_t*> additions.terms.data)[ours.terms]
    # Each deck numbers its own interval lists. The empty list has the number 0 in all of them.
    if terms.intervals or present.intervals:
        if not _is_same_item(
            &additions.intervals, terms.intervals, &tables.intervals, present.intervals
        ):
            return False
        terms.intervals = present.intervals
    return memcmp(&terms, present, sizeof(terms_t)) == 0 and _is_same_item(
        &additions.destinations, ours.destination, &tables.destinations, theirs.destination
    )


cdef int rate_terms_copy(tables_t* made, const tables_t* base) except -1 nogil:
    """Copy all rate terms of the base to ``made``, which is empty. They keep their numbers."""
    cdef uint32_t number
    pool_copy(&made.rate_terms, &base.rate_terms)
    pool_copy(&made.terms, &base.terms)
    pool_copy(&made.intervals, &base.intervals)
    pool_copy(&made.destinations, &base.destinations)
    if made.intervals.count == 0:
        pool_intern_one(&made.intervals, NULL, 0, &number)
    return 0


cdef int _add(
    tables_t* made,
    const additions_t* source,
    uint32_t source_number,
    intern_t intern,
    uint32_t* number,
) except -1 nogil:
    cdef rate_terms_t rate_terms = (<const rate_terms_t*> source.rate_terms.data)[source_number]
    cdef terms_t terms = (<const terms_t*> source.terms.data)[rate_terms.terms]
    cdef uint32_t length
    cdef const uint8_t* item = pool_item(&source.intervals, terms.intervals, &length)
    intern(&made.intervals, item, length, &terms.intervals)
    intern(&made.terms, &terms, sizeof(terms_t), &rate_terms.terms)
    item = pool_item(&source.destinations, rate_terms.destination, &length)
    intern(&made.destinations, item, length, &rate_terms.destination)
    return intern(&made.rate_terms, &rate_terms, sizeof(rate_terms_t), number)


cdef int rate_terms_add(
    tables_t* made, const additions_t* additions, uint32_t* numbers
) except -1 nogil:
    """Add the additions. ``numbers[i]`` becomes the number in ``made`` of their item i."""
    cdef intern_t intern = pool_intern_one if additions.rate_terms.count <= FEW else pool_intern
    cdef uint32_t i
    for i in range(additions.rate_terms.count):
        _add(made, additions, i, intern, &numbers[i])
    return 0


cdef uint32_t _mark(const tables_t* made, uint8_t* used) noexcept nogil:
    """Set ``used`` for all rate terms that a rate refers to. Returns the number of unused ones."""
    cdef uint32_t unused = made.rate_terms.count
    cdef uint32_t i
    for i in range(made.slot_count):
        if not is_group(made, i):
            used[made.rate_terms_of[i]] = 1
    for i in range(made.window_count):
        used[made.windows[i].rate_terms] = 1
    for i in range(made.rate_terms.count):
        unused -= used[i]
    return unused


cdef int _renumber(
    tables_t* made, const additions_t* old, const uint8_t* used, uint32_t* numbers
) except -1 nogil:
    """Copy the used rate terms of ``old`` to the pools of ``made``, which are empty."""
    cdef uint32_t i
    pool_intern(&made.intervals, NULL, 0, &i)
    for i in range(old.rate_terms.count):
        if used[i]:
            _add(made, old, i, pool_intern, &numbers[i])
    for i in range(made.slot_count):
        if not is_group(made, i):
            made.rate_terms_of[i] = numbers[made.rate_terms_of[i]]
    for i in range(made.window_count):
        made.windows[i].rate_terms = numbers[made.windows[i].rate_terms]
    return 0


cdef void _take_pools(tables_t* made, additions_t* old) noexcept nogil:
    """Move the pools of ``made`` to ``old``, and make new empty ones."""
    old.rate_terms, old.terms = made.rate_terms, made.terms
    old.intervals, old.destinations = made.intervals, made.destinations
    pool_init(&made.rate_terms, sizeof(rate_terms_t))
    pool_init(&made.terms, sizeof(terms_t))
    pool_init(&made.intervals, 0)
    pool_init(&made.destinations, 0)


cdef int rate_terms_compact(tables_t* made) except -1:
    """Remove the rate terms that no rate refers to, if they are more than a quarter of all."""
    cdef additions_t old
    cdef uint8_t* used = NULL
    cdef uint32_t* numbers = NULL
    cdef uint32_t count = made.rate_terms.count
    _init_pools(&old)
    try:
        with nogil:
            used = <uint8_t*> allocate(count, 1)
            if _mark(made, used) * 4 > count:
                numbers = <uint32_t*> allocate(count, 4)
                _take_pools(made, &old)
                _renumber(made, &old, used, numbers)
    finally:
        release(used)
        release(numbers)
        additions_free(&old)
    return 0
