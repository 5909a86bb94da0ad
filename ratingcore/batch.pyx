# cython: cdivision=True
"""Rating one call and rating blocks of calls: match, then blocked, then charge (rules 1 to 8)."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memset

from .match cimport match_digits, match_t
from .money cimport BLOCKED_BIT, charge_terms, interval_t, terms_t
from .number cimport MAX_DIGITS, normalize
from .tables cimport NO_ROW, row_terms, tables_t, terms_intervals


cdef inline void _charge(
    const tables_t* tables, int64_t duration_seconds, outcome_t* outcome
) noexcept nogil:
    """Complete an outcome that has its row and is otherwise 0."""
    cdef const terms_t* terms = row_terms(tables, outcome.row)
    cdef uint32_t count
    cdef const interval_t* intervals
    if terms.increment & BLOCKED_BIT:
        outcome.status = UNRATED
        outcome.unrated_reason = BLOCKED
        return
    intervals = terms_intervals(tables, terms, &count)
    if charge_terms(
        terms,
        intervals,
        count,
        duration_seconds,
        tables.rounding,
        &outcome.bill_seconds,
        &outcome.cost_e4,
    ):
        outcome.status = RATED
    else:
        outcome.status = REFUSED
        outcome.bill_seconds = 0


cdef void rate_digits(
    const tables_t* tables,
    const uint8_t* digits,
    uint32_t count,
    int64_t started_at_ns,
    int64_t duration_seconds,
    outcome_t* outcome,
) noexcept nogil:
    """Rate one billable call to a normalised number; count 0 stands for an invalid one."""
    cdef match_t match
    memset(outcome, 0, sizeof(outcome_t))
    outcome.row = NO_ROW
    if count == 0:
        outcome.status = UNRATED
        outcome.unrated_reason = INVALID_NUMBER
        return
    match = match_digits(tables, digits, count, started_at_ns)
    if match.row == NO_ROW:
        outcome.status = UNRATED
        outcome.unrated_reason = NO_RATE
        return
    outcome.row = match.row
    outcome.prefix_length = <uint8_t> match.length
    _charge(tables, duration_seconds, outcome)


cdef void match_block(
    const tables_t* tables, const call_t* calls, uint32_t count, match_t* matches
) noexcept nogil:
    """The rates of at most BLOCK calls, all taken as billable, without charging."""
    cdef uint8_t digits[MAX_DIGITS]
    cdef uint32_t i
    cdef int length
    for i in range(count):
        length = normalize(calls[i].number, calls[i].number_size, &tables.dialling, digits)
        if length:
            matches[i] = match_digits(tables, digits, length, calls[i].started_at_ns)
        else:
            matches[i].row = NO_ROW
            matches[i].length = 0


cdef void rate_block(
    const tables_t* tables, const call_t* calls, uint32_t count, outcome_t* outcomes
) noexcept nogil:
    """Rate at most BLOCK calls."""
    cdef uint8_t digits[MAX_DIGITS]
    cdef uint32_t i
    cdef int length
    for i in range(count):
        if not calls[i].billable:
            memset(&outcomes[i], 0, sizeof(outcome_t))
            outcomes[i].row = NO_ROW
            outcomes[i].status = NOT_BILLABLE
            continue
        length = normalize(calls[i].number, calls[i].number_size, &tables.dialling, digits)
        rate_digits(
            tables,
            digits,
            length,
            calls[i].started_at_ns,
            calls[i].duration_seconds,
            &outcomes[i],
        )
