"""The rates of one prefix while a deck is built."""

from libc.stdint cimport uint32_t

from .changes cimport change_t
from .tables cimport window_t

cdef struct group_t:
    window_t* rates          # [count]; left is 1 for new ones, else 0
    uint32_t count
    uint32_t capacity        # allocated rates

cdef int group_add(group_t* group, const window_t* rate) except -1 nogil
cdef int group_settle(
    group_t* group, const change_t* changes, uint32_t change_count
) except -1 nogil
