"""Rating and matching of columns in buffers."""

from ..index.tables cimport tables_t

cdef object rate_columns(
    const tables_t* tables,
    object numbers,
    object offsets,
    object durations,
    object started_at_ns,
    object billable,
    object out,
)
cdef object match_columns(
    const tables_t* tables, object numbers, object offsets, object started_at_ns, object out
)
