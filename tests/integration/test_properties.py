"""Random decks and calls through the wire, against the oracle.

A deck is sent by ImportRates, calls by BatchRateCalls, StreamRateCalls and RateCall with its
explanation; every result must be the oracle's. In CI (the variable CI is set) the examples are the
same in every run.
"""

from __future__ import annotations

import os
from typing import Any

import grpc
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.integration.client import (
    NOON_NS,
    SECOND_NS,
    Client,
    make_call,
    make_rate,
    nanoseconds,
    refusal_of,
)
from tests.integration.wire_oracle import (
    expected_outcome,
    oracle_deck,
    oracle_result,
    outcome_of,
)
from tests.oracle import OracleDeck, OracleResult, normalize, normalize_prefix
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    database=None,
    phases=[Phase.explicit, Phase.generate],
)

# Few digits, so that prefixes are nested and numbers match them.
digits = st.text("0147", max_size=5) | st.text("4", min_size=27, max_size=32)
# Few instants, so that windows touch, overlap, hide and reveal each other.
moments = st.sampled_from(
    [NOON_NS + offset for offset in (-SECOND_NS, -1, 0, 1, 2, SECOND_NS, 3600 * SECOND_NS)]
    + [0, -5, 1, 9_223_372_035_999_999_999, 10**19, -(10**18)]
)
call_moments = moments.map(lambda ns: min(max(ns, 0), 9_223_372_035_999_999_999))
money = st.builds(
    "{}.{:04d}".format,
    st.sampled_from([0, 0, 0, 0, 1, 12, 99_999_999]),
    st.integers(0, 9999) | st.sampled_from([0, 1, 3, 9999]),
) | st.sampled_from(["0", "1", "0.1", "0.06", "0.003", "99999999.9999"])
increments = st.sampled_from([1, 2, 6, 7, 30, 59, 60, 61, 3600, 86_400])
# Near the increments and the intervals' starts, and at the ends.
durations = (
    st.integers(0, 200)
    | st.sampled_from([0, 1, 59, 60, 61, 86_399, 86_400, 86_401, 600_000_000, 2_147_483_647])
    | st.integers(0, 2_147_483_647)
)


@st.composite
def intervals(draw: st.DrawFn) -> list[types.Interval]:
    starts = draw(st.lists(st.integers(1, 150), unique=True, max_size=4))
    return [
        types.Interval(
            start_seconds=start,
            cost_per_minute=draw(money),
            billing_increment=draw(increments),
        )
        for start in sorted(starts)
    ]


@st.composite
def rates(draw: st.DrawFn) -> types.Rate:
    start, end = draw(st.none() | moments), draw(st.none() | moments)
    if start is not None and end is not None and end <= start:
        start, end = (end, start) if end < start else (start, None)
    prefix = draw(digits)
    if prefix:
        prefix = draw(st.sampled_from(["{}", "+{}"])).format(prefix)
    return make_rate(
        prefix,
        draw(money),
        draw(increments),
        connect_fee=draw(money | st.just("")),
        minimum_seconds=draw(st.sampled_from([0, 0, 0, 1, 30, 61, 2_147_483_647])),
        intervals=draw(st.just([]) | intervals()),
        effective_from=start,
        effective_to=end,
        blocked=draw(st.integers(0, 9)) == 0,
    )


def place(rate: types.Rate) -> tuple[str | None, int | None]:
    """The key that is unique in a tenant."""
    start = nanoseconds(rate.effective_from) if rate.HasField("effective_from") else None
    return (normalize_prefix(rate.prefix), start)


decks = st.lists(rates(), max_size=12, unique_by=place)

awkward = st.text(
    st.sampled_from("0147+-. ()/@;:siptelSIPTEL٤４\u00a0\u2011\U0001f4de\t\nx#*"), max_size=14
)
numbers = st.one_of(
    digits,
    st.builds("{}{}".format, st.sampled_from(["+", "00", "0", "011", ""]), digits),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["sip:", "SIPS:", "tel:", "Tel:+", "sip:+", "+", ""]),
        digits,
        st.sampled_from(["", " ", "-", ".", "(0)", "/4"]),
        st.sampled_from(["", "@host", ";ext=1", "@h;x", " "]),
    ),
    awkward,
)


