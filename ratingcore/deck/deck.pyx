# cython: cdivision=True
"""Deck and Rating: the Python classes for the tables.

Validates the arguments, then calls free functions. A deck is frozen: any number of threads may read
it. A change of rates builds another deck (builder.pyx) and replaces one reference.
"""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from cython cimport final, freelist
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from .batch cimport NOT_BILLABLE, RATED, outcome_t, rate_digits
from .columns cimport match_columns, rate_columns
from ..index.invariants cimport check_tables
from ..index.match cimport begun_from, row_in_effect
from ..base.memory cimport allocate, release
from ..pricing.terms cimport (
    BLOCKED_BIT,
    interval_t,
    interval_values,
    rate_info,
    terms_t,
    whole,
    whole_seconds,
)
from ..pricing.number cimport MAX_DIGITS, normalize_text
from ..index.tables cimport (
    NO_ROW,
    first_window,
    is_group,
    row_count,
    row_destination,
    row_rate_id,
    row_terms,
    row_version_id,
    rows_in_order,
    slot_prefix,
    slots_on_path,
    tables_free,
    tables_nbytes,
    tables_new,
    tables_t,
    terms_intervals,
    window_t,
)


cdef str _destination(const tables_t* tables, uint32_t row):
    cdef uint32_t length
    cdef const uint8_t* text = row_destination(tables, row, &length)
    return PyUnicode_DecodeUTF8(<const char*> text, length, NULL)


cdef object _bound(int64_t seconds, uint32_t nanoseconds, int64_t open_end):
    # A Python integer: 64 bits of nanoseconds end in 2262, and a window may end later.
    return None if seconds == open_end else (<object> seconds) * 1_000_000_000 + nanoseconds


cdef str _digits(const uint8_t* text, uint8_t length):
    return text[:length].decode("ascii")


cdef extern from "sys/mman.h" nogil:
    int munmap(void* address, size_t size)


@final
cdef class Mapping:
    """A part of a file in memory, mapped for the decks that refer to it."""

    def __dealloc__(self):
        if self.data != NULL:
            with nogil:
                munmap(self.data, self.size)


