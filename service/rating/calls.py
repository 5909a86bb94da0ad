"""Rates calls from memory: one call, a batch, or one with an explanation. Stores nothing.

The rating core has the rules. This module selects the deck of each call and converts results and
errors. It reads the database only through ``Decks``. Must not depend on the wire.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate

import ratingcore
from tollwire.service.cache.decks import Decks, TenantDeck
from tollwire.service.domain.checks import check_id, check_number, check_text
from tollwire.service.domain.errors import (
    FailedPrecondition,
    FieldViolation,
    InvalidInput,
    NotFound,
    Reason,
    TollwireError,
    Unavailable,
)
from tollwire.service.domain.model import (
    MAX_CALL_ID_CHARS,
    MAX_DURATION_SECONDS,
    MAX_NUMBER_CHARS,
    MAX_OCCURRENCE,
    MAX_STARTED_AT_NS,
    MIN_STARTED_AT_NS,
    BadCall,
    Call,
    ConsideredRate,
    Explanation,
    ExplanationStep,
    RatedCall,
    RatingStatus,
    UnratedReason,
)
from tollwire.service.domain.money import cost_e8, max_cost_words

_NS = 10**9
_PERIOD = "from 1970-01-01T00:00:00Z to before 2262-04-11T23:47:16Z"


def resolve_duration(
    duration_seconds: int | None, started_at_ns: int, ended_at_ns: int | None
) -> int | None:
    """The duration of a call: as sent, else the whole seconds from start to end; None if neither is
    given. An end before the start gives 0; ``check_call`` reports it."""
    if duration_seconds is not None:
        return duration_seconds
    if ended_at_ns is None:
        return None
    return max(0, ended_at_ns - started_at_ns) // _NS


def check_call(call: Call) -> list[FieldViolation]:
    """The violations of a call's values, with field paths from the call."""
    # One condition for speed: nearly all calls pass.
    if (
        call.tenant_id > 0
        and call.extension_id >= 0
        and 0 <= call.duration_seconds <= MAX_DURATION_SECONDS
        and MIN_STARTED_AT_NS <= call.started_at_ns <= MAX_STARTED_AT_NS
        and (
            call.ended_at_ns is None or call.started_at_ns <= call.ended_at_ns <= MAX_STARTED_AT_NS
        )
        and len(call.caller_number) <= MAX_NUMBER_CHARS
        and len(call.destination_number) <= MAX_NUMBER_CHARS
        and len(call.call_id) <= MAX_CALL_ID_CHARS
        and "\0" not in call.caller_number
        and "\0" not in call.destination_number
        and "\0" not in call.call_id
        and 0 <= call.occurrence <= (1 if call.call_id else MAX_OCCURRENCE)
    ):
        return []
    return [
        *_check_ids(call),
        *check_text("caller_number", call.caller_number, MAX_NUMBER_CHARS),
        *check_text("destination_number", call.destination_number, MAX_NUMBER_CHARS),
        *_check_times(call),
        *check_text("call_id", call.call_id, MAX_CALL_ID_CHARS),
        *_check_occurrence(call),
    ]


def _check_ids(call: Call) -> list[FieldViolation]:
    return [
        *check_id("tenant_id", call.tenant_id),
        *check_id("extension_id", call.extension_id, required=False),
    ]


def _check_times(call: Call) -> list[FieldViolation]:
    found = [*check_number("duration_seconds", call.duration_seconds, 0, MAX_DURATION_SECONDS)]
    if not MIN_STARTED_AT_NS <= call.started_at_ns <= MAX_STARTED_AT_NS:
        found.append(FieldViolation("started_at", _out_of_period(call.started_at_ns)))
    if call.ended_at_ns is not None:
        if call.ended_at_ns < call.started_at_ns:
            found.append(FieldViolation("ended_at", "must not be before started_at"))
        elif call.ended_at_ns > MAX_STARTED_AT_NS:
            found.append(FieldViolation("ended_at", _out_of_period(call.ended_at_ns)))
    return found


def _out_of_period(time_ns: int) -> str:
    return f"must be {_PERIOD}, got {time_ns // _NS} seconds since 1970"


def _check_occurrence(call: Call) -> Iterator[FieldViolation]:
    yield from check_number("occurrence", call.occurrence, 0, MAX_OCCURRENCE)
    if call.occurrence > 1 and call.call_id:
        yield FieldViolation(
            "occurrence",
            f"must be 0 or 1 if call_id is set, got {call.occurrence}; give another call another"
            " call_id, or none",
        )


