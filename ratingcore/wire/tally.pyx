"""Counts the outcomes of calls by status and reason.

The counts of a block are in one word, a byte for each kind of outcome: a block has fewer calls than
a byte can count. The counts of a request are added to those of its method at its end.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..deck.batch cimport RATED, UNRATED
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
    """The number of calls of each status and reason. Thread-safe."""

    cdef void take(self, const int64_t* counts) noexcept:
        cdef int kind
        for kind in range(1, KINDS):
            self._counts[kind] += counts[kind]

    def add(self, uint8_t status, uint8_t unrated_reason=0, int64_t calls=1):
        """Add ``calls`` to the count of an outcome. ValueError if the outcome does not exist."""
        if not RATED <= status <= UNRATED or (status == UNRATED) != (1 <= unrated_reason <= 3):
            raise ValueError(f"no outcome: status {status}, reason {unrated_reason}")
        self._counts[kind_of(status, unrated_reason)] += calls

    def add_all(self, Tally other not None):
        """Add the counts of another one."""
        self.take(other._counts)

    def counts(self):
        """The counts above 0 by (status, unrated_reason)."""
        cdef int kind
        found = {}
        for kind in range(1, KINDS):
            if self._counts[kind]:
                status = min(kind, UNRATED)
                found[status, kind - status] = self._counts[kind]
        return found

    def calls(self):
        """The number of calls."""
        return self._sum(1)

    def unrated(self):
        """The number of calls without a price, for any reason."""
        return self._sum(UNRATED + 1)

    cdef int64_t _sum(self, int kind) noexcept:
        cdef int64_t found = 0
        while kind < KINDS:
            found += self._counts[kind]
            kind += 1
        return found
