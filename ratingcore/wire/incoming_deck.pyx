"""IncomingDeck: the Python class for the rates of an import.

Validates the arguments, then calls the functions of rate_intake.pyx.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython cimport final
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t

from libc.string cimport memset

from .call_parse cimport text_t
from ..index.changes cimport PUT, change_t, change_digit, set_key
from ..deck.builder cimport DeckBuilder
from ..deck.deck cimport Deck
from .rate_intake cimport (
    by_key,
    effect_t,
    growth_t,
    instant_t,
    intake_add,
    intake_compare,
    intake_free,
    intake_init,
    intake_nbytes,
    intake_sort,
    intake_take,
)
from ..base.memory cimport allocate, release
from ..pricing.terms cimport (
    MAX_INTERVALS,
    VALUES_FROM,
    VALUES_TO,
    interval_t,
    interval_values,
    rate_info,
    read_values,
    terms_t,
    whole,
)
from ..pricing.number cimport MAX_DIGITS
from ..base.pool cimport pool_item, pool_t
from .rate_parse cimport next_rate, parse_rate, wire_head_t, wire_rate_t
from ..index.rate_terms cimport additions_copy, additions_put, additions_t
from ..index.tables cimport rate_terms_t, row_count, row_version_id

from ..pricing.values import InEffect, RateTerms

cdef enum:
    MAX_LEFT = 4096                  # rates that one call of read leaves to the caller
    MAX_READ = 65536                 # rates that one call of read reads
    MAX_INDEX = 0x7FFFFFFF           # of a rate within its deck

cdef struct left_t:                  # a rate that is left to the caller
    uint32_t index
    uint32_t start                   # where its bytes are in the message
    uint32_t size


cdef object _nanoseconds(int64_t seconds, uint32_t nanoseconds, int64_t open_end):
    # A Python integer: 64 bits of nanoseconds end in 2262, and a window may end later.
    return None if seconds == open_end else (<object> seconds) * 1_000_000_000 + nanoseconds


cdef str incoming_prefix(const incoming_t* rate):
    cdef uint8_t digits[MAX_DIGITS]
    cdef change_t key
    cdef int i
    key.key_high, key.key_low = rate.key_high, rate.key_low
    for i in range(rate.length):
        digits[i] = <uint8_t> (c'0' + change_digit(&key, i))
    return digits[: rate.length].decode("ascii")


@final
cdef class IncomingDeck:
    """The rates of an import of one tenant, reduced to the changes.

    First ``read`` or ``put`` each rate once; then ``sort``; then ``compare`` with the present deck,
    which keeps the changes only; then ``number``, ``put_into`` and a ``RateRowWriter``. Only one
    thread may use it at a time: the methods release the GIL, and every other use of it meanwhile
    raises RuntimeError.
    """

    def __cinit__(self, tenant_id, effective_from=None):
        """``effective_from``: for rates without one, as (seconds, nanoseconds)."""
        self.tenant_id = whole(tenant_id, "tenant_id")
        self.closed = []
        intake_init(&self.intake)
        if effective_from is not None:
            self.intake.from_default.s, self.intake.from_default.ns = effective_from

    def __dealloc__(self):
        intake_free(&self.intake)

    def __len__(self):
        """The number of its rates."""
        return self.intake.count

    @property
    def nbytes(self):
        """All memory that the core holds for it, in bytes."""
        return intake_nbytes(&self.intake) + <size_t> self.__sizeof__()

    def read(self, bytes request not None, start=0):
        """Read the rates of an ImportRatesRequest from byte ``start`` on, and add the simple valid
        ones.

        Returns (left, end). ``left``: index within the deck and bytes of each other rate, which the
        caller checks. ``end``: the ``start`` of the next call; the length of the request at its
        end, less if it has many rates. ValueError: malformed (see ``rate_parse.read_head``).
        """
        cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(request)
        cdef size_t size = PyBytes_GET_SIZE(request)
        cdef int64_t at = whole(start, "start")
        cdef uint32_t left_count = 0
        cdef uint32_t i
        cdef left_t* left
        if not 0 <= at <= <int64_t> size or size > MAX_INDEX:
            raise ValueError("start is not within the request, or the request is too long")
        self._require_idle()
        left = <left_t*> allocate(MAX_LEFT, sizeof(left_t))
        self.busy = True
        try:
            with nogil:
                at = self._read(data, at, size, left, &left_count)
            found = [
                (left[i].index, request[left[i].start : left[i].start + left[i].size])
                for i in range(left_count)
            ]
        finally:
            self.busy = False
            release(left)
        return found, at

    def put(self, index, str prefix not None, str destination not None, *given, **named):
        """Add a rate. ``index``: its position in the deck. The others are the values of a
        ``RateTerms``, by position or by name; each end of the window is (seconds, nanoseconds). The
        caller has checked the rate; only what the core relies on is checked again."""
        cdef tuple values = tuple(RateTerms(*given, **named))
        cdef incoming_t* rate
        cdef interval_t parts[MAX_INTERVALS]
        cdef terms_t terms
        cdef change_t key
        cdef bytes text = prefix.encode("utf-8", "surrogatepass")
        cdef int count
        self._hold()
        try:
            if len(text) > MAX_DIGITS or (text and not text.isdigit()):
                raise ValueError(f"prefix must be at most {MAX_DIGITS} digits, not {prefix!r}")
            rate = intake_add(&self.intake)
            set_key(&key, text, <uint32_t> len(text))
            rate.key_high, rate.key_low, rate.length = key.key_high, key.key_low, key.length
            if values[VALUES_FROM] is not None:
                rate.from_s, rate.from_ns = values[VALUES_FROM]
            if values[VALUES_TO] is not None:
                rate.to_s, rate.to_ns = values[VALUES_TO]
            count = read_values(values, 0, &terms, parts)
            text = destination.encode()
            rate.index = index
            additions_put(
                &self.intake.additions,
                &terms,
                parts,
                count,
                <const uint8_t*> <const char*> text,
                <uint32_t> len(text),
                &rate.rate_terms,
            )
            self.intake.count += 1
            if rate.index >= self.seen:
                self.seen = rate.index + 1
        finally:
            self.busy = False

    def sort(self):
        """Sort the rates by prefix, those of one prefix by effective_from, latest first."""
        self._hold()
        try:
            with nogil:
                intake_sort(&self.intake)
        finally:
            self.busy = False

    def repeated(self):
        """The sorted rates with the prefix and effective_from of an earlier one: an iterator of
        (index, index of the earlier one)."""
        cdef uint32_t first = 0
        cdef uint32_t i = 1
        while i < self.intake.count:
            self._require_idle()
            if by_key(&self.intake.rates[first], &self.intake.rates[i]) != 0:
                first = i
            else:
                yield self.intake.rates[i].index, self.intake.rates[first].index
            i += 1

    def compare(self, Deck base not None, *, bint replace, closing=None, at=(0, 0)):
        """Keep the sorted rates, none of them repeated, that are new or differ from ``base``.
        Returns (updated, gone): the number of kept rates that differ, and (version_id, prefix) of
        the rates of the base to remove: those that differ, and with ``replace`` also those whose
        prefix and effective_from no rate has.

        With ``closing``, an instant as (seconds, nanoseconds), the latter are removed only if they
        begin at it or later. Those that end after it are in ``closed`` instead, unchanged. With
        ``replace``, ``in_effect`` compares the rates in effect ``at`` an instant. In both modes
        ``most_rates_of_prefix`` is the most rates that one prefix of this deck has afterwards, and
        ``most_growth_bytes`` an upper bound of the memory by which the tenant's deck grows."""
        cdef uint32_t gone_count = 0
        cdef uint32_t updated = 0
        cdef uint32_t i
        cdef uint32_t closed_count = 0
        cdef uint32_t count = row_count(base.tables)
        cdef uint32_t* gone
        cdef instant_t now, end
        cdef instant_t* closing_at = NULL
        cdef effect_t effect
        cdef growth_t growth
        now.s, now.ns = at
        if closing is not None:
            end.s, end.ns = closing
            closing_at = &end
        self._require_idle()
        gone = <uint32_t*> allocate(<size_t> count * 2, 4)
        self.busy = True
        try:
            with nogil:
                intake_compare(
                    &self.intake,
                    base.tables,
                    replace,
                    closing_at,
                    &now,
                    gone,
                    &gone_count,
                    &updated,
                    gone + count,
                    &closed_count,
                    &effect,
                    &growth,
                )
            self.most_rates_of_prefix = growth.most_rates
            self.most_growth_bytes = growth.most_bytes
            self.closed = [base._info(gone[count + i]) for i in range(closed_count)]
            self.in_effect = InEffect(
                effect.before,
                effect.after,
                effect.gaps,
                _nanoseconds(effect.begins_s, effect.begins_ns, INT64_MAX),
            )
            found = [
                (row_version_id(base.tables, gone[i]), base._prefix(gone[i]))
                for i in range(gone_count)
            ]
        finally:
            self.busy = False
            release(gone)
        return updated, found

    def number(self, first_version_id):
        """Give the kept rates consecutive version ids in their order. The rate id of a new rate
        equals its version id; the others keep theirs."""
        cdef int64_t version_id = whole(first_version_id, "first_version_id")
        cdef uint32_t i
        self._hold()
        for i in range(self.intake.count):
            self.intake.rates[i].version_id = version_id + i
            if not self.intake.rates[i].rate_id:
                self.intake.rates[i].rate_id = version_id + i
        self.busy = False

    def put_into(self, DeckBuilder builder not None):
        """Add the rates to a builder. Releases the GIL."""
        self._hold()
        try:
            builder._require_idle()
            with nogil:
                self._put_all(builder)
        finally:
            self.busy = False

    def rows(self, start, stop):
        """For tests: the rates from ``start`` until before ``stop`` in their order, each as a
        ``RateInfo``."""
        cdef int64_t at = whole(start, "start")
        cdef int64_t end = min(whole(stop, "stop"), self.intake.count)
        cdef const incoming_t* rate
        cdef const rate_terms_t* rate_terms
        cdef const terms_t* terms
        cdef const pool_t* destinations = &self.intake.additions.destinations
        cdef const uint8_t* item
        cdef uint32_t size
        cdef list found = []
        cdef dict destination_of = {}
        self._require_idle()
        if at < 0:
            raise ValueError(f"start must be 0 or above, not {start}")
        while at < end:
            rate = &self.intake.rates[at]
            rate_terms = &(<const rate_terms_t*> self.intake.additions.rate_terms.data)[
                rate.rate_terms
            ]
            terms = &(<const terms_t*> self.intake.additions.terms.data)[rate_terms.terms]
            destination = destination_of.get(rate_terms.destination)
            if destination is None:
                item = pool_item(destinations, rate_terms.destination, &size)
                destination = destination_of[rate_terms.destination] = item[:size].decode()
            item = pool_item(&self.intake.additions.intervals, terms.intervals, &size)
            found.append(
                rate_info(
                    rate.version_id,
                    rate.rate_id,
                    incoming_prefix(rate),
                    destination,
                    terms,
                    interval_values(
                        <const interval_t*> item, size // <uint32_t> sizeof(interval_t)
                    ),
                    _nanoseconds(rate.from_s, rate.from_ns, INT64_MIN),
                    _nanoseconds(rate.to_s, rate.to_ns, INT64_MAX),
                )
            )
            at += 1
        return found

    cdef int64_t _read(
        self, const uint8_t* data, size_t at, size_t size, void* places, uint32_t* left_count
    ) except -1 nogil:
        cdef left_t* left = <left_t*> places
        cdef const uint8_t* end = data + size
        cdef const uint8_t* next_at
        cdef wire_head_t head
        cdef wire_rate_t rate
        cdef text_t message
        cdef uint32_t begin = self.seen
        while at < size and left_count[0] < MAX_LEFT and self.seen - begin < MAX_READ:
            next_at = next_rate(data + at, end, &head, &message)
            if next_at == NULL or (
                message.data != NULL and parse_rate(message.data, next_at, &rate) == NULL
            ):
                with gil:
                    raise ValueError("malformed")
            at = next_at - data
            if message.data == NULL:
                continue
            if self.seen == MAX_INDEX:
                with gil:
                    raise OverflowError(f"a deck has room for {MAX_INDEX} rates")
            if not intake_take(&self.intake, &rate, self.tenant_id, self.seen):
                left[left_count[0]].index = self.seen
                left[left_count[0]].start = <uint32_t> (message.data - data)
                left[left_count[0]].size = message.size
                left_count[0] += 1
            self.seen += 1
        return <int64_t> at

    cdef int _put_all(self, DeckBuilder builder) except -1 nogil:
        cdef const additions_t* source = &self.intake.additions
        cdef uint32_t* numbers = <uint32_t*> allocate(source.rate_terms.count, 4)
        cdef const incoming_t* rate
        cdef change_t change
        cdef uint32_t i
        try:
            for i in range(source.rate_terms.count):
                additions_copy(&builder.additions, source, i, &numbers[i])
            for i in range(self.intake.count):
                rate = &self.intake.rates[i]
                memset(&change, 0, sizeof(change_t))
                change.kind = PUT
                change.key_high, change.key_low = rate.key_high, rate.key_low
                change.length = rate.length
                change.version_id, change.rate_id = rate.version_id, rate.rate_id
                change.from_s, change.from_ns = rate.from_s, rate.from_ns
                change.to_s, change.to_ns = rate.to_s, rate.to_ns
                change.rate_terms = numbers[rate.rate_terms]
                builder._add(&change)
        finally:
            release(numbers)
        return 0

    cdef int _require_idle(self) except -1:
        if self.busy:
            raise RuntimeError("the deck is being worked on in another thread")
        return 0

    cdef int _hold(self) except -1:
        self._require_idle()
        self.busy = True
        return 0
