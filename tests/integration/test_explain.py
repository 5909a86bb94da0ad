"""The explanation of a rating: complete enough to repeat it by hand, and always in agreement with
the rating."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from tests.integration.client import (
    INBOUND,
    NOON_NS,
    SECOND_NS,
    Client,
    make_call,
    not_found,
    refusal_of,
    timestamp,
)
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import types_pb2 as types


def explain(client: Client, call: types.Call) -> rating_pb.RateCallResponse:
    return client.rating.RateCall(rating_pb.RateCallRequest(call=call, explain=True))


def test_an_explanation_comes_only_when_asked_for(client: Client, tenant: types.Tenant) -> None:
    client.new_rate(tenant.id, "44")
    plain = client.rating.RateCall(rating_pb.RateCallRequest(call=make_call(tenant.id)))
    assert not plain.HasField("explanation")
    asked = explain(client, make_call(tenant.id))
    assert asked.HasField("explanation")
    assert asked.rated == plain.rated


def test_it_names_every_candidate_and_the_winner(client: Client, tenant: types.Tenant) -> None:
    catch_all = client.new_rate(tenant.id, "", destination="World")
    short = client.new_rate(tenant.id, "44", "0.0200", 6, destination="UK")
    later = client.new_rate(tenant.id, "44", effective_from=NOON_NS + SECOND_NS)
    gone = client.new_rate(tenant.id, "447", effective_to=NOON_NS, destination="UK mobile")
    client.new_rate(tenant.id, "45")
    answer = explain(client, make_call(tenant.id, "+44 7911", 7))
    explanation = answer.explanation
    assert explanation.normalized_number == "447911"
    assert [one.rate_id for one in explanation.considered] == [
        gone.id,
        later.id,
        short.id,
        catch_all.id,
    ]
    assert [one.won for one in explanation.considered] == [False, False, True, False]
    assert [one.prefix for one in explanation.considered] == ["447", "44", "44", ""]
    assert [one.destination for one in explanation.considered] == ["UK mobile", "", "UK", "World"]
    assert explanation.considered[0].effective_to.ToNanoseconds() == NOON_NS
    assert not explanation.considered[0].HasField("effective_from")
    assert explanation.considered[1].effective_from.ToNanoseconds() == NOON_NS + SECOND_NS
    reasons = [one.reason for one in explanation.considered]
    assert len(set(reasons)) >= 3
    assert answer.rated.rate_id == short.id


def test_its_steps_show_the_arithmetic(client: Client, tenant: types.Tenant) -> None:
    interval = types.Interval(start_seconds=30, cost_per_minute="0.0600", billing_increment=60)
    client.new_rate(tenant.id, "44", "0.1", 6, connect_fee="0.0105", intervals=[interval])
    answer = explain(client, make_call(tenant.id, "44", 31))
    # 30 s at 0.1 and 60 s at 0.06 are 0.05 and 0.06, with the fee 0.1205.
    assert (answer.rated.bill_seconds, answer.rated.cost) == (90, "0.1205")
    text = " ".join(
        f"{step.name} {step.working} {step.result}" for step in answer.explanation.steps
    )
    for number in ("30", "60", "90", "0.1000", "0.0600", "0.0105", "0.1205"):
        assert number in text, (number, text)
    assert all(step.name and step.result for step in answer.explanation.steps)


@pytest.mark.parametrize("duration", [0, 1, 30])
def test_it_agrees_with_the_result(client: Client, tenant: types.Tenant, duration: int) -> None:
    client.new_rate(tenant.id, "44", "0.0300", 6, minimum_seconds=20, connect_fee="0.5")
    answer = explain(client, make_call(tenant.id, "44", duration))
    results = [step.result for step in answer.explanation.steps]
    assert any(answer.rated.cost in result for result in results)
    assert any(str(answer.rated.bill_seconds) in result for result in results)


def test_a_call_that_costs_nothing_is_explained_too(client: Client, tenant: types.Tenant) -> None:
    answer = explain(client, make_call(tenant.id, "any", direction=INBOUND))
    assert answer.rated.cost == "0.0000"
    assert list(answer.explanation.considered) == []
    assert any("0.0000" in step.result for step in answer.explanation.steps) or any(
        "NOT_BILLABLE" in step.result or "not billable" in step.result.lower()
        for step in answer.explanation.steps
    )


def test_a_call_without_a_rate_is_refused_with_its_explanation(
    client: Client, tenant: types.Tenant
) -> None:
    client.new_rate(tenant.id, "33")
    with not_found("NO_RATE") as refusal:
        explain(client, make_call(tenant.id, "447911"))
    assert "447911" in refusal.message or "447911" in str(refusal.metadata)


def explanation_of(error: grpc.RpcError) -> rating_pb.Explanation:
    status = rpc_status.from_call(error)
    [detail] = [one for one in status.details if one.Is(rating_pb.Explanation.DESCRIPTOR)]
    found = rating_pb.Explanation()
    detail.Unpack(found)
    return found


def test_a_call_without_a_price_is_explained_too(client: Client, tenant: types.Tenant) -> None:
    """Candidates that are not in effect, those that block, and the rest of an invalid number."""
    late = client.new_rate(tenant.id, "447", effective_from=NOON_NS + 1)
    past = client.new_rate(tenant.id, "44", effective_to=NOON_NS)
    blocked = client.new_rate(tenant.id, "49", blocked=True)
    with pytest.raises(grpc.RpcError) as refused:
        explain(client, make_call(tenant.id, "sip:+44 7911@host"))
    refusal = refusal_of(refused.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NO_RATE")
    assert refusal.metadata["normalized_number"] == "447911"
    assert refusal.metadata["candidates"] == "447,44"
    found = explanation_of(refused.value)
    assert found.normalized_number == "447911"
    assert [(one.rate_id, one.in_effect, one.won) for one in found.considered] == [
        (late.id, False, False),
        (past.id, False, False),
    ]
    assert found.considered[0].effective_from == timestamp(NOON_NS + 1)
    assert found.steps[-1].result == "UNRATED, NO_RATE"

    with pytest.raises(grpc.RpcError) as refused:
        explain(client, make_call(tenant.id, "4930"))
    assert refusal_of(refused.value).reason == "BLOCKED"
    [considered] = explanation_of(refused.value).considered
    assert (considered.rate_id, considered.blocked, considered.won) == (blocked.id, True, True)

    with pytest.raises(grpc.RpcError) as refused:
        explain(client, make_call(tenant.id, "anonymous"))
    assert refusal_of(refused.value).reason == "INVALID_NUMBER"
    assert "'anonymous'" in explanation_of(refused.value).steps[-1].working


def test_only_requests_with_explain_get_it(client: Client, tenant: types.Tenant) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.rate(make_call(tenant.id, "44"))
    status = rpc_status.from_call(refused.value)
    assert not any(one.Is(rating_pb.Explanation.DESCRIPTOR) for one in status.details)
    assert refusal_of(refused.value).metadata == {"tenant_id": str(tenant.id)}


def test_an_explanation_in_an_error_is_short(client: Client, tenant: types.Tenant) -> None:
    """With any number of candidates and any length of their texts, the trailers stay below the
    limit of every client."""
    for length in range(1, 33):
        for window in range(3):
            client.new_rate(
                tenant.id,
                "4" * length,
                destination="\U0001f4de" * 200,
                effective_from=NOON_NS + 10**9 + window,
            )
    with pytest.raises(grpc.RpcError) as refused:
        explain(client, make_call(tenant.id, "4" * 32 + "@" + "\U0001f4de" * 200))
    trailers: Any = refused.value.trailing_metadata()
    assert sum(len(key) + len(value) for key, value in trailers) < 7_000
    found = explanation_of(refused.value)
    assert found.omitted + len(found.considered) == 96
    assert found.omitted > 0
    assert found.steps[-1].result == "UNRATED, NO_RATE"
