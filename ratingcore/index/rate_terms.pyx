"""Offers, and the terms, interval lists and destinations that they refer to: shared within a deck,
carried from deck to deck.

Offers that are no longer used stay for a while: finding them costs a look at every rate, so it is
done only when rates were removed, and renumbering only when it gives back enough.
"""

from libc.stdint cimport uint8_t, uint32_t

from ..base.memory cimport allocate, release
from ..pricing.money cimport terms_t
from ..base.pool cimport pool_copy, pool_free, pool_init, pool_intern, pool_intern_one, pool_item, pool_t
from .tables cimport is_group, offer_t, tables_t


ctypedef int (*intern_t)(
    pool_t* pool, const void* item, uint32_t length, uint32_t* number
) except -1 nogil

cdef enum:
    FEW = 4     # new offers: fewer than it takes to make a hash of the deck's worth while


cdef void _init_pools(additions_t* additions) noexcept nogil:
    pool_init(&additions.offers, sizeof(offer_t))
    pool_init(&additions.terms, sizeof(terms_t))
    pool_init(&additions.intervals, 0)
    pool_init(&additions.destinations, 0)


cdef int additions_init(additions_t* additions) except -1 nogil:
    cdef uint32_t number
    _init_pools(additions)
    return pool_intern(&additions.intervals, NULL, 0, &number)


cdef void additions_free(additions_t* additions) noexcept nogil:
    pool_free(&additions.offers)
    pool_free(&additions.terms)
    pool_free(&additions.intervals)
    pool_free(&additions.destinations)


cdef int offers_copy(tables_t* made, const tables_t* base) except -1 nogil:
    """Give ``made``, which has none, all offers of the base under their numbers."""
    cdef uint32_t number
    pool_copy(&made.offers, &base.offers)
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
    cdef offer_t offer = (<const offer_t*> source.offers.data)[source_number]
    cdef terms_t terms = (<const terms_t*> source.terms.data)[offer.terms]
    cdef uint32_t length
    cdef const uint8_t* item = pool_item(&source.intervals, terms.intervals, &length)
    intern(&made.intervals, item, length, &terms.intervals)
    intern(&made.terms, &terms, sizeof(terms_t), &offer.terms)
    item = pool_item(&source.destinations, offer.destination, &length)
    intern(&made.destinations, item, length, &offer.destination)
    return intern(&made.offers, &offer, sizeof(offer_t), number)


cdef int offers_add(
    tables_t* made, const additions_t* additions, uint32_t* numbers
) except -1 nogil:
    """Add what is new. ``numbers[i]`` becomes the number in ``made`` of item i of the additions."""
    cdef intern_t intern = pool_intern_one if additions.offers.count <= FEW else pool_intern
    cdef uint32_t i
    for i in range(additions.offers.count):
        _add(made, additions, i, intern, &numbers[i])
    return 0


cdef uint32_t _mark(const tables_t* made, uint8_t* used) noexcept nogil:
    """Set ``used`` of all offers that a rate refers to; how many the others are."""
    cdef uint32_t unused = made.offers.count
    cdef uint32_t i
    for i in range(made.slot_count):
        if not is_group(made, i):
            used[made.offer_of[i]] = 1
    for i in range(made.window_count):
        used[made.windows[i].offer] = 1
    for i in range(made.offers.count):
        unused -= used[i]
    return unused


cdef int _renumber(
    tables_t* made, const additions_t* old, const uint8_t* used, uint32_t* numbers
) except -1 nogil:
    """Fill the pools of ``made``, which are empty, with the used ones among the old."""
    cdef uint32_t i
    pool_intern(&made.intervals, NULL, 0, &i)
    for i in range(old.offers.count):
        if used[i]:
            _add(made, old, i, pool_intern, &numbers[i])
    for i in range(made.slot_count):
        if not is_group(made, i):
            made.offer_of[i] = numbers[made.offer_of[i]]
    for i in range(made.window_count):
        made.windows[i].offer = numbers[made.windows[i].offer]
    return 0


cdef void _take_pools(tables_t* made, additions_t* old) noexcept nogil:
    """Move the pools of ``made``, which then has empty ones."""
    old.offers, old.terms = made.offers, made.terms
    old.intervals, old.destinations = made.intervals, made.destinations
    pool_init(&made.offers, sizeof(offer_t))
    pool_init(&made.terms, sizeof(terms_t))
    pool_init(&made.intervals, 0)
    pool_init(&made.destinations, 0)


cdef int offers_compact(tables_t* made) except -1:
    """Forget the offers that no rate refers to, where they are more than a quarter of all."""
    cdef additions_t old
    cdef uint8_t* used = NULL
    cdef uint32_t* numbers = NULL
    cdef uint32_t count = made.offers.count
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
