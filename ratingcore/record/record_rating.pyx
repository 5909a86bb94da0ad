"""Rates calls before they are recorded, each by its tenant's deck, with the GIL released."""

from cpython.array cimport array
from libc.stdint cimport int64_t, uint32_t

from ..deck.batch cimport BLOCK, RATED, call_t, outcome_t, rate_block
from ..wire.call_rules cimport ANSWERED, OUTBOUND
from ..deck.deck cimport Deck
from ..pricing.money cimport split_cost
from .records cimport Records, record_t
from ..index.tables cimport row_version_id, tables_t
from ..wire.tally cimport Tally


cdef void _rate_block(
    const tables_t* tables,
    int64_t revision,
    record_t* records,
    const uint32_t* positions,
    uint32_t count,
) noexcept nogil:
    cdef call_t calls[BLOCK]
    cdef outcome_t outcomes[BLOCK]
    cdef record_t* record
    cdef uint32_t i
    if count == 0:
        return
    for i in range(count):
        record = &records[positions[i]]
        calls[i].number = record.destination_number.data
        calls[i].number_size = record.destination_number.size
        calls[i].started_at_ns = record.started_at_ns
        calls[i].duration_seconds = record.duration_seconds
        calls[i].billable = record.direction == OUTBOUND and record.disposition == ANSWERED
    rate_block(tables, calls, count, outcomes)
    for i in range(count):
        record = &records[positions[i]]
        record.status = outcomes[i].status
        record.unrated_reason = outcomes[i].unrated_reason
        record.bill_seconds = outcomes[i].bill_seconds
        record.cost_fraction_e8 = split_cost(
            outcomes[i].cost_scaled, tables.rounding.cost_decimals, &record.cost_units
        )
        # A blocked call has no cost, and no rate priced it.
        record.version_id = 0
        if outcomes[i].status == RATED:
            record.version_id = row_version_id(tables, <uint32_t> outcomes[i].row)
        record.rate_revision = revision


def rate_records(Records records not None, array order not None, decks):
    """Rate the calls at these positions, which are sorted by tenant_id. ``decks`` maps the id of
    each tenant to its deck. A call whose cost exceeds its limit gets the status REFUSED.

    The outcomes are stored in the list; see ``Records.outcome``.
    """
    cdef Py_ssize_t begin = 0
    cdef Py_ssize_t end
    cdef uint32_t count
    cdef int64_t tenant_id
    cdef const uint32_t* positions
    cdef Deck deck
    records.check_positions(order)
    positions = order.data.as_uints
    while begin < len(order):
        tenant_id = records.items[positions[begin]].tenant_id
        end = begin + 1
        while end < len(order) and records.items[positions[end]].tenant_id == tenant_id:
            end += 1
        deck = decks[tenant_id]
        with nogil:
            while begin < end:
                count = BLOCK if end - begin > BLOCK else <uint32_t> (end - begin)
                _rate_block(deck.tables, deck.revision, records.items, &positions[begin], count)
                begin += count


def count_outcomes(Records records not None, array positions not None):
    """Count the outcomes of the calls at these positions. Returns a Tally."""
    cdef Tally tally = Tally()
    cdef const record_t* record
    cdef Py_ssize_t i
    records.check_positions(positions)
    for i in range(len(positions)):
        record = &records.items[positions.data.as_uints[i]]
        tally.count(record.status, record.unrated_reason)
    return tally
