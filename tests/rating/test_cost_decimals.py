"""The number of decimals of a tenant's costs: from rating to usage, and the effect of a change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.world import World, call, calls
from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import (
    MAX_PRICE_E8,
    Rate,
    ReversalRequest,
    Tenant,
    UsageDimension,
    UsageQuery,
)
from tollwire.service.domain.record_model import VerificationFilter
from tollwire.service.rating.calls import Calls
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.verification import Verification
from tollwire.service.rpc.conversion.cdrs import cdr as as_message
from tollwire.service.rpc.conversion.usage import usage as usage_message


def _rate(world: World, tenant_id: int, **fields: int) -> Rate:
    return world.rates.create(Rate(tenant_id=tenant_id, prefix="44", billing_increment=1, **fields))


def _set_decimals(world: World, tenant_id: int, decimals: int) -> None:
    changed = Tenant(id=tenant_id, cost_decimals=decimals)
    world.tenants.update(changed, frozenset({"cost_decimals"}))


def _holds(world: World) -> bool:
    parts: list[Any] = [
        *Verification(world.database).verify(VerificationFilter()),
        *Ledger(world.database).verify(""),
    ]
    return not any(part.differences for part in parts)


@pytest.mark.parametrize(
    ("decimals", "cost"),
    # 7 s of 0.00137 a minute are 0.000159833…
    [(4, "0.0002"), (5, "0.00016"), (6, "0.000160"), (7, "0.0001598"), (8, "0.00015983")],
)
def test_a_cost_has_the_decimals_of_its_tenant(world: World, decimals: int, cost: str) -> None:
    tenant_id = world.tenant(cost_decimals=decimals)
    _rate(world, tenant_id, cost_per_minute_e8=13_7000)
    created = world.cdrs.create(call(tenant_id, "44", 7))
    shown = as_message(created)
    assert (shown.cost, shown.rate.cost_per_minute) == (cost, "0.00137")
    assert shown.tenant.cost_decimals == decimals
    world.commit(0, 0, calls(tenant_id, 0, 3, number="44", seconds=7))
    assert {row.cost_fraction_e8 for row in world.rows()} == {created.cost_e8}
    taken_back = world.reversals.reverse_cdr(created.id, ReversalRequest("why", "who"))
    assert as_message(taken_back).reversal.cost == f"-{cost}"
    assert _holds(world)


def test_a_call_that_is_not_billable_costs_0_with_as_many(world: World) -> None:
    tenant_id = world.tenant(cost_decimals=6)
    free = world.cdrs.create(call(tenant_id, "44", 7, direction=1))
    assert as_message(free).cost == "0.000000"


def test_a_change_holds_for_calls_rated_from_then_on(world: World) -> None:
    tenant_id = world.tenant()
    _rate(world, tenant_id, cost_per_minute_e8=13_7000)
    before = world.cdrs.create(call(tenant_id, "44", 7, call_id="before"))
    late = world.cdrs.create(call(tenant_id, "33", 7, call_id="late"))
    _set_decimals(world, tenant_id, 8)
    after = world.cdrs.create(call(tenant_id, "44", 7, call_id="after"))
    world.rates.create(
        Rate(tenant_id=tenant_id, prefix="33", cost_per_minute_e8=13_7000, billing_increment=1)
    )
    assert world.cdrs.rate_unrated(tenant_id, None, None).rated == 1
    _set_decimals(world, tenant_id, 5)
    shown = [as_message(world.cdrs.get(one.id)) for one in (before, after, late)]
    assert [one.cost for one in shown] == ["0.0002", "0.00015983", "0.00015983"]
    assert [one.tenant.cost_decimals for one in shown] == [4, 8, 8]
    assert _holds(world)


def test_a_sum_is_exact_and_has_the_decimals_that_are_needed(world: World) -> None:
    first, second = world.tenant(cost_decimals=6), world.tenant()
    for tenant_id in (first, second):
        _rate(world, tenant_id, cost_per_minute_e8=60_0000)
        world.cdrs.create(call(tenant_id, "44", 7))

    def costs(**asked: object) -> list[str]:
        query = UsageQuery(**asked)
        rows = usage_message(world.usage.summarize(query)).rows
        assert all(row.corrected.cost == row.cost for row in rows)
        return [row.cost for row in rows]

    assert costs() == ["0.001400"]
    assert costs(tenant_id=first) == ["0.000700"]
    assert costs(tenant_id=second) == ["0.0007"]
    assert costs(group_by=(UsageDimension.TENANT,)) == ["0.000700", "0.0007"]
    assert costs(tenant_id=first, started_before_ns=0) == ["0.000000"]
    _set_decimals(world, first, 8)
    world.cdrs.create(call(first, "44", 1, call_id="fine"))
    rate = world.rates.list(first, "", 1, "").items[0]
    fine = replace(rate, cost_per_minute_e8=1)
    world.rates.update(fine, frozenset({"cost_per_minute_e8"}), "")
    world.cdrs.create(call(first, "44", 59, call_id="finer"))
    _set_decimals(world, first, 4)
    assert costs(tenant_id=first) == ["0.00080001"]


@pytest.mark.parametrize(("decimals", "digits"), [(4, 15), (5, 13), (6, 12), (7, 11), (8, 10)])
def test_a_cost_beyond_its_limit_is_refused(world: World, decimals: int, digits: int) -> None:
    tenant_id = world.tenant(cost_decimals=decimals)
    world.rates.create(
        Rate(
            tenant_id=tenant_id,
            prefix="44",
            cost_per_minute_e8=MAX_PRICE_E8,
            billing_increment=60,
        )
    )
    minutes = 10 ** (digits - 8)
    words = f"{digits} digits before the point, the limit of a tenant with cost_decimals {decimals}"
    calls_ = Calls(world.decks)
    rated = calls_.rate(call(tenant_id, "44", 60 * minutes))
    assert rated.cost_e8 == 10 ** (digits + 8) - minutes
    if decimals == 4:
        return  # the longest call costs less
    dear = call(tenant_id, "44", 600 * minutes, call_id="dear")
    for price in (calls_.rate, world.cdrs.create):
        with pytest.raises(InvalidInput) as refused:
            price(dear)
        assert [one.description for one in refused.value.violations] == [
            f"the cost would exceed {words}"
        ]
    (batch,) = calls_.rate_batch([dear])
    assert batch.error is not None
    assert words in batch.error.message
    assert words in world.commit(0, 0, [dear]).failures[0].message


@pytest.mark.parametrize("decimals", [-1, 1, 3, 9, 2**31 - 1])
def test_other_numbers_of_decimals_are_refused(world: World, decimals: int) -> None:
    with pytest.raises(InvalidInput, match="cost_decimals: must be 4 to 8"):
        world.tenant(cost_decimals=decimals)
