"""Building: merges changes with the tables of a deck into new tables."""

from libc.stdint cimport uint32_t

from .changes cimport change_t
from .rate_terms cimport additions_t
from .tables cimport tables_t

cdef int merge(
    tables_t* made,
    const tables_t* base,
    change_t* changes,
    uint32_t change_count,
    const additions_t* additions,
) except -1
