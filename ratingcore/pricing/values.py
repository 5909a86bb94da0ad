"""The plain types of the core's API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class RateInfo(NamedTuple):
    """One rate of a deck, as it was put in: the arguments of ``DeckBuilder.put`` in their order,
    with their defaults. An open end of the window is None.

    ``intervals`` are (start_seconds, cost_per_minute_e8, billing_increment).
    """

    version_id: int
    rate_id: int
    prefix: str
    destination: str
    cost_per_minute_e8: int
    billing_increment: int
    connect_fee_e8: int = 0
    minimum_seconds: int = 0
    intervals: tuple[tuple[int, int, int], ...] = ()
    effective_from_ns: int | None = None
    effective_to_ns: int | None = None
    blocked: bool = False


class RateTerms(NamedTuple):
    """The values of a ``RateInfo`` from cost_per_minute_e8 on, with their defaults. The function
    that takes them states the type of the two ends of the window."""

    cost_per_minute_e8: int
    billing_increment: int
    connect_fee_e8: int = 0
    minimum_seconds: int = 0
    intervals: Iterable[tuple[int, int, int]] = ()
    effective_from: Any = None
    effective_to: Any = None
    blocked: bool = False


class InEffect(NamedTuple):
    """How many prefixes have a rate in effect at one instant, before and after an import. ``gaps``:
    prefixes with a rate in effect before, none after, and a later rate. ``begins_ns``: the start of
    the first rate after that instant, or None."""

    before: int
    after: int
    gaps: int
    begins_ns: int | None


class Columns(NamedTuple):
    """The outcomes of a batch, one item a call, in the order of the calls.

    Each is a one-dimensional memoryview, which NumPy and Arrow read without a copy. All are parts
    of one block of memory, which is freed with the last of them. For ``out`` of
    ``Deck.rate_columns`` they may be any writable buffers. ``rate_index`` is the argument for
    ``Deck.rate_at``, -1 without a rate. ``bill_seconds`` and ``cost_scaled`` are defined only if
    ``status`` is RATED or NOT_BILLABLE.
    """

    status: memoryview  # uint8: RATED, NOT_BILLABLE, UNRATED, or REFUSED
    unrated_reason: memoryview  # uint8: 0, or NO_RATE, BLOCKED, INVALID_NUMBER
    bill_seconds: memoryview  # int64
    cost_scaled: memoryview  # uint64
    rate_index: memoryview  # int32
    prefix_length: memoryview  # uint8


class Matches(NamedTuple):
    """The longest prefixes of a batch of numbers, in their order; see ``Columns``."""

    rate_index: memoryview  # int32
    prefix_length: memoryview  # uint8


class ConsideredRate(NamedTuple):
    """One rate that rating considered, and why it won or lost."""

    rate_id: int
    version_id: int
    prefix: str
    destination: str
    effective_from_ns: int | None
    effective_to_ns: int | None
    won: bool
    reason: str
    blocked: bool
    in_effect: bool


class Step(NamedTuple):
    """One step of the decision or of the arithmetic, for people."""

    name: str
    working: str
    result: str


class Explanation(NamedTuple):
    """How one call was rated, with all details that are needed to repeat it by hand.

    ``considered``: the rates whose prefix the number begins with, the longest prefix first, those
    of one prefix by effective_from, latest first. Of a prefix with many rates it has those that
    begin next before and after the call, and the one in effect; ``omitted`` counts the others.
    ``normalized_number`` is "" if the number is invalid.
    """

    normalized_number: str
    considered: tuple[ConsideredRate, ...]
    steps: tuple[Step, ...]
    omitted: int = 0
