"""The terms of a rate: their ranges, and the derived fields.

``check_terms`` and ``check_interval`` are the only places of the core that state the ranges.
``read_terms`` applies them to Python values.
"""

from cpython.long cimport PyLong_Check
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp

from ..base.native cimport reciprocal

from .values import RateInfo

# A named tuple's own constructor takes three times as long.
cdef object _new_tuple = tuple.__new__


cdef inline bint _in_range(
    int64_t value, int64_t least, int64_t most, const char* field, fault_t* fault
) noexcept nogil:
    if least <= value <= most:
        return True
    fault.field, fault.value, fault.least, fault.most = field, value, least, most
    return False


cdef bint check_terms(
    int64_t price_e8,
    int64_t increment,
    int64_t connect_fee_e8,
    int64_t minimum_seconds,
    uint32_t intervals,
    bint blocked,
    terms_t* terms,
    fault_t* fault,
) noexcept nogil:
    """Check the values and write all fields of ``terms``, derived ones included. False: the first
    value outside its range is in ``fault``, and the content of ``terms`` is undefined.

    ``intervals`` is the number of the interval list. A caller without a number passes 0 for the
    empty list, any other number for another list, and sets the field later.
    """
    if not (
        _in_range(price_e8, 0, <int64_t> MAX_PRICE_E8, b"cost_per_minute_e8", fault)
        and _in_range(increment, 1, MAX_BILLING_INCREMENT, b"billing_increment", fault)
        and _in_range(connect_fee_e8, 0, <int64_t> MAX_PRICE_E8, b"connect_fee_e8", fault)
        and _in_range(minimum_seconds, 0, MAX_SECONDS, b"minimum_seconds", fault)
    ):
        return False
    terms.price_e8 = <uint64_t> price_e8
    terms.connect_fee_e8 = <uint64_t> connect_fee_e8
    terms.reciprocal = reciprocal(<uint32_t> increment)
    terms.increment = <uint32_t> increment
    if blocked:
        terms.increment |= BLOCKED_BIT
    terms.minimum_seconds = <uint32_t> minimum_seconds
    terms.intervals = intervals
    terms.fast = not blocked and intervals == 0 and terms.price_e8 >> 32 == 0
    return True


cdef bint check_interval(
    int64_t start_seconds,
    int64_t price_e8,
    int64_t increment,
    uint32_t start_before,
    interval_t* interval,
    fault_t* fault,
) noexcept nogil:
    """As ``check_terms``, for an interval after one that starts at ``start_before``; 0: the
    first."""
    if not (
        _in_range(
            start_seconds, <int64_t> start_before + 1, MAX_SECONDS, b"start_seconds", fault
        )
        and _in_range(price_e8, 0, <int64_t> MAX_PRICE_E8, b"cost_per_minute_e8", fault)
        and _in_range(increment, 1, MAX_BILLING_INCREMENT, b"billing_increment", fault)
    ):
        return False
    interval.start_seconds = <uint32_t> start_seconds
    interval.price_e8 = <uint64_t> price_e8
    interval.increment = <uint32_t> increment
    return True


cdef int _refuse(const fault_t* fault, str path) except -1:
    raise ValueError(
        f"{path}{fault.field.decode()} must be {fault.least} to {fault.most}, not {fault.value}"
    )


cdef int64_t whole(object value, str name) except? -1:
    """The value of an int. TypeError for another type, such as float; OverflowError beyond 64
    bits."""
    if not PyLong_Check(value):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return value


cdef int64_t whole_seconds(object seconds, str name) except? -1:
    """The value of an int from 0 to MAX_SECONDS; else ValueError, or as ``whole``."""
    cdef int64_t value = whole(seconds, name)
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"{name} must be 0 to {MAX_SECONDS}, not {value}")
    return value


