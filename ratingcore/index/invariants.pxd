"""For tests: every invariant of the tables, walked."""

from .tables cimport tables_t

cdef int check_tables(const tables_t* tables) except -1
