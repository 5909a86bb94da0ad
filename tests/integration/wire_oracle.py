"""Conversion between the messages of the wire and the oracle, to check the server's results.

It depends on the messages and the oracle, and on nothing of the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tests.integration.client import ANSWERED, OUTBOUND, nanoseconds
from tests.oracle import OracleDeck, OracleInterval, OracleRate, OracleResult, show
from tollwire.v1 import types_pb2 as types


def oracle_rate(rate: types.Rate) -> OracleRate:
    return OracleRate(
        prefix=rate.prefix,
        cost_per_minute=Fraction(rate.cost_per_minute),
        billing_increment=rate.billing_increment,
        connect_fee=Fraction(rate.connect_fee or "0"),
        minimum_seconds=rate.minimum_seconds,
        intervals=tuple(
            OracleInterval(
                interval.start_seconds,
                Fraction(interval.cost_per_minute),
                interval.billing_increment,
            )
            for interval in rate.intervals
        ),
        effective_from_ns=(
            nanoseconds(rate.effective_from) if rate.HasField("effective_from") else None
        ),
        effective_to_ns=nanoseconds(rate.effective_to) if rate.HasField("effective_to") else None,
        blocked=rate.blocked,
    )


def oracle_deck(tenant: types.Tenant, rates: Sequence[types.Rate]) -> OracleDeck:
    return OracleDeck(
        [oracle_rate(rate) for rate in rates],
        types.Rounding.Name(tenant.rounding or types.ROUNDING_HALF_UP).removeprefix("ROUNDING_"),
        tenant.country_code,
        tenant.national_prefix,
        tenant.international_prefix,
    )


def oracle_result(deck: OracleDeck, call: types.Call | types.Cdr) -> OracleResult:
    return deck.rate(
        call.destination_number,
        nanoseconds(call.started_at),
        call.duration_seconds,
        call.direction == OUTBOUND and call.disposition == ANSWERED,
    )


Outcome = tuple[str, str, int | None, str | None]


def outcome_of(rated: types.RatedCall | types.Cdr) -> Outcome:
    """status, unrated reason, bill_seconds, cost"""
    reason = types.UnratedReason.Name(rated.unrated_reason).removeprefix("UNRATED_REASON_")
    return (
        types.RatingStatus.Name(rated.status).removeprefix("RATING_STATUS_"),
        "" if reason == "UNSPECIFIED" else reason,
        rated.bill_seconds if rated.HasField("bill_seconds") else None,
        rated.cost if rated.HasField("cost") else None,
    )


def expected_outcome(result: OracleResult) -> Outcome:
    if result.refused:
        return ("UNRATED", "", None, None)
    cost = None if result.cost is None else show(result.cost)
    return (result.status, result.reason, result.bill_seconds, cost)


def assert_recomputes(cdr: types.Cdr) -> None:
    """The cost of a CDR follows from the CDR alone."""
    deck = oracle_deck(cdr.tenant, [cdr.rate] if cdr.HasField("rate") else [])
    result = oracle_result(deck, cdr)
    if outcome_of(cdr)[0] == "UNRATED":
        assert not cdr.HasField("rate")
        assert outcome_of(cdr)[2:] == (None, None)
    else:
        assert outcome_of(cdr) == expected_outcome(result), cdr