@st.composite
def calls(draw: st.DrawFn) -> types.Call:
    kind: dict[str, Any] = {}
    if draw(st.integers(0, 7)) == 0:
        kind["direction"] = draw(st.sampled_from(types.Direction.values()[1:]))
        kind["disposition"] = draw(st.sampled_from(types.Disposition.values()[1:]))
    return make_call(1, draw(numbers), draw(durations), started_at=draw(call_moments), **kind)


@st.composite
def tenants(draw: st.DrawFn) -> types.Tenant:
    country_code = draw(st.sampled_from(["", "4", "44", "1471"]))
    return types.Tenant(
        rounding=draw(st.sampled_from(types.Rounding.values())),
        country_code=country_code,
        national_prefix=draw(st.sampled_from(["", "0", "1", "01"])) if country_code else "",
        international_prefix=draw(st.sampled_from(["", "00", "011", "0"])),
    )


def agrees(rated: types.RatedCall, result: OracleResult, rate_ids: list[int]) -> None:
    assert outcome_of(rated) == expected_outcome(result)
    if result.refused:
        assert rated.error.reason == "COST_OVERFLOW"
        return
    assert not rated.HasField("error")
    assert rated.rate_id == (0 if result.rate_index is None else rate_ids[result.rate_index])


def rate_call_agrees(
    client: Client, call: types.Call, deck: OracleDeck, rate_ids: list[int]
) -> None:
    result = oracle_result(deck, call)
    try:
        answer = client.rating.RateCall(rating_pb.RateCallRequest(call=call, explain=True))
    except grpc.RpcError as error:
        reason = "COST_OVERFLOW" if result.refused else result.reason
        assert refusal_of(error).reason == reason
        return
    agrees(answer.rated, result, rate_ids)
    if result.status == "RATED":
        explanation_agrees(answer.explanation, call, deck, rate_ids, result)


def explanation_agrees(
    explanation: rating_pb.Explanation,
    call: types.Call,
    deck: OracleDeck,
    rate_ids: list[int],
    result: OracleResult,
) -> None:
    number = normalize(call.destination_number, *deck.dialling)
    assert number is not None
    assert explanation.normalized_number == number
    considered = [
        (len(prefix), start if start is not None else -(10**30), rate_ids[index])
        for index, (prefix, start) in enumerate(
            (normalize_prefix(rate.prefix) or "", rate.effective_from_ns) for rate in deck.rates
        )
        if number.startswith(prefix)
    ]
    in_order = [rate_id for _, _, rate_id in sorted(considered, reverse=True)]
    assert [one.rate_id for one in explanation.considered] == in_order
    assert result.rate_index is not None
    winners = [one.rate_id for one in explanation.considered if one.won]
    assert winners == [rate_ids[result.rate_index]]
    assert all(one.reason for one in explanation.considered)
    assert explanation.steps
    results = [step.result for step in explanation.steps]
    outcome = expected_outcome(result)
    assert any(str(outcome[2]) in text for text in results), (outcome, results)
    assert any(str(outcome[3]) in text for text in results), (outcome, results)


@EXAMPLES
@given(tenants(), decks, st.lists(calls(), min_size=1, max_size=40))
def test_every_answer_is_the_oracles(
    client: Client, tenant: types.Tenant, deck: list[types.Rate], calls: list[types.Call]
) -> None:
    made = client.tenants.CreateTenant(tenant_pb.CreateTenantRequest(tenant=tenant))
    outcome = client.import_rates(made.id, deck, messages=2)
    assert (outcome.created, outcome.rejected) == (len(deck), 0), outcome
    stored = {place(rate): rate.id for rate in client.export_rates(made.id)}
    rate_ids = [stored[place(rate)] for rate in deck]
    oracle = oracle_deck(made, deck)
    for call in calls:
        call.tenant_id = made.id
    expected = [oracle_result(oracle, call) for call in calls]
    for rated, result in zip(client.batch(calls), expected, strict=True):
        agrees(rated, result, rate_ids)
    requests = [
        rating_pb.StreamRateCallsRequest(calls=calls[at : at + 7]) for at in range(0, len(calls), 7)
    ]
    streamed = [
        rated for answer in client.rating.StreamRateCalls(iter(requests)) for rated in answer.rated
    ]
    for rated, result in zip(streamed, expected, strict=True):
        agrees(rated, result, rate_ids)
    for call in calls[:6]:
        rate_call_agrees(client, call, oracle, rate_ids)
