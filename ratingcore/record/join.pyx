"""Several lists of calls as one: the calls of a group that one transaction records."""

from libc.string cimport memcpy

from ..base.memory cimport reserve
from .records cimport MAX_RECORDS, Records, find_parties, record_t


def joined(lists):
    """The calls of all lists, in order, as a list of their own. OverflowError above MAX_RECORDS."""
    cdef Records made = Records.__new__(Records)
    cdef Records one
    for one in lists:
        reserve(
            <void**> &made.items,
            &made.capacity,
            <unsigned long long> made.count + one.count,
            sizeof(record_t),
            MAX_RECORDS,
        )
        if one.count:
            memcpy(made.items + made.count, one.items, one.count * sizeof(record_t))
        made.count += one.count
        made.owners.extend(one.owners)
    find_parties(made)
    return made
