"""RateUnrated: the only permitted change of a stored CDR, and only once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.client import (
    BUSY,
    NOON_NS,
    RATED,
    SECOND_NS,
    UNRATED,
    Client,
    chunk,
    invalid,
    make_call,
    make_rate,
    not_found,
    timestamp,
)
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

MAX_ID = 2**63 - 1


def rate_unrated(client: Client, **fields: Any) -> tuple[int, int, int]:
    """examined, rated, still_unrated"""
    answer = client.cdrs.RateUnrated(cdr_pb.RateUnratedRequest(**fields))
    return (answer.examined, answer.rated, answer.still_unrated)


def test_unrated_cdrs_are_priced_once(client: Client, tenant: types.Tenant) -> None:
    waiting = client.create_cdr(make_call(tenant.id, "4420", 7, call_id="a"))
    hopeless = client.create_cdr(make_call(tenant.id, "anonymous", 7, call_id="b"))
    other = client.create_cdr(make_call(tenant.id, "33", 7, call_id="c"))
    free = client.create_cdr(make_call(tenant.id, "4420", 7, call_id="d", disposition=BUSY))
    assert rate_unrated(client, tenant_id=tenant.id) == (3, 0, 3)
    rate = client.new_rate(tenant.id, "44", "0.0200", 6, destination="UK")
    assert rate_unrated(client, tenant_id=tenant.id) == (3, 1, 2)
    priced = client.get_cdr(waiting.id)
    assert (priced.status, priced.unrated_reason) == (RATED, 0)
    assert (priced.bill_seconds, priced.cost) == (12, "0.0040")
    assert priced.rate == rate
    assert priced.matched_prefix == "44"
    assert priced.rate_revision > waiting.rate_revision
    expected = types.Cdr()
    expected.CopyFrom(waiting)
    expected.ClearField("unrated_reason")
    for name in ("status", "bill_seconds", "cost", "rate_revision", "matched_prefix"):
        setattr(expected, name, getattr(priced, name))
    expected.rate.CopyFrom(rate)
    assert priced == expected
    # A higher rate afterwards changes nothing.
    client.update_rate(make_rate("44", "5", id=rate.id))
    assert rate_unrated(client, tenant_id=tenant.id) == (2, 0, 2)
    assert client.get_cdr(waiting.id) == priced
    for untouched in (hopeless, other, free):
        assert client.get_cdr(untouched.id).status == untouched.status
    assert client.get_cdr(free.id) == free


def test_each_call_is_rated_as_of_its_start(client: Client, tenant: types.Tenant) -> None:
    before = client.create_cdr(make_call(tenant.id, call_id="a", started_at=NOON_NS - 1))
    after = client.create_cdr(make_call(tenant.id, call_id="b", started_at=NOON_NS))
    client.new_rate(tenant.id, "44", "1", effective_to=NOON_NS)
    client.new_rate(tenant.id, "44", "2", effective_from=NOON_NS)
    assert rate_unrated(client, tenant_id=tenant.id) == (2, 2, 0)
    assert client.get_cdr(before.id).cost == "1.0000"
    assert client.get_cdr(after.id).cost == "2.0000"


def test_a_call_that_stays_unrated_gets_the_present_reason(
    client: Client, tenant: types.Tenant
) -> None:
    """A call that had no rate and is blocked now stays UNRATED and without a cost."""
    cdr = client.create_cdr(make_call(tenant.id, "4490"))
    assert cdr.unrated_reason == types.UNRATED_REASON_NO_RATE
    client.new_rate(tenant.id, "4490", blocked=True)
    assert rate_unrated(client, tenant_id=tenant.id) == (1, 0, 1)
    now = client.get_cdr(cdr.id)
    assert now.status == UNRATED
    assert not now.HasField("cost")
    assert not now.HasField("rate")


def test_a_changed_dialling_rule_can_rate_invalid_numbers(client: Client) -> None:
    tenant = client.new_tenant()
    client.new_rate(tenant.id, "44", "1")
    cdr = client.create_cdr(make_call(tenant.id, "020 7946"))
    assert cdr.status == UNRATED
    changed = types.Tenant(id=tenant.id, country_code="44", national_prefix="0")
    client.tenants.UpdateTenant(tenant_pb.UpdateTenantRequest(tenant=changed))
    assert rate_unrated(client, tenant_id=tenant.id) == (1, 1, 0)
    now = client.get_cdr(cdr.id)
    assert now.cost == "1.0000"
    assert now.tenant.country_code == "44"
    assert now.destination_number == "020 7946"


def test_only_the_period_and_the_tenant_are_rated(client: Client, tenant: types.Tenant) -> None:
    starts = {name: NOON_NS + offset for name, offset in [("a", -1), ("b", 0), ("c", 5), ("d", 9)]}
    for name, start in starts.items():
        client.create_cdr(make_call(tenant.id, call_id=name, started_at=start))
    other = client.new_tenant()
    client.create_cdr(make_call(other.id, call_id="a"))
    client.new_rate(tenant.id, "44", "1")
    client.new_rate(other.id, "44", "1")
    window = {"started_after": timestamp(NOON_NS), "started_before": timestamp(NOON_NS + 9)}
    assert rate_unrated(client, tenant_id=tenant.id, **window) == (2, 2, 0)
    rated = client.list_cdrs(tenant_id=tenant.id, status=RATED)
    assert [cdr.call_id for cdr in rated] == ["c", "b"]
    assert [cdr.status for cdr in client.list_cdrs(tenant_id=other.id)] == [UNRATED]
    # All tenants: both of these, and any other with unrated calls.
    examined, rated_count, still = rate_unrated(client)
    assert rated_count >= 3
    assert examined == rated_count + still
    assert client.list_cdrs(tenant_id=other.id, status=UNRATED) == []
    assert client.list_cdrs(tenant_id=tenant.id, status=UNRATED) == []


def test_a_cost_above_the_limit_stays_unrated(client: Client, tenant: types.Tenant) -> None:
    cdr = client.create_cdr(make_call(tenant.id, "44", 2_147_483_647))
    client.new_rate(tenant.id, "44", "99999999.9999")
    assert rate_unrated(client, tenant_id=tenant.id) == (1, 0, 1)
    assert client.get_cdr(cdr.id).status == UNRATED


def test_many_uploaded_calls(client: Client, tenant: types.Tenant) -> None:
    calls = [
        make_call(tenant.id, "4420", 6, call_id=str(index), started_at=NOON_NS + index)
        for index in range(2500)
    ]
    [answer] = client.upload(chunk(calls))
    assert (answer.created, answer.unrated) == (2500, 2500)
    client.new_rate(tenant.id, "44", "0.0200", 6)
    assert rate_unrated(client, tenant_id=tenant.id) == (2500, 2500, 0)
    cdrs = client.list_cdrs(tenant_id=tenant.id, page_size=1000)
    assert {(cdr.status, cdr.cost) for cdr in cdrs} == {(RATED, "0.0020")}
    # The upload's own counts stay those of its time.
    assert client.get_upload(answer.upload_id).unrated == 2500


@pytest.mark.parametrize("tenant_id", [-1, MAX_ID])
def test_tenants_that_are_refused(client: Client, tenant_id: int) -> None:
    with invalid("tenant_id") if tenant_id < 0 else not_found("TENANT_NOT_FOUND"):
        rate_unrated(client, tenant_id=tenant_id)


def test_a_window_that_is_empty_examines_nothing(client: Client, tenant: types.Tenant) -> None:
    client.create_cdr(make_call(tenant.id))
    client.new_rate(tenant.id, "44")
    window = {
        "started_after": timestamp(NOON_NS + SECOND_NS),
        "started_before": timestamp(NOON_NS + SECOND_NS),
    }
    assert rate_unrated(client, tenant_id=tenant.id, **window) == (0, 0, 0)
    window["started_before"] = timestamp(NOON_NS)
    with invalid("started_before"):
        rate_unrated(client, tenant_id=tenant.id, **window)


def test_the_queue_by_reason(client: Client, tenant: types.Tenant) -> None:
    """Listed by reason, counted by reason, and in neither after it is priced."""
    client.new_rate(tenant.id, "99", blocked=True)
    numbers = {
        types.UNRATED_REASON_NO_RATE: ["4420", "4421"],
        types.UNRATED_REASON_BLOCKED: ["99", "991", "992"],
        types.UNRATED_REASON_INVALID_NUMBER: ["anonymous"],
    }
    calls = [make_call(tenant.id, one, 7) for listed in numbers.values() for one in listed]
    free = make_call(tenant.id, "4420", 0, disposition=BUSY)
    client.upload(chunk([*calls, free]))

    def listed() -> dict[int, list[str]]:
        return {
            reason: sorted(
                cdr.destination_number
                for cdr in client.list_cdrs(tenant_id=tenant.id, unrated_reason=reason)
            )
            for reason in numbers
        }

    def counted() -> dict[str, tuple[int, int]]:
        group_by = [types.USAGE_DIMENSION_UNRATED_REASON]
        request = cdr_pb.SummarizeUsageRequest(tenant_id=tenant.id, group_by=group_by)
        rows = client.cdrs.SummarizeUsage(request).rows
        return {row.keys[0]: (row.calls, row.unrated) for row in rows}

    assert listed() == numbers
    assert counted() == {
        "": (1, 0),
        "NO_RATE": (2, 2),
        "BLOCKED": (3, 3),
        "INVALID_NUMBER": (1, 1),
    }
    client.new_rate(tenant.id, "44", "0.0200", 6)
    assert rate_unrated(client, tenant_id=tenant.id) == (6, 2, 4)
    assert listed() == numbers | {types.UNRATED_REASON_NO_RATE: []}
    assert counted() == {"": (3, 0), "BLOCKED": (3, 3), "INVALID_NUMBER": (1, 1)}
