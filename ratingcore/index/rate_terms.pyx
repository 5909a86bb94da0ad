"""Rate terms, with the prices, interval lists and destinations that they refer to.

Equal rate terms are stored once in a deck, and copied from deck to deck. Unused ones stay for a
while: finding them reads every rate, so it happens only after rates were removed. They are renumbered
only if that frees enough memory.
"""

from libc.stdint cimport uint8_t, uint32_t

from ..base.memory cimport allocate, release
from ..pricing.terms cimport terms_t
from ..base.pool cimport (
    pool_copy,
    pool_free,
    pool_init,
    pool_intern,
    pool_intern_one,
    pool_item,
    pool_t,
)
from .tables cimport is_group, rate_terms_t, tables_t


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


cdef int rate_terms_copy(tables_t* made, const tables_t* base) except -1 nogil:
    """Copy all rate terms of the base to ``made``, which has none. They keep their numbers."""
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
    """Add the new ones. ``numbers[i]`` becomes the number in ``made`` of item i of the additions."""
    cdef intern_t intern = pool_intern_one if additions.rate_terms.count <= FEW else pool_intern
    cdef uint32_t i
    for i in range(additions.rate_terms.count):
        _add(made, additions, i, intern, &numbers[i])
    return 0


cdef uint32_t _mark(const tables_t* made, uint8_t* used) noexcept nogil:
    """Set ``used`` for all rate terms that a rate refers to. Returns how many are unused."""
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
    """Fill the pools of ``made``, which are empty, with the used ones among the old."""
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
    """Move the pools of ``made``, which then has empty ones."""
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