cdef int _read_intervals(object intervals, interval_t* parts) except -1:
    """Write up to MAX_INTERVALS of (start_seconds, cost_per_minute_e8, increment); their count."""
    cdef int count = 0
    cdef uint32_t before = 0
    cdef fault_t fault
    for start_seconds, price_e8, increment in intervals:
        if count == MAX_INTERVALS:
            raise ValueError(f"a rate has at most {MAX_INTERVALS} intervals")
        path = f"intervals[{count}]."
        if not check_interval(
            whole(start_seconds, f"{path}start_seconds"),
            whole(price_e8, f"{path}cost_per_minute_e8"),
            whole(increment, f"{path}billing_increment"),
            before,
            &parts[count],
            &fault,
        ):
            _refuse(&fault, path)
        before = parts[count].start_seconds
        count += 1
    return count


cdef int read_terms(
    object cost_per_minute_e8,
    object billing_increment,
    object connect_fee_e8,
    object minimum_seconds,
    object intervals,
    bint blocked,
    terms_t* terms,
    interval_t* parts,
) except -1:
    """Check the terms of a rate and write them. Returns how many intervals are in ``parts``, which
    has room for MAX_INTERVALS.

    ``terms.intervals`` is that count, which is enough for ``charge_any``; in a deck the caller
    replaces it by the number of the list. ValueError for a value outside its range, TypeError for
    one of another type than int, OverflowError for one beyond 64 bits.
    """
    cdef fault_t fault
    cdef int count
    if not check_terms(
        whole(cost_per_minute_e8, "cost_per_minute_e8"),
        whole(billing_increment, "billing_increment"),
        whole(connect_fee_e8, "connect_fee_e8"),
        whole(minimum_seconds, "minimum_seconds"),
        0,
        blocked,
        terms,
        &fault,
    ):
        _refuse(&fault, "")
    count = _read_intervals(intervals, parts)
    terms.intervals = <uint32_t> count
    terms.fast = terms.fast and count == 0
    return count


cdef int read_values(
    tuple values, Py_ssize_t first, terms_t* terms, interval_t* parts
) except -1:
    """As ``read_terms``, for the values from position ``first`` on in the order of ``RateTerms``,
    without the window. ValueError unless these are all values of the tuple from there on."""
    if len(values) != first + VALUES_COUNT:
        raise ValueError(f"a rate has {VALUES_COUNT} terms, not {len(values) - first}")
    return read_terms(
        values[first],
        values[first + 1],
        values[first + 2],
        values[first + 3],
        values[first + 4],
        values[first + VALUES_BLOCKED],
        terms,
        parts,
    )


cdef bint are_complete(const terms_t* terms) noexcept nogil:
    """Whether all values are in their ranges and all derived fields are as ``check_terms`` writes
    them."""
    cdef terms_t checked
    cdef fault_t fault
    return (
        check_terms(
            <int64_t> terms.price_e8,
            terms.increment & ~<uint32_t> BLOCKED_BIT,
            <int64_t> terms.connect_fee_e8,
            terms.minimum_seconds,
            terms.intervals,
            (terms.increment & BLOCKED_BIT) != 0,
            &checked,
            &fault,
        )
        and memcmp(terms, &checked, sizeof(terms_t)) == 0
    )


cdef tuple interval_values(const interval_t* intervals, uint32_t count):
    """The intervals as (start_seconds, cost_per_minute_e8, billing_increment)."""
    cdef uint32_t i
    if count == 0:
        return ()
    return tuple(
        [
            (intervals[i].start_seconds, intervals[i].price_e8, intervals[i].increment)
            for i in range(count)
        ]
    )


cdef object rate_info(
    int64_t version_id,
    int64_t rate_id,
    str prefix,
    str destination,
    const terms_t* terms,
    tuple intervals,
    object effective_from_ns,
    object effective_to_ns,
):
    """A ``RateInfo``."""
    return _new_tuple(RateInfo, (
        version_id,
        rate_id,
        prefix,
        destination,
        terms.price_e8,
        terms.increment & ~<uint32_t> BLOCKED_BIT,
        terms.connect_fee_e8,
        terms.minimum_seconds,
        intervals,
        effective_from_ns,
        effective_to_ns,
        (terms.increment & BLOCKED_BIT) != 0,
    ))
