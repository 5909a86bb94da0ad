# cython: cdivision=True
"""The rates of an import: stored compactly, checked, sorted, and compared with a deck.

Only valid rates in the common form are read from the wire. The caller handles all others
(intervals, a price with nine decimals, an error), so that one module has the rules and texts of all
errors.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memset

from .call_parse cimport stamp_t
from .rate_parse cimport read_terms_of
from ..index.changes cimport change_t, set_key
from ..base.memory cimport allocate, release, reserve
from ..pricing.terms cimport terms_t
from ..pricing.number cimport MAX_DIGITS, read_prefix
from ..index.rate_terms cimport (
    additions_free,
    additions_init,
    additions_nbytes,
    additions_put,
    is_same_terms,
)
from ..index.tables cimport (
    JUMP_BYTES_A_SLOT,
    MAX_ROWS,
    id_tops_t,
    node_t,
    row_count,
    row_rate_id,
    row_version_id,
    rows_in_order,
    slot_prefix,
    window_t,
)

cdef extern from *:
    """
    #define RC_FIRST_SECOND (-62135596800LL)
    #define RC_LAST_SECOND 253402300799LL
    """
    const int64_t FIRST_SECOND "RC_FIRST_SECOND"   # of the year 1, and so of a Timestamp
    const int64_t LAST_SECOND "RC_LAST_SECOND"     # of the year 9999


cdef int intake_init(intake_t* intake) except -1 nogil:
    memset(intake, 0, sizeof(intake_t))
    intake.from_default.s = INT64_MIN
    return additions_init(&intake.additions)


cdef void intake_free(intake_t* intake) noexcept nogil:
    release(intake.rates)
    intake.rates = NULL
    intake.count = intake.capacity = 0
    additions_free(&intake.additions)


cdef size_t intake_nbytes(const intake_t* intake) noexcept nogil:
    return <size_t> intake.capacity * sizeof(incoming_t) + additions_nbytes(&intake.additions)


cdef incoming_t* intake_add(intake_t* intake) except NULL nogil:
    """Make room for one more rate, in effect from the default start on. The caller raises
    ``count``."""
    cdef incoming_t* rate
    reserve(
        <void**> &intake.rates,
        &intake.capacity,
        <uint64_t> intake.count + 1,
        sizeof(incoming_t),
        MAX_ROWS,
    )
    rate = &intake.rates[intake.count]
    memset(rate, 0, sizeof(incoming_t))
    rate.from_s, rate.to_s = intake.from_default.s, INT64_MAX
    rate.from_ns = intake.from_default.ns
    return rate


# --- Simple valid rates ---------------------------------------------------------------------------


cdef bint _read_bound(const stamp_t* stamp, int64_t* seconds, uint32_t* nanoseconds) noexcept nogil:
    """Read one end of a window; an absent one leaves the values unchanged."""
    if not stamp.present:
        return True
    if not (FIRST_SECOND <= stamp.seconds <= LAST_SECOND and 0 <= stamp.nanos < 1_000_000_000):
        return False
    seconds[0] = stamp.seconds
    nanoseconds[0] = <uint32_t> stamp.nanos
    return True


cdef int intake_take(
    intake_t* intake, const wire_rate_t* wire, int64_t tenant_id, uint32_t index
) except -1 nogil:
    """Add a rate if it is simple and valid. Returns 1 if so, else 0."""
    cdef uint8_t digits[MAX_DIGITS]
    cdef change_t key
    cdef terms_t terms
    cdef incoming_t* rate
    cdef int length
    if not read_terms_of(wire, &terms) or not (wire.tenant_id == 0 or wire.tenant_id == tenant_id):
        return 0
    length = read_prefix(wire.prefix.data, wire.prefix.size, digits)
    if length < 0:
        return 0
    rate = intake_add(intake)
    if not (
        _read_bound(&wire.effective_from, &rate.from_s, &rate.from_ns)
        and _read_bound(&wire.effective_to, &rate.to_s, &rate.to_ns)
    ):
        return 0
    if rate.to_s < rate.from_s or (rate.to_s == rate.from_s and rate.to_ns <= rate.from_ns):
        return 0
    set_key(&key, digits, length)
    rate.key_high, rate.key_low, rate.length = key.key_high, key.key_low, key.length
    rate.index = index
    additions_put(
        &intake.additions,
        &terms,
        NULL,
        0,
        wire.destination.data,
        wire.destination.size,
        &rate.rate_terms,
    )
    intake.count += 1
    return 1


# --- Order and comparison -------------------------------------------------------------------------


cdef int by_key(const incoming_t* a, const incoming_t* b) noexcept nogil:
    """Compare by prefix, then by effective_from, latest first: the order of the rates of a deck."""
    if a.key_high != b.key_high:
        return -1 if a.key_high < b.key_high else 1
    if a.key_low != b.key_low:
        return -1 if a.key_low < b.key_low else 1
    if a.from_s != b.from_s:
        return -1 if a.from_s > b.from_s else 1
    if a.from_ns != b.from_ns:
        return -1 if a.from_ns > b.from_ns else 1
    return 0


cdef int _by_key_and_index(const void* left, const void* right) noexcept nogil:
    cdef const incoming_t* a = <const incoming_t*> left
    cdef const incoming_t* b = <const incoming_t*> right
    cdef int order = by_key(a, b)
    if order == 0:
        order = -1 if a.index < b.index else 1
    return order


cdef void intake_sort(intake_t* intake) noexcept nogil:
    """Sort by key, then index. Most imports are sorted already, so check first."""
    cdef uint32_t i
    for i in range(1, intake.count):
        if _by_key_and_index(&intake.rates[i - 1], &intake.rates[i]) > 0:
            qsort(intake.rates, intake.count, sizeof(incoming_t), _by_key_and_index)
            return


cdef void _load(const tables_t* base, uint32_t row, incoming_t* rate) noexcept nogil:
    """Read key, window and ids of a rate of a deck."""
    cdef uint8_t digits[MAX_DIGITS]
    cdef change_t key
    cdef uint32_t slot = row
    memset(rate, 0, sizeof(incoming_t))
    rate.from_s, rate.to_s = INT64_MIN, INT64_MAX
    if row >= base.slot_count:
        rate.from_s = base.windows[row - base.slot_count].from_s
        rate.from_ns = base.windows[row - base.slot_count].from_ns
        rate.to_s = base.windows[row - base.slot_count].to_s
        rate.to_ns = base.windows[row - base.slot_count].to_ns
        slot = base.windows[row - base.slot_count].slot
    set_key(&key, digits, slot_prefix(base, slot, digits))
    rate.key_high, rate.key_low, rate.length = key.key_high, key.key_low, key.length
    rate.version_id = row_version_id(base, row)
    rate.rate_id = row_rate_id(base, row)


cdef bint _is_same(
    const intake_t* intake, const incoming_t* rate, const tables_t* base, uint32_t row,
    const incoming_t* present,
) noexcept nogil:
    """Whether a rate equals the deck's rate with the same key."""
    return (
        rate.to_s == present.to_s
        and rate.to_ns == present.to_ns
        and is_same_terms(&intake.additions, rate.rate_terms, base, row)
    )


