"""ReverseCdrs: the CDRs of a filter or a list are reversed, once, in parts, or only counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.world import NOON_NS, World, at_once, call, calls
from tollwire.service.domain.errors import InvalidInput, NotFound, Reason
from tollwire.service.domain.model import (
    Call,
    CdrFilter,
    Direction,
    Disposition,
    RatingStatus,
    ReversalRequest,
    UnratedReason,
)
from tollwire.service.domain.record_model import ReversalProgress, ReversedCost
from tollwire.service.domain.request import Caller, Request, Role, Scope
from tollwire.service.domain.thread_context import handling
from tollwire.service.record import reversal_parts
from tollwire.service.record.ledger import Ledger

WHY = ReversalRequest("wrong price list", "anna@noc-1")
# A part also has an entry for its line in the audit log.
ENTRIES_OF_CDRS = "SELECT count(*) FROM ledger_entries WHERE kind IN (1, 2, 3)"
NOBODY = ReversalRequest("", "")


def reverse(world: World, wanted: CdrFilter, *, dry_run: bool = False) -> ReversalProgress:
    asked = NOBODY if dry_run else WHY
    *_, last = world.reversals.reverse_cdrs(wanted, asked, dry_run=dry_run)
    assert last.done
    assert last.cdrs == last.reversed + last.reversed_before
    return last


def standing(world: World) -> list[str]:
    """The call_ids of the CDRs that are not reversed."""
    with world.database.read() as connection:
        return list(
            connection.exec_driver_sql(
                "SELECT call_id FROM cdrs WHERE id NOT IN (SELECT cdr_id FROM cdr_reversals)"
                " ORDER BY call_id"
            ).scalars()
        )


def ledger_holds(world: World) -> None:
    *_, last = Ledger(world.database).verify("")
    assert last.done and not last.differences


def recorded(world: World, payer: int) -> dict[str, int]:
    """Calls of all kinds, by their call_ids, and their ids; one of another tenant."""
    stranger = world.tenant()
    world.rate(payer, "447", 1500, 6)
    world.rate(payer, "49", blocked=True)
    extension = world.extension(payer, "101")
    sent = [
        call(payer, "4420", call_id="a"),
        call(payer, "447", call_id="b", extension_id=extension),
        call(payer, "33", call_id="c"),
        call(payer, "49", call_id="d"),
        call(payer, "4420", call_id="e", direction=Direction.INBOUND),
        call(payer, "4420", call_id="f", disposition=Disposition.BUSY),
        call(payer, "4420", call_id="g", started_at_ns=NOON_NS + 9),
        call(stranger, "4420", call_id="z"),
    ]
    return {one.call_id: world.cdrs.create(one).id for one in sent}


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcdefg"),
    ({"direction": Direction.INBOUND}, "e"),
    ({"disposition": Disposition.BUSY}, "f"),
    ({"status": RatingStatus.RATED}, "abg"),
    ({"status": RatingStatus.UNRATED}, "cd"),
    ({"unrated_reason": UnratedReason.BLOCKED}, "d"),
    ({"started_after_ns": NOON_NS + 9}, "g"),
    ({"started_after_ns": NOON_NS, "started_before_ns": NOON_NS + 9}, "abcdef"),
    ({"matched_prefix": "44"}, "ag"),
    ({"matched_prefix": "44", "started_before_ns": NOON_NS + 1}, "a"),
    ({"extension_number": "101"}, "b"),
    ({"call_ids": ("a", "c", "a")}, "ac"),
    ({"call_ids": ("a", "c"), "status": RatingStatus.RATED}, "a"),
    ({"started_after_ns": NOON_NS + 10}, ""),
]


@pytest.mark.parametrize(("fields", "expected"), FILTERS)
def test_matching_cdrs_are_reversed_and_no_others(
    world: World, payer: int, fields: dict[str, Any], expected: str
) -> None:
    ids = recorded(world, payer)
    wanted = CdrFilter(tenant_id=payer, **fields)
    rows = world.rows()
    counted = reverse(world, wanted, dry_run=True)
    assert standing(world) == sorted(ids)
    assert reverse(world, wanted) == counted
    assert (counted.cdrs, counted.reversed_before) == (len(expected), 0)
    assert standing(world) == sorted(set(ids) - set(expected))
    assert world.rows() == rows
    again = ReversalProgress(len(expected), 0, len(expected), (), done=True)
    assert reverse(world, wanted, dry_run=True) == reverse(world, wanted) == again
    ledger_holds(world)


def test_the_money_is_that_of_the_cdrs_by_currency(world: World) -> None:
    payers = [world.tenant(currency=currency) for currency in ("USD", "EUR", "USD")]
    ids: list[int] = []
    for tenant_id in payers:
        world.rate(tenant_id, "44", 200, 6)
        world.rate(tenant_id, "9", 99_999_999_9999, 60)
        ids += [world.cdrs.create(one).id for one in calls(tenant_id, 0, 2)]
        ids += [world.cdrs.create(call(tenant_id, "33", call_id="unrated")).id]
    dear = [world.cdrs.create(call(payers[1], "9", 600_000_000, call_id=f"{n}")).id for n in "ab"]
    world.reversals.reverse_cdr(ids[0], WHY)
    wanted = CdrFilter(ids=(*ids, *dear, ids[1]))
    expected = ReversalProgress(
        *(11, 10, 1),
        costs=(
            ReversedCost("EUR", 5, 2 * 40_0000 + 2 * 999_999_999_999_000_0000_0000, 1),
            ReversedCost("USD", 5, 3 * 40_0000, 2),
        ),
        done=True,
    )
    assert reverse(world, wanted, dry_run=True) == expected
    assert reverse(world, wanted) == expected


@pytest.mark.usefixtures("small_parts")
def test_in_parts_with_an_entry_each(world: World, payer: int) -> None:
    answer = world.commit(0, 0, calls(payer, 0, 20))
    world.commit(0, 0, calls(payer, 20, 5))
    wanted = CdrFilter(tenant_id=payer, started_after_ns=0)
    with world.database.read() as connection:
        before = connection.exec_driver_sql(ENTRIES_OF_CDRS).scalar_one()
    stream = world.reversals.reverse_cdrs(wanted, WHY, dry_run=False)
    assert isinstance(stream, Iterator)
    *_, last = stream
    assert (last.cdrs, last.reversed) == (25, 25)
    with world.database.read() as connection:
        after = connection.exec_driver_sql(ENTRIES_OF_CDRS).scalar_one()
        audited = connection.exec_driver_sql(
            "SELECT resource, after FROM audit_entries WHERE action = 'ReverseCdrs' ORDER BY id"
        ).all()
    assert after - before == len(audited) == 4
    assert {resource for resource, _ in audited} == {f"tenant/{payer}"}
    assert [json.loads(text)["reversed"] for _, text in audited] == [7, 7, 7, 4]
    ledger_holds(world)
    of_upload = reverse(world, CdrFilter(upload_id=answer.upload_id))
    assert (of_upload.cdrs, of_upload.reversed_before) == (20, 20)


@pytest.mark.usefixtures("small_parts")
def test_one_tenants_part_of_an_upload(world: World, payer: int) -> None:
    """The other tenants' calls of the same file stay, and the upload stays open."""
    stranger = world.tenant()
    mixed = [one for n in range(10) for one in (*calls(payer, n, 1), *calls(stranger, n, 1))]
    upload_id = world.commit(0, 0, mixed).upload_id
    world.commit(upload_id, 20, calls(payer, 50, 2))
    world.cdrs.create(call(payer, call_id="alone"))
    wanted = CdrFilter(tenant_id=payer, upload_id=upload_id)
    assert reverse(world, wanted, dry_run=True).reversed == 12
    assert reverse(world, wanted).reversed == 12
    assert len(standing(world)) == 11
    assert world.commit(upload_id, 22, calls(payer, 60, 1)).created == 1


