"""For tests: a check of all invariants of the tables."""

from .tables cimport tables_t

cdef int check_tables(const tables_t* tables) except -1