cdef bint _is_before(int64_t s, uint32_t ns, int64_t other_s, uint32_t other_ns) noexcept nogil:
    return s < other_s or (s == other_s and ns < other_ns)


cdef bint _is_in_effect(const incoming_t* rate, const instant_t* at) noexcept nogil:
    return not _is_before(at.s, at.ns, rate.from_s, rate.from_ns) and _is_before(
        at.s, at.ns, rate.to_s, rate.to_ns
    )


cdef struct prefix_t:            # the rates of one prefix that are in effect
    uint64_t key_high
    uint64_t key_low
    bint before
    bint after
    bint later                   # a rate begins later


cdef void _end_prefix(const prefix_t* prefix, effect_t* effect) noexcept nogil:
    effect.before += prefix.before
    effect.after += prefix.after
    effect.gaps += prefix.before and not prefix.after and prefix.later


cdef void _count(
    const incoming_t* rate, bint is_after, const instant_t* at, prefix_t* prefix, effect_t* effect
) noexcept nogil:
    """Count a rate of the base, or one that exists after the import (``is_after``)."""
    if prefix.key_high != rate.key_high or prefix.key_low != rate.key_low:
        _end_prefix(prefix, effect)
        memset(prefix, 0, sizeof(prefix_t))
        prefix.key_high, prefix.key_low = rate.key_high, rate.key_low
    if _is_in_effect(rate, at):
        if is_after:
            prefix.after = True
        else:
            prefix.before = True
    elif is_after and _is_before(at.s, at.ns, rate.from_s, rate.from_ns):
        prefix.later = True
        if _is_before(rate.from_s, rate.from_ns, effect.begins_s, effect.begins_ns):
            effect.begins_s, effect.begins_ns = rate.from_s, rate.from_ns