class Calls:
    """Rates calls with the decks in memory. Thread-safe. Waits for the database only if a tenant is
    unknown, because it may be new."""

    def __init__(self, decks: Decks) -> None:
        self._decks = decks

    def rate(self, call: Call, min_rate_revision: int = 0) -> RatedCall:
        """Rate one call that has passed ``check_call``, with rates of this revision or later.

        NotFound TENANT_NOT_FOUND or NO_RATE, FailedPrecondition RATE_REVISION_AHEAD or BLOCKED,
        InvalidInput INVALID_NUMBER or COST_OVERFLOW.
        """
        return _rate(self._decks.at_least(call.tenant_id, min_rate_revision), call)

    def explain(self, call: Call, min_rate_revision: int = 0) -> tuple[RatedCall, Explanation]:
        """As ``rate``, with an explanation that is detailed enough to repeat the calculation by
        hand. Both use one revision of the rates. The exceptions of ``rate`` have the explanation
        too."""
        tenant = self._decks.at_least(call.tenant_id, min_rate_revision)
        explained = explain(tenant.deck, call)
        try:
            return _rate(tenant, call), explained
        except TollwireError as error:
            error.explanation = explained
            error.metadata["normalized_number"] = explained.normalized_number
            prefixes = dict.fromkeys(rate.prefix for rate in explained.considered)
            error.metadata["candidates"] = ",".join(prefixes)
            raise

    def deck(
        self, tenant_id: int, min_rate_revision: int, asked_at: float
    ) -> ratingcore.Deck | None:
        """The tenant's deck at this revision or later. None if the tenant does not exist, or, if no
        revision is required, if the database cannot be read now. ``asked_at``: as for Decks.deck.
        FailedPrecondition RATE_REVISION_AHEAD, Unavailable."""
        try:
            return self._decks.at_least(tenant_id, min_rate_revision, asked_at).deck
        except NotFound:
            return None
        except Unavailable:
            if min_rate_revision:
                raise
            return None

    def deck_in_memory(self, tenant_id: int) -> ratingcore.Deck | None:
        """The tenant's deck in this worker's memory; None if it is not loaded. ``deck`` may still
        find it in the database."""
        found = self._decks.in_memory(tenant_id)
        return found.deck if found else None

    def rate_batch(
        self, calls: Sequence[Call | BadCall], asked_at: float | None = None
    ) -> list[RatedCall]:
        """One result for each call, in order. The error of a call is in its result and does not
        affect the others. ``asked_at``: the arrival of the first call by time.monotonic(), if calls
        arrive one at a time."""
        if asked_at is None:
            asked_at = time.monotonic()
        results: list[RatedCall | None] = [None] * len(calls)
        positions: dict[int, list[int]] = {}
        for position, call in enumerate(calls):
            if isinstance(call, BadCall):
                results[position] = _refused(call)
            else:
                positions.setdefault(call.tenant_id, []).append(position)
        for tenant_id, where in positions.items():
            group = [call for call in map(calls.__getitem__, where) if isinstance(call, Call)]
            rated = self._rate_group(tenant_id, group, asked_at)
            for position, result in zip(where, rated, strict=True):
                results[position] = result
        return [result for result in results if result is not None]

    def _rate_group(
        self, tenant_id: int, calls: Sequence[Call], asked_at: float
    ) -> list[RatedCall]:
        try:
            tenant = self._decks.deck(tenant_id, asked_at)
        except (NotFound, Unavailable) as error:
            return [
                _refused(BadCall("tenant_id", error.message, error.reason, call.call_id))
                for call in calls
            ]
        return _rate_group(tenant, calls)


def _rate(tenant: TenantDeck, call: Call) -> RatedCall:
    rating = tenant.deck.rate(
        call.destination_number, call.started_at_ns, call.duration_seconds, call.billable
    )
    if rating.status == ratingcore.REFUSED:
        raise _invalid("duration_seconds", Reason.COST_OVERFLOW, _overflow(tenant))
    if rating.status == ratingcore.UNRATED:
        raise _unrated(call, rating)
    return RatedCall(
        call_id=call.call_id,
        status=RatingStatus(rating.status),
        bill_seconds=rating.bill_seconds,
        cost_e8=None
        if rating.cost_scaled is None
        else cost_e8(rating.cost_scaled, tenant.tenant.cost_decimals),
        rate_id=rating.rate_id,
        version_id=rating.version_id,
        matched_prefix=rating.matched_prefix,
        destination=rating.destination,
        cost_per_minute_e8=rating.cost_per_minute_e8 if rating.rate_id else None,
        billing_increment=rating.billing_increment,
        rate_revision=tenant.revision,
        cost_decimals=tenant.tenant.cost_decimals,
    )


