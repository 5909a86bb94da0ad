"""Counting what became of calls, by status and reason, at next to no cost for each.

A block's counts are gathered in one word, a byte for each kind of outcome: a block has fewer calls
than a byte can count. A request's counts are added to its method's once it has been rated.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..deck.batch cimport NOT_BILLABLE, RATED, UNRATED
from .bulk cimport block_t


cdef void count_block(const block_t* block, int64_t* counts) noexcept nogil:
    """Add the outcomes of the block's calls that are not referred to ``counts``."""
    cdef uint64_t gathered = 0
    cdef uint64_t kind
    cdef uint32_t i
    cdef int counted
    for i in range(block.count):
        kind = kind_of(block.outcomes[i].status, block.outcomes[i].unrated_reason)
        gathered += <uint64_t> 1 << (8 * kind * (block.jobs[i].referred == 0))
    for counted in range(1, KINDS):
        counts[counted] += gathered >> (8 * counted) & 0xFF


cdef class Tally:
    """How many calls came to which status and reason. Thread-safe."""

    cdef void take(self, const int64_t* counts) noexcept:
        cdef int kind
        for kind in range(1, KINDS):
            self._counts[kind] += counts[kind]

    def add(self, uint8_t status, uint8_t unrated_reason=0, int64_t calls=1):
        """``calls`` more of them have come to this. ValueError where there is no such outcome."""
        if not RATED <= status <= UNRATED or (status == UNRATED) != (1 <= unrated_reason <= 3):
            raise ValueError(f"no outcome: status {status}, reason {unrated_reason}")
        self._counts[kind_of(status, unrated_reason)] += calls

    def add_all(self, Tally other not None):
        """Add the counts of another one."""
        self.take(other._counts)

    def counts(self):
        """The calls by (status, unrated_reason), without those that there were none of."""
        cdef int kind
        found = {}
        for kind in range(1, KINDS):
            if self._counts[kind]:
                status = min(kind, UNRATED)
                found[status, kind - status] = self._counts[kind]
        return found

    def calls(self):
        """How many calls there are."""
        return self._sum(1)

    def unrated(self):
        """How many of them have no price, whatever the reason."""
        return self._sum(UNRATED + 1)

    cdef int64_t _sum(self, int kind) noexcept:
        cdef int64_t found = 0
        while kind < KINDS:
            found += self._counts[kind]
            kind += 1
        return found
