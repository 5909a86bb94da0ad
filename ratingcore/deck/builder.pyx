# cython: cdivision=True
"""DeckBuilder: collects changes to a deck, then builds the next one."""

from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from ..index.changes cimport PUT, REMOVE, WITHDRAWN, change_t, set_key
from .deck cimport Deck
from ..base.memory cimport release, reserve
from ..index.merge cimport merge
from ..pricing.money cimport check_cost_decimals, check_rounding, set_rounding
from ..pricing.terms cimport (
    MAX_INTERVALS,
    VALUES_FROM,
    VALUES_TO,
    interval_t,
    read_values,
    terms_t,
    whole,
)
from ..pricing.number cimport MAX_DIGITS, set_dialling
from ..index.rate_terms cimport additions_free, additions_init, additions_put
from ..index.tables cimport (
    MAX_ROWS,
    first_window,
    is_group,
    row_version_id,
    slots_on_path,
    tables_t,
)

from ..pricing.values import RateInfo

cdef enum:
    FIRST_TERM = 4              # position of the values of a RateTerms
    MAX_DESTINATION_BYTES = 0xFFFF

cdef tuple _DEFAULTS = tuple(RateInfo._field_defaults.values())


cdef const uint8_t* _utf8(object text, str name, Py_ssize_t* size) except NULL:
    """The bytes of a str, which owns them. UnicodeEncodeError, a ValueError, for surrogates."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    return <const uint8_t*> PyUnicode_AsUTF8AndSize(text, size)


cdef int _split(object bound_ns, str name, int64_t* seconds, uint32_t* nanoseconds) except -1:
    """Nanoseconds since 1970 as whole seconds and the rest."""
    cdef int overflow = 0
    cdef int64_t value
    if not PyLong_Check(bound_ns):
        raise TypeError(f"{name} must be an int or None, not {type(bound_ns).__name__}")
    value = PyLong_AsLongLongAndOverflow(bound_ns, &overflow)
    if not overflow and value >= 0:
        seconds[0] = value // 1_000_000_000
        nanoseconds[0] = <uint32_t> (value - seconds[0] * 1_000_000_000)
        return 0
    whole_seconds, rest = divmod(bound_ns, 1_000_000_000)
    if not INT64_MIN < whole_seconds < INT64_MAX:
        raise ValueError(f"{name} is out of range: {bound_ns}")
    seconds[0] = whole_seconds
    nanoseconds[0] = rest
    return 0


cdef int _set_prefix(change_t* change, object prefix) except -1:
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t digits = 0
    cdef const uint8_t* text = _utf8(prefix, "prefix", &size)
    while digits < size and c'0' <= text[digits] <= c'9':
        digits += 1
    if digits < size or size > MAX_DIGITS:
        raise ValueError(f"prefix must be at most {MAX_DIGITS} digits, not {prefix!r}")
    set_key(change, text, <uint32_t> size)
    return 0


cdef int _set_window(change_t* change, object from_ns, object to_ns) except -1:
    change.from_s, change.to_s = INT64_MIN, INT64_MAX
    if from_ns is not None:
        _split(from_ns, "effective_from_ns", &change.from_s, &change.from_ns)
    if to_ns is not None:
        _split(to_ns, "effective_to_ns", &change.to_s, &change.to_ns)
    if change.from_s > change.to_s or (
        change.from_s == change.to_s and change.from_ns >= change.to_ns
    ):
        raise ValueError("effective_to_ns must be after effective_from_ns")
    return 0


cdef class DeckBuilder:
    """Changes to a deck, which are collected and then built at once.

    ``base`` is the deck to change; it is not modified. Without one the new deck begins empty. Only
    one thread may use a builder at a time: ``build`` releases the GIL, and every other use of the
    builder meanwhile raises RuntimeError.
    """

    def __cinit__(self, Deck base=None):
        memset(&self.additions, 0, sizeof(additions_t))
        additions_init(&self.additions)
        self.base = Deck() if base is None else base
        self.removed = set()

    def __dealloc__(self):
        release(self.changes)
        additions_free(&self.additions)

    def put(
        self,
        version_id,
        rate_id,
        str prefix not None,
        str destination not None,
        cost_per_minute_e8,
        billing_increment,
        connect_fee_e8=0,
        minimum_seconds=0,
        intervals=(),
        effective_from_ns=None,
        effective_to_ns=None,
        bint blocked=False,
    ):
        """Add a rate. ``prefix`` is normalised already (``normalize_prefix``).

        ``intervals`` are (start_seconds, cost_per_minute_e8, billing_increment) in rising order.
        ValueError for a value outside its range, OverflowError for one beyond 64 bits. ``build``
        checks whether the prefix has another rate with the same effective_from, or this version
        already.
        """
        self._put((
            version_id,
            rate_id,
            prefix,
            destination,
            cost_per_minute_e8,
            billing_increment,
            connect_fee_e8,
            minimum_seconds,
            intervals,
            effective_from_ns,
            effective_to_ns,
            blocked,
        ))

    def put_many(self, rates):
        """Add rates, each a ``RateInfo`` or a sequence of its values. The last ones may be missing
        if they have a default.

        The same as ``put`` for each of them, but faster. If one is refused, those before it have
        been added.
        """
        cdef tuple values
        cdef Py_ssize_t size
        cdef Py_ssize_t most = len(RateInfo._fields)
        cdef Py_ssize_t least = most - len(_DEFAULTS)
        for rate in rates:
            values = rate if type(rate) is tuple else tuple(rate)
            size = len(values)
            if not least <= size <= most:
                raise TypeError(f"a rate has {least} to {most} values, not {size}")
            self._put(values if size == most else values + _DEFAULTS[size - least :])

    def remove(self, version_id, str prefix not None):
        """Remove a rate of the base, or one that was put. KeyError if it does not exist."""
        cdef change_t change
        cdef uint32_t i
        self._require_idle()
        memset(&change, 0, sizeof(change_t))
        _set_prefix(&change, prefix)
        change.kind = REMOVE
        change.version_id = whole(version_id, "version_id")
        if (version_id, prefix) not in self.removed and self._base_has(version_id, prefix):
            self._add(&change)
            self.removed.add((version_id, prefix))
            return
        for i in range(self.count):
            if (
                self.changes[i].kind == PUT
                and self.changes[i].version_id == change.version_id
                and self.changes[i].key_high == change.key_high
                and self.changes[i].key_low == change.key_low
            ):
                self.changes[i].kind = WITHDRAWN
                return
        raise KeyError(f"no version {version_id} of prefix {prefix!r}")

    def build(
        self,
        revision,
        int rounding=1,
        str country_code not None="",
        str national_prefix not None="",
        str international_prefix not None="",
        int cost_decimals=4,
    ):
        """The base with the changes, as a new ``Deck``. The builder is not modified.

        Releases the GIL. ValueError if a prefix has two rates with one effective_from, or one
        version twice; MemoryError; OverflowError above 134,217,727 rates.
        """
        cdef Deck deck = Deck()
        self._require_idle()
        check_rounding(rounding)
        check_cost_decimals(cost_decimals)
        set_dialling(
            &deck.tables.dialling, country_code, national_prefix, international_prefix
        )
        set_rounding(&deck.tables.rounding, rounding, cost_decimals)
        deck.revision = whole(revision, "revision")
        self.building = True
        try:
            merge(deck.tables, self.base.tables, self.changes, self.count, &self.additions)
        finally:
            self.building = False
        return deck

    cdef int _require_idle(self) except -1:
        if self.building:
            raise RuntimeError("the builder is building in another thread")
        return 0

    cdef int _put(self, tuple values) except -1:
        """Add a rate, given as the values of a ``RateInfo``."""
        cdef change_t change
        cdef terms_t terms
        cdef const uint8_t* text
        cdef Py_ssize_t size = 0
        cdef interval_t parts[MAX_INTERVALS]
        cdef int count
        self._require_idle()
        memset(&change, 0, sizeof(change_t))
        _set_prefix(&change, values[2])
        change.kind = PUT
        change.version_id = whole(values[0], "version_id")
        change.rate_id = whole(values[1], "rate_id")
        _set_window(&change, values[FIRST_TERM + VALUES_FROM], values[FIRST_TERM + VALUES_TO])
        count = read_values(values, FIRST_TERM, &terms, parts)
        text = _utf8(values[3], "destination", &size)
        if size > MAX_DESTINATION_BYTES:
            raise ValueError(f"destination must be at most {MAX_DESTINATION_BYTES} bytes")
        additions_put(
            &self.additions, &terms, parts, count, text, <uint32_t> size, &change.rate_terms
        )
        return self._add(&change)

    cdef int _add(self, const change_t* change) except -1 nogil:
        reserve(
            <void**> &self.changes,
            &self.capacity,
            <uint64_t> self.count + 1,
            sizeof(change_t),
            MAX_ROWS,
        )
        self.changes[self.count] = change[0]
        self.count += 1
        return 0

    cdef bint _base_has(self, int64_t version_id, str prefix) except -1:
        cdef const tables_t* tables = self.base.tables
        cdef uint32_t slots[MAX_DIGITS + 1]
        cdef uint32_t lengths[MAX_DIGITS + 1]
        cdef bytes text = prefix.encode()
        cdef int found = slots_on_path(tables, text, len(text), slots, lengths)
        cdef uint32_t slot, first, i
        if found == 0 or lengths[found - 1] != <uint32_t> len(text):
            return False
        slot = slots[found - 1]
        if not is_group(tables, slot):
            return row_version_id(tables, slot) == version_id
        first = first_window(tables, slot)
        for i in range(first, first + tables.windows[first].left):
            if tables.windows[i].version_id == version_id:
                return True
        return False