def test_two_at_once_reverse_each_cdr_once(world: World, other: World, payer: int) -> None:
    world.commit(0, 0, calls(payer, 0, 500))
    other.decks.refresh()
    wanted = CdrFilter(tenant_id=payer)
    found = at_once(lambda: reverse(world, wanted), lambda: reverse(other, wanted))
    assert sum(one.reversed for one in found) == 500
    assert {one.cdrs for one in found} == {500}
    ledger_holds(world)


def test_a_call_priced_meanwhile_is_no_longer_unrated(
    world: World, payer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status is checked again when it can no longer change."""
    cdr = world.cdrs.create(call(payer, "33", call_id="late"))
    world.rate(payer, "33")
    taken = reversal_parts.Parts._ids

    def priced_first(parts: Any, connection: Any) -> Any:
        found = taken(parts, connection)
        if found:
            statement = "UPDATE cdrs SET status = 2, unrated_reason = NULL, bill_seconds = 0"
            zero = {name: 0 for name in world.rows()[0]._fields if name.startswith("cost_")}
            zeros = "".join(f", {name} = {value}" for name, value in zero.items())
            connection.exec_driver_sql(f"{statement}{zeros} WHERE id = {cdr.id}")
        return found

    monkeypatch.setattr(reversal_parts.Parts, "_ids", priced_first)
    done = reverse(world, CdrFilter(tenant_id=payer, status=RatingStatus.UNRATED))
    assert (done.cdrs, done.reversed) == (0, 0)


def test_unknown_objects_reverse_nothing(world: World, payer: int) -> None:
    ids = recorded(world, payer)
    absent = max(ids.values()) + 10**6
    cases = [
        (CdrFilter(tenant_id=10**9), Reason.TENANT_NOT_FOUND, ""),
        (CdrFilter(upload_id=10**9), Reason.UPLOAD_NOT_FOUND, ""),
        (CdrFilter(tenant_id=payer, extension_number="9"), Reason.EXTENSION_NOT_FOUND, "'9'"),
        (CdrFilter(ids=(ids["a"], absent)), Reason.CDR_NOT_FOUND, f"no CDR {absent};"),
        (
            CdrFilter(ids=(ids["a"], absent, absent + 1)),
            Reason.CDR_NOT_FOUND,
            f"no CDR {absent}, and 1 others",
        ),
        (CdrFilter(tenant_id=payer, ids=(ids["a"], ids["z"])), Reason.CDR_NOT_FOUND, "of tenant"),
        (CdrFilter(tenant_id=payer, call_ids=("a", "z")), Reason.CDR_NOT_FOUND, "'z'"),
    ]
    for wanted, reason, words in cases:
        for dry_run in (True, False):
            with pytest.raises(NotFound) as refused:
                reverse(world, wanted, dry_run=dry_run)
            assert refused.value.reason == reason
            assert words in refused.value.message
    assert standing(world) == sorted(ids)


def test_requests_that_are_refused(world: World, payer: int) -> None:
    cases: list[tuple[CdrFilter, ReversalRequest, str]] = [
        (CdrFilter(), WHY, "tenant_id"),
        (CdrFilter(started_after_ns=1), WHY, "tenant_id"),
        (CdrFilter(call_ids=("a",)), WHY, "tenant_id"),
        (CdrFilter(ids=(1,), call_ids=("a",)), WHY, "tenant_id"),
        (CdrFilter(ids=(0,)), WHY, "ids"),
        (CdrFilter(ids=(-1,)), WHY, "ids"),
        (CdrFilter(ids=tuple(range(1, 10_002))), WHY, "ids"),
        (CdrFilter(tenant_id=payer, call_ids=("",)), WHY, "call_ids"),
        (CdrFilter(tenant_id=payer, call_ids=("x" * 256,)), WHY, "call_ids"),
        (CdrFilter(tenant_id=payer), replace(WHY, reason=""), "reason"),
        (CdrFilter(tenant_id=payer), replace(WHY, requested_by=""), "requested_by"),
        (CdrFilter(tenant_id=payer, matched_prefix="4x"), WHY, "matched_prefix"),
        (
            CdrFilter(tenant_id=payer, started_after_ns=2, started_before_ns=1),
            WHY,
            "started_before",
        ),
    ]
    for wanted, request, field in cases:
        with pytest.raises(InvalidInput) as refused:
            list(world.reversals.reverse_cdrs(wanted, request, dry_run=False))
        assert [one.field for one in refused.value.violations] == [field]


def test_a_caller_reverses_nothing_of_other_tenants(world: World, payer: int) -> None:
    stranger = world.tenant()
    own: Call = call(payer, call_id="own")
    [mine, theirs] = [world.cdrs.create(one).id for one in (own, call(stranger, call_id="theirs"))]
    upload_id = world.commit(0, 0, [*calls(payer, 0, 1), *calls(stranger, 0, 1)]).upload_id
    caller = Caller("anna", Role.OPERATOR, Scope(frozenset({payer})))
    with handling(Request(caller=caller)):
        for wanted, reason in (
            (CdrFilter(tenant_id=stranger), Reason.TENANT_NOT_FOUND),
            (CdrFilter(ids=(mine, theirs)), Reason.CDR_NOT_FOUND),
            (CdrFilter(upload_id=upload_id), Reason.UPLOAD_NOT_FOUND),
            (CdrFilter(tenant_id=payer, upload_id=upload_id), Reason.UPLOAD_NOT_FOUND),
        ):
            with pytest.raises(NotFound) as refused:
                reverse(world, wanted)
            assert refused.value.reason == reason
        assert reverse(world, CdrFilter(ids=(mine,))).reversed == 1
    assert standing(world) == ["c0", "c0", "theirs"]