cdef enum:
    # The columns of a slot; then what one change may add to every slot of the deck: the upper
    # halves of ids, and a direct table over one more digit.
    SLOT_BYTES = 12
    LATER_SLOT_BYTES = sizeof(id_tops_t) + JUMP_BYTES_A_SLOT


cdef struct prefix_rates_t:      # the rates of the current prefix after the import
    uint64_t key_high
    uint64_t key_low
    uint32_t count
    uint32_t length              # digits of the prefix
    bint is_changed              # a rate of the import is among them


cdef uint32_t _shared_digits(const incoming_t* rate, const prefix_rates_t* before) noexcept nogil:
    """How many digits the prefix shares with the one before it."""
    cdef uint32_t most = min(<uint32_t> rate.length, before.length)
    cdef uint64_t differing = rate.key_high ^ before.key_high
    cdef uint32_t shared = 0
    if differing == 0 and most > 16:
        differing = rate.key_low ^ before.key_low
        shared = 16
    while shared < most and differing >> 60 == 0:
        differing <<= 4
        shared += 1
    return shared


cdef void _note_rate(
    const incoming_t* rate, bint is_new, bint is_incoming, prefix_rates_t* prefix, growth_t* growth
) noexcept nogil:
    """Note a rate that exists after the import, in the order of the deck."""
    cdef bint is_first = (
        prefix.count == 0
        or prefix.key_high != rate.key_high
        or prefix.key_low != rate.key_low
    )
    if is_new:
        growth.most_bytes += SLOT_BYTES + LATER_SLOT_BYTES
        # One node a digit that no prefix before has, and the root.
        growth.most_bytes += sizeof(node_t) * (rate.length + 1 - _shared_digits(rate, prefix))
        # A prefix with a period, or with two rates, has windows. Another rate of it may become one.
        if not is_first or rate.from_s != INT64_MIN or rate.to_s != INT64_MAX:
            growth.most_bytes += 2 * sizeof(window_t)
    if is_first:
        prefix.key_high, prefix.key_low = rate.key_high, rate.key_low
        prefix.length = rate.length
        prefix.count = 0
        prefix.is_changed = False
    prefix.count += 1
    prefix.is_changed |= is_incoming
    if prefix.is_changed and prefix.count > growth.most_rates:
        growth.most_rates = prefix.count


cdef bint _is_prefix(const incoming_t* rate, const prefix_rates_t* prefix) noexcept nogil:
    return prefix.count > 0 and rate.key_high == prefix.key_high and rate.key_low == prefix.key_low


