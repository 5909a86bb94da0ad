"""The plain types of recorded calls.

The module imports no other of the core, because service/storage may import it and no other.
"""

from __future__ import annotations

from typing import NamedTuple


class Content(NamedTuple):
    """A call as its CDR stores it. Equal calls have equal contents (rating rule 10)."""

    tenant_id: int
    call_id: str
    extension_id: int  # 0: none
    caller_number: str
    destination_number: str
    direction: int
    disposition: int
    duration_seconds: int
    started_at_ns: int
    ended_at_ns: int | None


class RecordOutcome(NamedTuple):
    """The outcome of rating a call. None: the call has no such value."""

    status: int
    unrated_reason: int | None
    bill_seconds: int | None
    cost_units: int | None
    cost_fraction_e8: int | None  # the rest of the cost, in 10^-8
    rate_version_id: int | None  # of the rate that priced the call
    rate_revision: int  # of the deck that rated it