@final
cdef class Deck:
    """The rates of one tenant at one revision, and the tenant's rules: immutable, thread-safe.

    ``DeckBuilder`` makes them; ``Deck()`` is empty.
    """

    def __cinit__(self):
        self.tables = tables_new()

    def __dealloc__(self):
        # To free a large deck takes milliseconds.
        with nogil:
            tables_free(self.tables)

    def __len__(self):
        """The number of rates."""
        return row_count(self.tables)

    def __iter__(self):
        """All rates as RateInfo, sorted by prefix; those of one prefix by effective_from, latest
        first."""
        cdef uint32_t count = row_count(self.tables)
        cdef uint32_t i
        cdef uint32_t* rows = <uint32_t*> allocate(count, 4)
        try:
            rows_in_order(self.tables, rows)
            for i in range(count):
                yield self._info(rows[i])
        finally:
            release(rows)

    def __repr__(self):
        return f"<Deck of {len(self)} rates, revision {self.revision}>"

    @property
    def rounding(self):
        return self.tables.rounding.mode

    @property
    def cost_decimals(self):
        """How many decimals the tenant's costs have."""
        return self.tables.rounding.cost_decimals

    @property
    def country_code(self):
        return _digits(self.tables.dialling.country_code, self.tables.dialling.country_code_length)

    @property
    def national_prefix(self):
        """"" also if it was given without a country code, because then it has no effect."""
        return _digits(
            self.tables.dialling.national_prefix, self.tables.dialling.national_prefix_length
        )

    @property
    def international_prefix(self):
        return _digits(
            self.tables.dialling.international_prefix,
            self.tables.dialling.international_prefix_length,
        )

    @property
    def is_mapped(self):
        """Whether its memory is that of a file, shared with other processes (image.pyx)."""
        return self.mapping is not None

    @property
    def nbytes(self):
        """All memory that the core holds for this deck, in bytes."""
        return tables_nbytes(self.tables) + <size_t> self.__sizeof__()

    def rate(
        self,
        str number not None,
        started_at_ns,
        duration_seconds,
        bint billable,
    ):
        """Rate one call. ``billable``: it is outbound and was answered.

        Never raises for a number or a cost: see ``Rating.status``. ValueError for a duration
        outside 0 to 2,147,483,647, OverflowError for a value beyond 64 bits.
        """
        cdef Rating rating = Rating.__new__(Rating)
        cdef int64_t at_ns = whole(started_at_ns, "started_at_ns")
        cdef int64_t seconds = whole_seconds(duration_seconds, "duration_seconds")
        rating.deck = self
        if not billable:
            memset(&rating.outcome, 0, sizeof(outcome_t))
            rating.outcome.status = NOT_BILLABLE
            rating.outcome.row = NO_ROW
            rating.digit_count = 0
            return rating
        rating.digit_count = normalize_text(number, &self.tables.dialling, rating.digits)
        rate_digits(
            self.tables,
            rating.digits,
            rating.digit_count,
            at_ns,
            seconds,
            &rating.outcome,
        )
        return rating

    def rate_columns(
        self, numbers, offsets, durations, started_at_ns, billable, out=None
    ):
        """Rate n calls given as columns. Releases the GIL. Returns ``Columns``.

        Buffers, one-dimensional and contiguous: ``numbers`` bytes of UTF-8; ``offsets`` int64
        [n + 1], number i is numbers[offsets[i]:offsets[i + 1]]; ``durations`` int64 [n] in seconds;
        ``started_at_ns`` int64 [n]; ``billable`` bytes [n], 0 is not. ValueError if a buffer has
        another shape or type, if offsets fall or lead outside, and for a duration outside 0 to
        2,147,483,647. The buffers must not change during the call.

        With ``out``, the results are written to it, and it is returned: ``Columns`` of n items in
        writable buffers of the same types, such as the result of an earlier batch.
        """
        return rate_columns(
            self.tables, numbers, offsets, durations, started_at_ns, billable, out
        )

    def match_columns(self, numbers, offsets, started_at_ns, out=None):
        """Find the longest prefixes without charging. Numbers as in ``rate_columns``; all calls
        count as billable. An invalid number has no match. Returns ``Matches``."""
        return match_columns(self.tables, numbers, offsets, started_at_ns, out)

    def rate_at(self, index):
        """The rate with an index from ``rate_columns``. IndexError if it does not exist."""
        cdef const tables_t* tables = self.tables
        cdef int64_t rows = <int64_t> tables.slot_count + tables.window_count
        cdef int64_t row = whole(index, "index")
        if not 0 <= row < rows or (
            row < tables.slot_count and is_group(tables, <uint32_t> row)
        ):
            raise IndexError(f"no rate has the index {index}")
        return self._info(<uint32_t> row)

    def candidates(self, str digits not None, at_ns, uint32_t most):
        """The rates, in effect or not, whose prefix these normalised digits begin with: a list of
        RateInfo, the longest prefix first, those of one prefix by effective_from, latest first.
        Of a prefix with more than ``most`` rates, it has those that begin next before and after
        ``at_ns``, and the one in effect then. Also returns how many rates are left out."""
        cdef const tables_t* tables = self.tables
        cdef uint32_t slots[MAX_DIGITS + 1]
        cdef uint32_t lengths[MAX_DIGITS + 1]
        cdef uint32_t first, count, i, begin, end
        cdef int64_t seconds = whole(at_ns, "at_ns") // 1_000_000_000
        cdef uint32_t nanoseconds = at_ns % 1_000_000_000
        cdef int32_t in_effect
        cdef uint64_t omitted = 0
        cdef int at
        cdef bytes text = digits.encode()
        cdef list found = []
        if len(text) > MAX_DIGITS or (text and not text.isdigit()):
            raise ValueError(f"not a normalised number: {digits!r}")
        for at in range(slots_on_path(tables, text, len(text), slots, lengths) - 1, -1, -1):
            if is_group(tables, slots[at]):
                first = first_window(tables, slots[at])
                count = tables.windows[first].left
                begin = begun_from(&tables.windows[first], count, seconds, nanoseconds)
                begin = max(<int64_t> 0, min(<int64_t> begin - most // 2, <int64_t> count - most))
                end = min(<uint64_t> count, <uint64_t> begin + most)
                for i in range(first + begin, first + end):
                    found.append(self._info(tables.slot_count + i))
                omitted += count - (end - begin)
                in_effect = row_in_effect(tables, slots[at], seconds, nanoseconds)
                # No rate that begins after at_ns is in effect, so it belongs at the end.
                if in_effect != NO_ROW and in_effect >= tables.slot_count + first + end:
                    found.append(self._info(in_effect))
                    omitted -= 1
            else:
                found.append(self._info(slots[at]))
        return found, omitted

    def explain(
        self,
        str number not None,
        started_at_ns,
        duration_seconds,
        bint billable,
    ):
        """An ``Explanation`` of the result of ``rate``. Raises what ``rate`` raises."""
        from .explain import explain

        return explain(self, number, started_at_ns, duration_seconds, billable)

    def _check(self):
        """For tests: check all invariants of the tables. AssertionError names a broken one."""
        check_tables(self.tables)

    cdef str _prefix(self, uint32_t row):
        """The prefix of a rate, collected from the index."""
        cdef uint8_t digits[MAX_DIGITS]
        cdef uint32_t slot = row
        cdef int length
        if row >= self.tables.slot_count:
            slot = self.tables.windows[row - self.tables.slot_count].slot
        length = slot_prefix(self.tables, slot, digits)
        return digits[:length].decode("ascii")

    cdef object _info(self, uint32_t row):
        cdef const tables_t* tables = self.tables
        cdef const terms_t* terms = row_terms(tables, row)
        cdef const window_t* window = NULL
        cdef const interval_t* intervals
        cdef uint32_t count
        effective_from_ns = None
        effective_to_ns = None
        if row >= tables.slot_count:
            window = &tables.windows[row - tables.slot_count]
            effective_from_ns = _bound(window.from_s, window.from_ns, INT64_MIN)
            effective_to_ns = _bound(window.to_s, window.to_ns, INT64_MAX)
        intervals = terms_intervals(tables, terms, &count)
        return rate_info(
            row_version_id(tables, row),
            row_rate_id(tables, row),
            self._prefix(row),
            _destination(tables, row),
            terms,
            interval_values(intervals, count),
            effective_from_ns,
            effective_to_ns,
        )


@final
@freelist(64)
cdef class Rating:
    """The outcome of one call, made by ``Deck.rate``. Its properties read the deck, so it keeps its
    deck alive: copy the values that you keep."""

    def __cinit__(self):
        self.outcome.row = NO_ROW

    def __init__(self):
        raise TypeError("Deck.rate makes these")

    @property
    def status(self):
        """RATED, NOT_BILLABLE, UNRATED, or REFUSED if the cost exceeds its limit."""
        return self.outcome.status

    @property
    def unrated_reason(self):
        """NO_RATE, BLOCKED or INVALID_NUMBER if the status is UNRATED, else 0."""
        return self.outcome.unrated_reason

    @property
    def bill_seconds(self):
        """None without a cost: UNRATED and REFUSED."""
        return self.outcome.bill_seconds if self._has_cost() else None

    @property
    def cost_scaled(self):
        """In 10^-cost_decimals of the tenant's currency (``Deck.cost_decimals``). None without a
        cost: UNRATED and REFUSED."""
        return self.outcome.cost_scaled if self._has_cost() else None

    @property
    def rate_id(self):
        """Of the rate that matched, even if it is blocked; 0 if none matched."""
        if self.outcome.row == NO_ROW:
            return 0
        return row_rate_id(self.deck.tables, self.outcome.row)

    @property
    def version_id(self):
        """Of that rate; 0 without a rate."""
        if self.outcome.row == NO_ROW:
            return 0
        return row_version_id(self.deck.tables, self.outcome.row)

    @property
    def rate_index(self):
        """The argument for ``Deck.rate_at``; -1 if no rate matched."""
        return self.outcome.row

    @property
    def matched_prefix(self):
        """Of that rate; "" without a rate."""
        return self.digits[: self.outcome.prefix_length].decode("ascii")

    @property
    def destination(self):
        """Of that rate; "" without a rate."""
        if self.outcome.row == NO_ROW:
            return ""
        return _destination(self.deck.tables, self.outcome.row)

    @property
    def cost_per_minute_e8(self):
        """Of that rate, from second 0; None without a rate."""
        if self.outcome.row == NO_ROW:
            return None
        return row_terms(self.deck.tables, self.outcome.row).price_e8

    @property
    def billing_increment(self):
        """Of that rate, from second 0; 0 without a rate."""
        if self.outcome.row == NO_ROW:
            return 0
        return row_terms(self.deck.tables, self.outcome.row).increment & ~<uint32_t> BLOCKED_BIT

    @property
    def normalized_number(self):
        """The digits that were matched; "" if the number is invalid or the call is not billable."""
        return self.digits[: self.digit_count].decode("ascii")

    def __repr__(self):
        return (
            f"<Rating status {self.status}, reason {self.unrated_reason}, bill_seconds "
            f"{self.bill_seconds}, cost_scaled {self.cost_scaled}, prefix {self.matched_prefix!r}>"
        )

    cdef bint _has_cost(self) noexcept:
        return self.outcome.status == RATED or self.outcome.status == NOT_BILLABLE