def explain(deck: ratingcore.Deck, call: Call) -> Explanation:
    """The explanation of how a deck rates a call."""
    explained = deck.explain(
        call.destination_number, call.started_at_ns, call.duration_seconds, call.billable
    )
    return Explanation(
        normalized_number=explained.normalized_number or "",
        considered=tuple(
            ConsideredRate(
                rate_id=rate.rate_id,
                prefix=rate.prefix,
                destination=rate.destination,
                effective_from_ns=rate.effective_from_ns,
                effective_to_ns=rate.effective_to_ns,
                won=rate.won,
                reason=rate.reason,
                blocked=rate.blocked,
                in_effect=rate.in_effect,
            )
            for rate in explained.considered
        ),
        steps=tuple(
            ExplanationStep(step.name, step.working, step.result) for step in explained.steps
        ),
        omitted=explained.omitted,
    )


def _rate_group(tenant: TenantDeck, calls: Sequence[Call]) -> list[RatedCall]:
    """The results of one tenant's calls. The core rates columns of values, and releases the GIL
    once."""
    deck = tenant.deck
    numbers = [call.destination_number.encode() for call in calls]
    columns = deck.rate_columns(
        b"".join(numbers),
        array("q", accumulate(map(len, numbers), initial=0)),
        array("q", [call.duration_seconds for call in calls]),
        array("q", [call.started_at_ns for call in calls]),
        bytes([call.billable for call in calls]),
    )
    rates = {index: deck.rate_at(index) for index in set(columns.rate_index) if index >= 0}
    results = []
    decimals = tenant.tenant.cost_decimals
    for call, status, reason, bill_seconds, cost_scaled, index in zip(
        calls,
        columns.status,
        columns.unrated_reason,
        columns.bill_seconds,
        columns.cost_scaled,
        columns.rate_index,
        strict=True,
    ):
        if status == ratingcore.REFUSED:
            bad = BadCall("duration_seconds", _overflow(tenant), Reason.COST_OVERFLOW, call.call_id)
            results.append(_refused(bad))
            continue
        unrated = status == ratingcore.UNRATED
        rate = rates.get(index)
        results.append(
            RatedCall(
                call_id=call.call_id,
                status=RatingStatus(status),
                unrated_reason=UnratedReason(reason) if unrated else None,
                bill_seconds=None if unrated else bill_seconds,
                cost_e8=None if unrated else cost_e8(cost_scaled, decimals),
                rate_id=rate.rate_id if rate else 0,
                version_id=rate.version_id if rate else 0,
                matched_prefix=rate.prefix if rate else "",
                destination=rate.destination if rate else "",
                cost_per_minute_e8=rate.cost_per_minute_e8 if rate else None,
                billing_increment=rate.billing_increment if rate else 0,
                rate_revision=tenant.revision,
                cost_decimals=decimals,
            )
        )
    return results


def _overflow(tenant: TenantDeck) -> str:
    return f"the cost would exceed {max_cost_words(tenant.tenant.cost_decimals)}"


def _refused(bad: BadCall) -> RatedCall:
    return RatedCall(call_id=bad.call_id, status=RatingStatus.UNRATED, error=bad)


def _unrated(call: Call, rating: ratingcore.Rating) -> Exception:
    number = repr(call.destination_number)
    if rating.unrated_reason == ratingcore.NO_RATE:
        return NotFound(
            Reason.NO_RATE,
            f"tenant {call.tenant_id} has no rate in effect at started_at for {number}",
            metadata={"tenant_id": str(call.tenant_id)},
        )
    if rating.unrated_reason == ratingcore.BLOCKED:
        return FailedPrecondition(
            Reason.BLOCKED,
            f"rate {rating.rate_id} (prefix {rating.matched_prefix!r}) blocks calls to {number}",
            metadata={"rate_id": str(rating.rate_id), "matched_prefix": rating.matched_prefix},
        )
    return _invalid(
        "destination_number",
        Reason.INVALID_NUMBER,
        f"must have 1 to 32 digits after normalization, got {number}",
    )


def _invalid(field: str, reason: Reason, description: str) -> InvalidInput:
    violation = FieldViolation(f"call.{field}", description)
    return InvalidInput(reason, f"{violation.field}: {description}", violations=[violation])
