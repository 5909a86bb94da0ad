"""Adding to tables. Reserved memory is not zeroed and not part of any count."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .tables cimport tables_t, window_t

cdef int reserve_slots(tables_t* made, uint64_t needed) except -1 nogil
cdef int need_id_tops(tables_t* made) except -1 nogil
cdef int reserve_windows(tables_t* made, uint64_t needed) except -1 nogil
cdef int reserve_nodes(tables_t* made, uint64_t needed) except -1 nogil
cdef int add_slot(
    tables_t* made, int64_t rate_id, int64_t version_id, uint32_t rate_terms
) except -1 nogil
cdef int add_group(tables_t* made, const window_t* rates, uint32_t count) except -1 nogil
