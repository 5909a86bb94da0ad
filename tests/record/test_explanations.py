"""ExplainCdr: a stored CDR rated again, with the rates and rules of its revision, and the
differences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.world import NOON_NS, World, call, calls
from tollwire.service.domain.errors import InvalidInput, NotFound, Reason
from tollwire.service.domain.model import (
    CdrFilter,
    Direction,
    ReversalRequest,
    Rounding,
    UnratedReason,
)
from tollwire.service.domain.record_model import ExplainedCdr, LedgerEntryKind
from tollwire.service.domain.request import Caller, Request, Role, Scope
from tollwire.service.domain.thread_context import handling
from tollwire.service.record.explanations import Explanations

WHY = ReversalRequest("wrong price list", "anna@noc-1")


@pytest.fixture
def payer(world: World) -> int:
    return world.tenant(country_code="44", national_prefix="0", rounding=Rounding.UP)


def explain(world: World, cdr_id: int = 0, tenant_id: int = 0, call_id: str = "") -> ExplainedCdr:
    return Explanations(world.database).explain_cdr(cdr_id, tenant_id, call_id)


def steps(found: ExplainedCdr) -> dict[str, str]:
    return {step.name: step.result for step in found.explanation.steps}


def test_with_the_rates_and_rules_of_its_time(world: World, payer: int) -> None:
    """After any change: rates changed, deleted, replaced; another rounding of the tenant."""
    winner = world.rate(payer, "447", 1500, 6, minimum_seconds=30)
    short = world.rate(payer, "44", 200, 6)
    over = world.rate(payer, "4479", 1, 1, effective_to_ns=NOON_NS)
    cdr = world.cdrs.create(call(payer, "07911-1", 7, call_id="a"))
    before = explain(world, cdr.id)
    world.rates.update(replace(winner, minimum_seconds=99), frozenset({"minimum_seconds"}), "")
    world.rates.delete(short.id, "")
    world.rate(payer, "44791", 7, 7)
    world.tenants.update(
        replace(world.tenants.get(payer), rounding=Rounding.DOWN, country_code="49"),
        frozenset({"rounding", "country_code"}),
    )
    found = explain(world, cdr.id)
    assert found == before
    assert found.cdr == cdr
    assert found.explanation.normalized_number == "4479111"
    assert [(one.rate_id, one.won, one.in_effect) for one in found.explanation.considered] == [
        (over.id, False, False),
        (winner.id, True, True),
        (short.id, False, True),
    ]
    assert steps(found)["minimum"] == "30"
    assert steps(found)["cost"] == "0.0750"
    assert found.differences == ()
    [entry] = found.ledger_entries
    assert (entry.kind, entry.row_id, entry.row_count) == (LedgerEntryKind.RECORDED, cdr.id, 1)


def test_one_that_was_priced_late_and_reversed(world: World, payer: int) -> None:
    world.commit(0, 0, calls(payer, 0, 3, number="33"))
    unrated = explain(world, 0, payer, "c1")
    assert steps(unrated)["match"] == "UNRATED, NO_RATE"
    assert (unrated.differences, unrated.unrated_steps) == ((), ())
    world.rate(payer, "33")
    world.cdrs.rate_unrated(payer, None, None)
    world.reversals.reverse_cdr(unrated.cdr.id, WHY)
    found = explain(world, unrated.cdr.id)
    assert found.differences == ()
    [step] = found.unrated_steps
    assert (step.unrated_reason, step.new_unrated_reason) == (UnratedReason.NO_RATE, None)
    assert step.rate_revision == unrated.cdr.rate_revision < found.cdr.rate_revision
    kinds = [(entry.kind, entry.row_count) for entry in found.ledger_entries]
    assert kinds == [
        (LedgerEntryKind.RECORDED, 3),
        (LedgerEntryKind.PRICED, 3),
        (LedgerEntryKind.REVERSED, 1),
    ]
    assert found.cdr.reversal is not None
    assert found.ledger_entries[2].row_id == found.cdr.reversal.id
    assert len({entry.hash for entry in found.ledger_entries}) == 3


def test_old_and_new_are_linked(world: World, payer: int) -> None:
    """A call that is reversed and recorded again, twice, with other content each time."""
    world.rate(payer, "44", 200, 6)
    found = []
    for seconds in (7, 60, 90):
        found.append(world.cdrs.create(call(payer, seconds=seconds, call_id="a")).id)
        if len(found) < 3:
            world.reversals.reverse_cdr(found[-1], WHY)
    world.cdrs.create(call(payer, call_id="b"))
    other = world.tenant()
    world.reversals.reverse_cdr(world.cdrs.create(call(other, call_id="a")).id, WHY)
    first, second, third = found
    links = dict.fromkeys((first, second, third), (0, 0))
    links |= {first: (0, second), second: (first, third), third: (second, 0)}
    for cdr_id, expected in links.items():
        explained = explain(world, cdr_id)
        assert (explained.replaces_cdr_id, explained.replaced_by_cdr_id) == expected
        shown = world.cdrs.get(cdr_id)
        assert (shown.replaces_cdr_id, shown.replaced_by_cdr_id) == expected
    listed = world.cdrs.list(CdrFilter(), 0, "").items
    assert {one.id: (one.replaces_cdr_id, one.replaced_by_cdr_id) for one in listed} == (
        dict.fromkeys((one.id for one in listed), (0, 0)) | links
    )
    assert explain(world, 0, payer, "a").cdr.id == third
    world.reversals.reverse_cdr(third, WHY)
    assert explain(world, 0, payer, "a").cdr.id == third


@pytest.mark.parametrize(
    ("fields", "name", "result"),
    [
        ({"direction": Direction.INBOUND}, "billable", "NOT_BILLABLE"),
        ({"destination_number": "anonymous"}, "normalisation", "UNRATED, INVALID_NUMBER"),
        ({"destination_number": "+49 1"}, "blocked", "UNRATED, BLOCKED"),
        ({"duration_seconds": 0, "destination_number": "+44"}, "cost", "0.0000"),
    ],
)
def test_calls_without_a_price(
    world: World, payer: int, fields: dict[str, Any], name: str, result: str
) -> None:
    world.rate(payer, "44")
    world.rate(payer, "49", blocked=True)
    cdr = world.cdrs.create(replace(call(payer, call_id="a"), **fields))
    found = explain(world, cdr.id)
    assert steps(found)[name] == result
    assert found.differences == ()


def test_differences_are_reported(world: World, payer: int) -> None:
    """Also a difference that VerifyCdrs cannot detect: another rate should have won."""
    dear = world.rate(payer, "447", 1500, 6)
    world.rate(payer, "44", 200, 6)
    cdr = world.cdrs.create(call(payer, "447911", 60, call_id="a"))
    assert cdr.rate and cdr.rate.id == dear.id
    with world.database.write() as connection:
        if world.database.is_sqlite:
            for (name,) in connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            connection.exec_driver_sql("ALTER TABLE rate_versions DISABLE TRIGGER ALL")
            connection.exec_driver_sql("ALTER TABLE ledger_entries DISABLE TRIGGER ALL")
        connection.exec_driver_sql(
            f"UPDATE rate_versions SET prefix = '99' WHERE version_id = {dear.version_id}"
        )
        connection.exec_driver_sql("DELETE FROM ledger_entries")
    found = explain(world, cdr.id)
    fields = {one.field: (one.stored, one.recomputed) for one in found.differences}
    assert fields["cost"] == ("0.1500", "0.0200")
    assert fields["rate"][0] == f"version {dear.version_id}"
    assert "ledger_entries" in fields
    assert found.ledger_entries == ()


def test_the_cdr_of_a_call_id(world: World, payer: int) -> None:
    other = world.tenant()
    cdr = world.cdrs.create(call(payer, call_id="a"))
    assert explain(world, cdr.id, payer).cdr == explain(world, 0, payer, "a").cdr == cdr
    bad: list[tuple[tuple[int, int, str], str]] = [
        ((0, 0, ""), "id"),
        ((-1, 0, ""), "id"),
        ((0, 0, "a"), "tenant_id"),
        ((cdr.id, payer, "a"), "call_id"),
        ((0, payer, "x" * 256), "call_id"),
    ]
    for arguments, field in bad:
        with pytest.raises(InvalidInput) as wrong:
            explain(world, *arguments)
        assert [one.field for one in wrong.value.violations] == [field]
    absent: list[tuple[tuple[int, int, str], Reason]] = [
        ((cdr.id + 10**6, 0, ""), Reason.CDR_NOT_FOUND),
        ((cdr.id, other, ""), Reason.CDR_NOT_FOUND),
        ((0, other, "a"), Reason.CDR_NOT_FOUND),
        ((0, 10**9, "a"), Reason.TENANT_NOT_FOUND),
    ]
    for arguments, reason in absent:
        with pytest.raises(NotFound) as missing:
            explain(world, *arguments)
        assert missing.value.reason == reason
    stranger = Caller("ben", Role.READER, Scope(frozenset({other})))
    with handling(Request(caller=stranger)):
        for arguments in ((cdr.id, 0, ""), (0, payer, "a")):
            with pytest.raises(NotFound):
                explain(world, *arguments)
