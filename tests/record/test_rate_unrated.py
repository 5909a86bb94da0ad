"""RateUnrated: the only change that a recorded CDR may have, and only once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.world import NOON_NS, World, at_once, call, calls
from tollwire.service.domain.errors import InvalidInput, NotFound, Reason
from tollwire.service.domain.model import (
    Direction,
    RatingStatus,
    ReversalRequest,
    Tenant,
    UnratedReason,
)
from tollwire.service.domain.record_model import UnratedOutcome, VerificationFilter
from tollwire.service.record import cdrs
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.reversals import Reversals
from tollwire.service.record.verification import Verification
from tollwire.service.storage import unrated
from tollwire.service.storage.engine import Database


@pytest.fixture
def payer(world: World) -> int:
    return world.tenant()


def rate_unrated(
    world: World, tenant_id: int = 0, after_ns: int | None = None, before_ns: int | None = None
) -> tuple[int, int, int]:
    """examined, rated, still_unrated"""
    outcome = world.cdrs.rate_unrated(tenant_id, after_ns, before_ns)
    return (outcome.examined, outcome.rated, outcome.still_unrated)


def test_each_is_priced_once_and_nothing_else_changes(world: World, payer: int) -> None:
    waiting = world.cdrs.create(
        call(payer, "+44 20", 7, call_id="a", extension_id=world.extension(payer), ended_at_ns=None)
    )
    hopeless = world.cdrs.create(call(payer, "anonymous", call_id="b"))
    free = world.cdrs.create(call(payer, call_id="c", direction=Direction.INBOUND))
    assert rate_unrated(world, payer) == (2, 0, 2)
    assert world.cdrs.get(waiting.id) == waiting
    rate = world.rate(payer, "44", 200, 6)
    assert rate_unrated(world, payer) == (2, 1, 1)
    priced = world.cdrs.get(waiting.id)
    assert priced == replace(
        waiting,
        status=RatingStatus.RATED,
        unrated_reason=None,
        bill_seconds=12,
        cost_e8=40_0000,
        rate=rate,
        rate_revision=world.decks.deck(payer).revision,
    )
    world.rates.update(
        replace(rate, cost_per_minute_e8=9_0000), frozenset({"cost_per_minute_e8"}), ""
    )
    assert rate_unrated(world, payer) == (1, 0, 1)
    for cdr in (priced, hopeless, free):
        assert world.cdrs.get(cdr.id) == cdr
    # The same call again is still a duplicate.
    assert world.cdrs.create(waiting.call) == priced


def test_each_is_rated_as_of_its_start_by_the_present_rules(world: World, payer: int) -> None:
    before = world.cdrs.create(call(payer, "020 1", 60, call_id="a", started_at_ns=NOON_NS - 1))
    after = world.cdrs.create(call(payer, "020 1", 60, call_id="b", started_at_ns=NOON_NS))
    assert rate_unrated(world) == (2, 0, 2)
    world.rate(payer, "44", 1, effective_to_ns=NOON_NS)
    world.rate(payer, "44", 2, effective_from_ns=NOON_NS)
    world.tenants.update(
        Tenant(id=payer, country_code="44", national_prefix="0"),
        frozenset({"country_code", "national_prefix"}),
    )
    assert rate_unrated(world) == (2, 2, 0)
    assert [world.cdrs.get(cdr.id).cost_e8 for cdr in (before, after)] == [1_0000, 2_0000]
    assert world.cdrs.get(before.id).tenant.country_code == "44"


def test_a_reason_that_no_longer_holds_is_corrected(world: World, payer: int) -> None:
    """From each reason to each other one, and then to a price; the ledger has every step."""
    number = "0-1-44"
    one = world.cdrs.create(call(payer, number, call_id="a"))
    dear = world.cdrs.create(call(payer, "99", 2_147_483_647, call_id="b"))
    invalid = world.cdrs.create(call(payer, "5" * 32, call_id="c"))
    assert {cdr.unrated_reason for cdr in (one, dear, invalid)} == {UnratedReason.NO_RATE}
    world.rate(payer, "99", 99_999_999_9999)
    steps = []

    def step(*expected: int) -> None:
        outcome = world.cdrs.rate_unrated(payer, None, None)
        found = (outcome.examined, outcome.rated, outcome.still_unrated, outcome.reason_corrected)
        assert found == expected
        now = world.cdrs.get(one.id)
        revision = world.decks.deck(payer).revision
        if steps and now.unrated_reason != steps[-1]:
            assert now.rate_revision == revision
        steps.append(now.unrated_reason)
        assert now == replace(
            *(one,),
            **{
                name: getattr(now, name)
                for name in ("status", "unrated_reason", "bill_seconds", "cost_e8", "rate")
            },
            rate_revision=now.rate_revision,
            tenant=now.tenant,
        )
        assert list(Ledger(world.database).verify(""))[-1].differences == ()
        # A second time there is nothing to do.
        again = world.cdrs.rate_unrated(payer, None, None)
        assert (again.rated, again.reason_corrected) == (0, 0)

    step(3, 0, 3, 0)
    rate = world.rate(payer, "0144", blocked=True)
    step(3, 0, 3, 1)
    # The rules make the number too long, and then short again.
    rules = frozenset({"country_code", "national_prefix"})
    world.tenants.update(Tenant(id=payer, country_code="4444", national_prefix="5"), rules)
    step(3, 0, 3, 1)
    assert world.cdrs.get(invalid.id).unrated_reason == UnratedReason.INVALID_NUMBER
    world.tenants.update(Tenant(id=payer), rules)
    world.rates.delete(rate.id, "")
    step(3, 0, 3, 2)
    rate = world.rate(payer, "0144", blocked=True)
    step(3, 0, 3, 1)
    world.rates.update(replace(rate, blocked=False), frozenset({"blocked"}), "")
    step(3, 1, 2, 0)
    assert steps == [
        *(UnratedReason.NO_RATE, UnratedReason.BLOCKED, UnratedReason.BLOCKED),
        *(UnratedReason.NO_RATE, UnratedReason.BLOCKED, None),
    ]
    # A cost that overflows has no reason: the reason stays as it was.
    assert world.cdrs.get(dear.id) == dear
    verified = list(Verification(world.database).verify(VerificationFilter()))
    assert verified[-1].different == 0


def test_a_reversed_call_keeps_its_reason(world: World, payer: int) -> None:
    one = world.cdrs.create(call(payer, "4490", call_id="a"))
    Reversals(world.database).reverse_cdr(one.id, ReversalRequest("wrong", "me"))
    world.rate(payer, "4490", blocked=True)
    assert world.cdrs.rate_unrated(payer, None, None) == UnratedOutcome(0, 0, 0, 0)
    assert world.cdrs.get(one.id).unrated_reason == UnratedReason.NO_RATE


def test_two_at_once_correct_a_reason_once(world: World, payer: int) -> None:
    world.commit(0, 0, [replace(one, destination_number="33") for one in calls(payer, 0, 1500)])
    world.rate(payer, "33", blocked=True)
    outcomes = at_once(*[lambda: world.cdrs.rate_unrated(payer, None, None)] * 2)
    assert sum(outcome.reason_corrected for outcome in outcomes) == 1500
    assert list(Ledger(world.database).verify(""))[-1].differences == ()


def test_only_the_tenant_and_the_period_are_rated(world: World, payer: int) -> None:
    other = world.tenant()
    world.commit(0, 0, [*calls(payer, 0, 10), *calls(other, 0, 10)])
    for tenant_id in (payer, other):
        world.rate(tenant_id, "44")
    assert rate_unrated(world, payer, NOON_NS + 2, NOON_NS + 5) == (3, 3, 0)
    priced = {row.call_id for row in world.rows() if row.status == RatingStatus.RATED}
    assert priced == {"c2", "c3", "c4"}
    assert rate_unrated(world, 0, None, NOON_NS + 1) == (2, 2, 0)
    assert rate_unrated(world, other, NOON_NS + 9) == (1, 1, 0)
    assert rate_unrated(world, 0, NOON_NS + 3, NOON_NS + 3) == (0, 0, 0)
    assert rate_unrated(world) == (14, 14, 0)
    assert rate_unrated(world) == (0, 0, 0)


def test_calls_that_stay_unrated_do_not_stop_the_others(world: World, payer: int) -> None:
    """Several transactions, with calls without a price before, among and behind those with one."""
    other = world.tenant()
    records = [
        replace(one, destination_number="33" if index % 3 else "4420")
        for tenant_id in (payer, other)
        for index, one in enumerate(calls(tenant_id, 0, 2400))
    ]
    assert world.commit(0, 0, records).unrated == 4800
    assert cdrs.RATE_UNRATED_ROWS * 2 < 2400
    world.rate(payer, "44")
    world.rate(other, "44")
    assert rate_unrated(world) == (4800, 1600, 3200)
    assert rate_unrated(world) == (3200, 0, 3200)
    world.rate(payer, "33")
    assert rate_unrated(world) == (3200, 1600, 1600)
    assert rate_unrated(world, payer) == (0, 0, 0)


@pytest.mark.parametrize("tenant_id", [-1, 10**9])
def test_tenants_that_are_refused(world: World, tenant_id: int) -> None:
    with pytest.raises((InvalidInput, NotFound)) as failure:
        rate_unrated(world, tenant_id)
    expected = Reason.INVALID_FIELD if tenant_id < 0 else Reason.TENANT_NOT_FOUND
    assert failure.value.reason == expected


def test_a_period_that_ends_before_it_begins_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput) as failure:
        rate_unrated(world, 0, 1, 0)
    assert [wrong.field for wrong in failure.value.violations] == ["started_before"]


def test_it_continues_after_an_interruption(
    world: World, payer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.commit(0, 0, calls(payer, 0, 2500))
    world.rate(payer, "44")
    price: Any = unrated.price
    turns = iter([True, False])

    def breaks(*arguments: Any) -> int:
        if not next(turns):
            price(*arguments)
            raise RuntimeError("broken off")
        return int(price(*arguments))

    with monkeypatch.context() as patched:
        patched.setattr("tollwire.service.storage.unrated.price", breaks)
        with pytest.raises(RuntimeError):
            rate_unrated(world)
    assert rate_unrated(world) == (1500, 1500, 0)


def test_two_concurrent_requests_price_no_call_twice(world: World, payer: int) -> None:
    database = Database(world.database.engine.url.render_as_string(hide_password=False))
    other = World.over(database)
    records = [
        replace(one, destination_number="33" if index % 10 == 0 else "4420")
        for index, one in enumerate(calls(payer, 0, 3000))
    ]
    world.commit(0, 0, records)
    world.rate(payer, "44")
    outcomes = at_once(
        lambda: world.cdrs.rate_unrated(0, None, None),
        lambda: other.cdrs.rate_unrated(0, None, None),
        lambda: world.commit(0, 0, calls(payer, 3000, 500)),
    )[:2]
    database.close()
    assert all(isinstance(outcome, UnratedOutcome) for outcome in outcomes), outcomes
    assert sum(outcome.rated for outcome in outcomes) == 2700
    assert all(outcome.still_unrated == 300 for outcome in outcomes)
    statuses = [row.status for row in world.rows()]
    assert statuses.count(RatingStatus.UNRATED) == 300
    assert len(statuses) == 3500
