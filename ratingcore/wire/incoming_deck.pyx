"""IncomingDeck: what Python sees of the rates of a deck on its way in.

Validates at the edge, then calls the functions of rate_intake.pyx.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython cimport final
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t

from .call_parse cimport text_t
from ..index.changes cimport change_t, change_digit, set_key
from ..deck.deck cimport Deck
from .rate_intake cimport (
    by_key,
    effect_t,
    incoming_t,
    instant_t,
    intake_add,
    intake_compare,
    intake_free,
    intake_init,
    intake_nbytes,
    intake_sort,
    intake_t,
    intake_take,
)
from ..base.memory cimport allocate, release
from ..pricing.terms cimport (
    MAX_INTERVALS,
    interval_t,
    interval_values,
    rate_info,
    read_terms,
    terms_t,
    whole,
)
from ..pricing.number cimport MAX_DIGITS
from ..base.pool cimport pool_item, pool_t
from .rate_parse cimport next_rate, parse_rate, wire_head_t, wire_rate_t
from ..index.rate_terms cimport additions_put
from ..index.tables cimport rate_terms_t, row_count, row_version_id

from ..pricing.values import InEffect

cdef enum:
    MAX_LEFT = 4096                  # rates of one call to read that are left to the caller
    MAX_INDEX = 0x7FFFFFFF           # of a rate within its deck

cdef struct left_t:                  # a rate that is left to the caller
    uint32_t index
    uint32_t start                   # where its bytes are in the message
    uint32_t size


cdef object _nanoseconds(int64_t seconds, uint32_t nanoseconds, int64_t open_end):
    # A Python integer: 64 bits of nanoseconds end in 2262, the window of a rate may not.
    return None if seconds == open_end else (<object> seconds) * 1_000_000_000 + nanoseconds


cdef str _prefix(const incoming_t* rate):
    cdef uint8_t digits[MAX_DIGITS]
    cdef change_t key
    cdef int i
    key.key_high, key.key_low = rate.key_high, rate.key_low
    for i in range(rate.length):
        digits[i] = <uint8_t> (c'0' + change_digit(&key, i))
    return digits[: rate.length].decode("ascii")


@final
cdef class IncomingDeck:
    """The rates of one tenant's deck as they come in, then what is new in them.

    First ``read`` and ``put``, for every rate once; then ``sort``; then ``compare`` with the present
    deck, after which only what changes is there; then ``rows``. Belongs to one thread at a time: while
    it works, which releases the GIL, every other use of it is a RuntimeError.
    """

    cdef intake_t intake
    cdef int64_t tenant_id
    cdef readonly uint32_t seen      # rates so far, taken or not
    cdef readonly list closed        # RateInfo, see ``compare``
    cdef readonly object in_effect   # InEffect, see ``compare``
    cdef bint busy

    def __cinit__(self, tenant_id, effective_from=None):
        """``effective_from``: of the rates that state none, as (seconds, nanoseconds)."""
        self.tenant_id = whole(tenant_id, "tenant_id")
        self.closed = []
        intake_init(&self.intake)
        if effective_from is not None:
            self.intake.from_default.s, self.intake.from_default.ns = effective_from

    def __dealloc__(self):
        intake_free(&self.intake)

    def __len__(self):
        """The rates that are in it."""
        return self.intake.count

    @property
    def nbytes(self):
        """All memory that the core holds for it, in bytes."""
        return intake_nbytes(&self.intake) + <size_t> self.__sizeof__()

    def read(self, bytes request not None, start=0):
        """Take the rates of an ImportRatesRequest that are plainly valid, from byte ``start`` on.

        Returns (left, end). ``left``: index within the deck and bytes of each rate that is not taken,
        for the caller to judge. ``end``: where to go on; the length of the request once it is read,
        less where many rates were left. ValueError: it is malformed (see ``rate_parse.read_head``).
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

    def put(
        self,
        index,
        str prefix not None,
        str destination not None,
        cost_per_minute_e8,
        billing_increment,
        connect_fee_e8=0,
        minimum_seconds=0,
        intervals=(),
        effective_from=None,
        effective_to=None,
        bint blocked=False,
    ):
        """Add a rate that was left, or any other one. ``index``: where it is in the deck; for the
        rest see ``DeckBuilder.put``, but for the ends of the window: (seconds, nanoseconds) each.
        It is checked only as far as the core must."""
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
            if effective_from is not None:
                rate.from_s, rate.from_ns = effective_from
            if effective_to is not None:
                rate.to_s, rate.to_ns = effective_to
            count = read_terms(
                cost_per_minute_e8,
                billing_increment,
                connect_fee_e8,
                minimum_seconds,
                intervals,
                blocked,
                &terms,
                parts,
            )
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
        """Put the rates in order: by prefix, of one prefix the latest effective_from first."""
        self._hold()
        try:
            with nogil:
                intake_sort(&self.intake)
        finally:
            self.busy = False

    def repeated(self):
        """Of the sorted rates those whose prefix and effective_from an earlier one of the deck has:
        an iterator of (index, index of the first)."""
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
        """Keep of the sorted rates, none of which is repeated, those that ``base`` has not or has
        otherwise. Returns (updated, gone): how many of the kept ones are in it otherwise, and
        (version_id, prefix) of its rates that are to go: those, and with ``replace`` also the rates
        whose prefix and effective_from no rate has.

        With ``closing``, an instant as (seconds, nanoseconds), these go only where they begin at it
        or later. Those that end after it are in ``closed`` instead, as they are in the base.
        ``in_effect`` compares, with ``replace``, what is in effect ``at`` an instant."""
        cdef uint32_t gone_count = 0
        cdef uint32_t updated = 0
        cdef uint32_t i
        cdef uint32_t closed_count = 0
        cdef uint32_t count = row_count(base.tables)
        cdef uint32_t* gone
        cdef instant_t now, end
        cdef instant_t* closing_at = NULL
        cdef effect_t effect
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
                )
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
        """Give the kept rates consecutive version ids in their order. Those that are not in the base
        have the same as rate id, the others keep theirs."""
        cdef int64_t version_id = whole(first_version_id, "first_version_id")
        cdef uint32_t i
        self._hold()
        for i in range(self.intake.count):
            self.intake.rates[i].version_id = version_id + i
            if not self.intake.rates[i].rate_id:
                self.intake.rates[i].rate_id = version_id + i
        self.busy = False

    def rows(self, start, stop):
        """The rates in [start, stop) of its order, each as a ``RateInfo``."""
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
                    _prefix(rate),
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
        self, const uint8_t* data, size_t at, size_t size, left_t* left, uint32_t* left_count
    ) except -1 nogil:
        cdef const uint8_t* end = data + size
        cdef const uint8_t* next_at
        cdef wire_head_t head
        cdef wire_rate_t rate
        cdef text_t message
        while at < size and left_count[0] < MAX_LEFT:
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

    cdef int _require_idle(self) except -1:
        if self.busy:
            raise RuntimeError("the deck is being worked on in another thread")
        return 0

    cdef int _hold(self) except -1:
        self._require_idle()
        self.busy = True
        return 0