cdef int intake_compare(
    intake_t* intake,
    const tables_t* base,
    bint replace,
    const instant_t* closing,
    const instant_t* at_instant,
    uint32_t* gone,
    uint32_t* gone_count,
    uint32_t* updated_count,
    uint32_t* closed,
    uint32_t* closed_count,
    effect_t* effect,
    growth_t* growth,
) except -1 nogil:
    """Keep the sorted rates that are new or differ from the base's. The latter get the ids of the
    base.

    ``gone`` has room for all rows of the base. It receives the rows to remove: those that differ
    and, with ``replace``, those whose key no rate has. With ``closing`` (NULL: none) the latter are
    removed only if they begin at that instant or later; those that end after it are written to
    ``closed``, which also has room for all rows; those that end before it remain. ``effect`` is set
    with ``replace``. ``growth`` is exact for most_rates, and an upper bound for most_bytes.
    """
    cdef incoming_t present
    cdef prefix_t prefix
    cdef prefix_rates_t rates_of_prefix
    cdef bint stays
    cdef uint32_t count = row_count(base)
    cdef uint32_t* rows = <uint32_t*> allocate(count, 4)
    cdef uint32_t at = 0
    cdef uint32_t i = 0
    cdef uint32_t kept = 0
    cdef int order
    gone_count[0] = updated_count[0] = closed_count[0] = 0
    memset(&prefix, 0, sizeof(prefix_t))
    memset(&rates_of_prefix, 0, sizeof(prefix_rates_t))
    memset(effect, 0, sizeof(effect_t))
    memset(growth, 0, sizeof(growth_t))
    effect.begins_s = INT64_MAX
    rows_in_order(base, rows)
    if count:
        _load(base, rows[0], &present)
    # Without ``replace``, the rates after the last prefix of the import do not matter.
    while i < intake.count or (
        at < count and (replace or _is_prefix(&present, &rates_of_prefix))
    ):
        if i == intake.count:
            order = 1
        else:
            order = by_key(&intake.rates[i], &present) if at < count else -1
        if replace:
            if order >= 0:
                _count(&present, False, at_instant, &prefix, effect)
            if order <= 0:
                _count(&intake.rates[i], True, at_instant, &prefix, effect)
        if order <= 0:
            _note_rate(&intake.rates[i], order < 0, True, &rates_of_prefix, growth)
        elif not replace:
            _note_rate(&present, False, False, &rates_of_prefix, growth)
        if order == 0 and not _is_same(intake, &intake.rates[i], base, rows[at], &present):
            updated_count[0] += 1
            growth.most_bytes += sizeof(window_t)   # it may get a period
            intake.rates[i].version_id = present.version_id
            intake.rates[i].rate_id = present.rate_id
            intake.rates[kept] = intake.rates[i]
            kept += 1
            gone[gone_count[0]] = rows[at]
            gone_count[0] += 1
        elif order < 0:
            intake.rates[kept] = intake.rates[i]
            kept += 1
        elif order > 0 and replace:
            stays = closing != NULL and _is_before(
                present.from_s, present.from_ns, closing.s, closing.ns
            )
            if not stays:
                gone[gone_count[0]] = rows[at]
                gone_count[0] += 1
            else:
                if _is_before(closing.s, closing.ns, present.to_s, present.to_ns):
                    closed[closed_count[0]] = rows[at]
                    closed_count[0] += 1
                    growth.most_bytes += sizeof(window_t)
                    present.to_s, present.to_ns = closing.s, closing.ns
                _count(&present, True, at_instant, &prefix, effect)
                _note_rate(&present, False, False, &rates_of_prefix, growth)
        i += order <= 0
        at += order >= 0
        if order >= 0 and at < count:
            _load(base, rows[at], &present)
    _end_prefix(&prefix, effect)
    intake.count = kept
    growth.most_bytes += LATER_SLOT_BYTES * <uint64_t> base.slot_count
    growth.most_bytes += additions_nbytes(&intake.additions)
    release(rows)
    return 0
