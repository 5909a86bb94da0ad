"""CDRs: recording one call, identity, queries, and the objects that CDRs refer to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from tests.world import NOON_NS, SECOND_NS, World, at_once, call, calls, chunk_of
from tollwire.service.domain.errors import AlreadyExists, InvalidInput, NotFound, Reason
from tollwire.service.domain.model import (
    MAX_COST_E8,
    MAX_STARTED_AT_NS,
    Call,
    CdrFilter,
    Direction,
    Disposition,
    RatingStatus,
    Rounding,
    Tenant,
    UnratedReason,
)


@pytest.fixture
def payer(world: World, payer: int) -> int:
    """With a longer and a blocked prefix, too."""
    world.rate(payer, "447", 1500, 6, destination="UK mobile")
    world.rate(payer, "4490", blocked=True)
    return payer


def test_a_cdr_has_every_field(world: World, payer: int) -> None:
    extension = world.tenants.get_extension(world.extension(payer))
    sent = call(
        payer,
        "+44 7911 123456",
        63,
        extension_id=extension.id,
        caller_number="Zoë <☎\U0001f600>",
        started_at_ns=NOON_NS + 123_456_789,
        ended_at_ns=NOON_NS + 70 * SECOND_NS + 1,
        call_id="abc-1",
    )
    cdr = world.cdrs.create(sent)
    assert cdr.call == sent
    assert (cdr.status, cdr.unrated_reason) == (RatingStatus.RATED, None)
    assert (cdr.bill_seconds, cdr.cost_e8) == (66, 1650_0000)
    assert cdr.rate is not None
    assert (cdr.rate.prefix, cdr.rate.destination) == ("447", "UK mobile")
    assert cdr.tenant == world.tenants.get(payer)
    assert cdr.extension == extension
    assert cdr.rate_revision == world.decks.deck(payer).revision
    assert cdr.upload_id == 0
    assert cdr.created_at_ns > NOON_NS
    assert world.cdrs.get(cdr.id) == cdr


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("33123", UnratedReason.NO_RATE),
        ("449012345", UnratedReason.BLOCKED),
        ("anonymous", UnratedReason.INVALID_NUMBER),
    ],
)
def test_an_unrated_call_is_stored_without_cost_and_rate(
    world: World, payer: int, number: str, reason: UnratedReason
) -> None:
    cdr = world.cdrs.create(call(payer, number))
    assert (cdr.status, cdr.unrated_reason) == (RatingStatus.UNRATED, reason)
    assert (cdr.bill_seconds, cdr.cost_e8, cdr.rate) == (None, None, None)
    assert world.cdrs.get(cdr.id) == cdr


@pytest.mark.parametrize(
    ("direction", "disposition"),
    [
        (direction, disposition)
        for direction in Direction
        for disposition in Disposition
        if (direction, disposition) != (Direction.OUTBOUND, Disposition.ANSWERED)
    ],
)
def test_a_call_that_is_not_billable_costs_nothing(
    world: World, payer: int, direction: Direction, disposition: Disposition
) -> None:
    cdr = world.cdrs.create(call(payer, "x", 60, direction=direction, disposition=disposition))
    assert (cdr.status, cdr.unrated_reason) == (RatingStatus.NOT_BILLABLE, None)
    assert (cdr.bill_seconds, cdr.cost_e8, cdr.rate) == (0, 0, None)
    assert (cdr.call.direction, cdr.call.disposition) == (direction, disposition)


def test_the_greatest_cost_is_stored_and_one_more_is_refused(world: World) -> None:
    tenant_id = world.tenant()
    world.rate(tenant_id, "4", 99_999_999_9999, 60, connect_fee_e8=999_9999_0000)
    cdr = world.cdrs.create(call(tenant_id, "44", 600_000_000))
    assert cdr.cost_e8 == MAX_COST_E8
    assert world.cdrs.get(cdr.id).cost_e8 == MAX_COST_E8
    with pytest.raises(InvalidInput) as failure:
        world.cdrs.create(call(tenant_id, "44", 600_000_060))
    assert failure.value.reason == Reason.COST_OVERFLOW
    assert [wrong.field for wrong in failure.value.violations] == ["call.duration_seconds"]
    assert len(world.rows()) == 1


# Identity.


def test_the_same_call_again_is_the_stored_one(world: World, payer: int) -> None:
    sent = call(payer, "33", call_id="one")
    first = world.cdrs.create(sent)
    assert first.status == RatingStatus.UNRATED
    world.rate(payer, "33")  # the cost that it would have now does not matter
    assert world.cdrs.create(sent) == first
    world.rate(payer, "334", 99_999_999_9999)
    dear = call(payer, "334", 2_147_483_647, call_id="two")
    with pytest.raises(InvalidInput):
        world.cdrs.create(dear)
    assert len(world.rows()) == 1


def test_a_duplicate_with_an_overflowing_cost_is_a_duplicate(world: World, payer: int) -> None:
    sent = call(payer, "33", 2_147_483_647, call_id="one")
    first = world.cdrs.create(sent)
    world.rate(payer, "33", 99_999_999_9999)
    assert world.cdrs.create(sent) == first
    with pytest.raises(AlreadyExists):
        world.cdrs.create(replace(sent, caller_number="other"))


CHANGES: dict[str, Any] = {
    "extension_id": None,
    "caller_number": "other",
    "destination_number": "+4420",
    "direction": Direction.INBOUND,
    "disposition": Disposition.BUSY,
    "duration_seconds": 8,
    "started_at_ns": NOON_NS + 1,
    "ended_at_ns": NOON_NS + 7 * SECOND_NS,
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_other_content_is_a_conflict_that_names_the_differences(
    world: World, payer: int, name: str
) -> None:
    value = CHANGES[name] or world.extension(payer)
    sent = call(payer, call_id="one")
    first = world.cdrs.create(sent)
    with pytest.raises(AlreadyExists) as failure:
        world.cdrs.create(replace(sent, **{name: value}))
    assert failure.value.reason == Reason.CDR_CONFLICT
    assert failure.value.metadata == {"cdr_id": str(first.id), "fields": name.removesuffix("_ns")}
    assert world.cdrs.create(sent) == first
    assert len(world.rows()) == 1


def derived_call_id(sent: Call) -> str:
    return chunk_of([sent]).records.call_id(0)


def test_a_call_id_is_derived_from_the_whole_content(world: World, payer: int) -> None:
    sent = call(payer)
    variants = [sent, replace(sent, tenant_id=payer + 1), replace(sent, ended_at_ns=0)]
    variants += [replace(sent, **{name: value or 9}) for name, value in CHANGES.items()]
    variants += [
        replace(sent, caller_number=caller, destination_number=number)
        for caller, number in [("12", "3"), ("1", "23"), ("", "123"), ("123", ""), ("1\x01", "23")]
    ]
    assert len({derived_call_id(variant) for variant in variants}) == len(variants)
    cdr = world.cdrs.create(sent)
    assert cdr.call.call_id == derived_call_id(sent)
    assert world.cdrs.create(sent) == cdr
    assert world.cdrs.create(replace(sent, call_id=cdr.call.call_id)) == cdr


def test_a_derived_call_id_never_changes() -> None:
    """Databases store it: after a change, the same calls would be recorded twice."""
    sent = Call(
        tenant_id=7,
        destination_number="+44 20 é",
        direction=Direction.OUTBOUND,
        disposition=Disposition.ANSWERED,
        duration_seconds=63,
        started_at_ns=1_700_000_000_123_456_789,
        ended_at_ns=1_700_000_063_000_000_000,
        extension_id=3,
        caller_number="101",
    )
    assert derived_call_id(sent) == "auto-d4e87fb1c50e85fa32d8d1fc3e8bfed1"
    assert (
        derived_call_id(replace(sent, ended_at_ns=None)) == "auto-8e33c1a3d165018d72e295d881d46d71"
    )


def test_calls_of_equal_content_differ_by_their_occurrence(world: World, payer: int) -> None:
    first = call(payer)
    second, third = (replace(first, occurrence=number) for number in (2, 3))
    cdrs = [world.cdrs.create(one) for one in (first, second, third)]
    ids = [cdr.call.call_id for cdr in cdrs]
    assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"]
    assert [cdr.cost_e8 for cdr in cdrs] == [cdrs[0].cost_e8] * 3
    for again, cdr in zip((replace(first, occurrence=1), second, third), cdrs, strict=True):
        assert world.cdrs.create(again) == cdr
    greatest = replace(first, occurrence=2**31 - 1)
    assert world.cdrs.create(greatest).call.call_id == f"{ids[0]}-2147483647"


@pytest.mark.parametrize(
    ("occurrence", "call_id"), [(-1, ""), (2**31, ""), (2, "a"), (-1, "a"), (2**31 - 1, "a")]
)
def test_an_impossible_occurrence_is_refused(
    world: World, payer: int, occurrence: int, call_id: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        world.cdrs.create(call(payer, occurrence=occurrence, call_id=call_id))
    assert refused.value.violations[0].field == "call.occurrence"
    assert world.rows() == []


@pytest.mark.parametrize(
    "call_id", ["'; --", "%s %(x)s ?", '"', "\\", "é☎\U0001f600", "\x01\x1f\x7f\u2028", "x" * 255]
)
def test_call_ids_of_any_text_are_found_again(world: World, payer: int, call_id: str) -> None:
    sent = call(payer, call_id=call_id, caller_number=call_id)
    cdr = world.cdrs.create(sent)
    assert cdr.call == sent
    assert world.cdrs.create(sent) == cdr
    with pytest.raises(AlreadyExists):
        world.cdrs.create(replace(sent, duration_seconds=8))


# Refusals.


def test_the_objects_that_a_call_names_must_exist(world: World, payer: int) -> None:
    foreign = world.extension(world.tenant())
    for sent, reason in [
        (call(10**9), Reason.TENANT_NOT_FOUND),
        (call(payer, extension_id=10**9), Reason.EXTENSION_NOT_FOUND),
        (call(payer, extension_id=foreign), Reason.EXTENSION_NOT_FOUND),
    ]:
        with pytest.raises(NotFound) as failure:
            world.cdrs.create(sent)
        assert failure.value.reason == reason
    assert world.rows() == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": 0}, "call.tenant_id"),
        ({"extension_id": -1}, "call.extension_id"),
        ({"caller_number": "\0"}, "call.caller_number"),
        ({"started_at_ns": MAX_STARTED_AT_NS + 1}, "call.started_at"),
        ({"ended_at_ns": NOON_NS - 1}, "call.ended_at"),
    ],
)
def test_a_call_that_is_not_valid_is_refused(
    world: World, payer: int, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as failure:
        world.cdrs.create(replace(call(payer), **fields))
    assert [wrong.field for wrong in failure.value.violations] == [field]


def test_an_unknown_cdr(world: World) -> None:
    with pytest.raises(NotFound) as failure:
        world.cdrs.get(1)
    assert failure.value.reason == Reason.CDR_NOT_FOUND
    for bad in (0, -1):
        with pytest.raises(InvalidInput):
            world.cdrs.get(bad)


# References of a CDR.


def test_a_cdr_shows_its_rate_and_its_tenant_as_they_were(world: World, payer: int) -> None:
    before = world.cdrs.create(call(payer, call_id="before"))
    assert before.rate is not None
    world.rates.update(
        replace(before.rate, cost_per_minute_e8=9_0000), frozenset({"cost_per_minute_e8"}), ""
    )
    world.tenants.update(
        Tenant(id=payer, name="New", rounding=Rounding.DOWN), frozenset({"name", "rounding"})
    )
    after = world.cdrs.create(call(payer, call_id="after"))
    assert after.rate is not None
    world.rates.delete(before.rate.id, "")
    assert world.cdrs.get(before.id) == before
    assert world.cdrs.get(after.id) == after
    assert [cdr.tenant.name for cdr in (before, after)] == ["Acme", "New"]
    assert [cdr.tenant.rounding for cdr in (before, after)] == [Rounding.HALF_UP, Rounding.DOWN]
    assert after.rate.cost_per_minute_e8 == 9_0000
    found = world.cdrs.list(CdrFilter(tenant_id=payer), 0, "").items
    assert sorted(found, key=lambda cdr: cdr.id) == [before, after]


# Lists.


def test_pages_are_in_order_and_take_few_queries(world: World, payer: int) -> None:
    other = world.tenant()
    extensions = [world.extension(payer, str(number)) for number in range(40)]
    sent = [
        call(
            payer if index % 3 else other,
            "447" if index % 2 else "44",
            call_id=str(index),
            started_at_ns=NOON_NS + index // 5,
            extension_id=extensions[index % 40] if index % 3 else 0,
        )
        for index in range(1500)
    ]
    world.commit(0, 0, sent)
    statements: list[str] = []
    listener = event.listens_for(world.database.engine, "before_cursor_execute")
    listener(lambda _c, _cursor, statement, *_: statements.append(statement))
    page = world.cdrs.list(CdrFilter(), 1000, "")
    assert len(page.items) == 1000
    assert len([statement for statement in statements if "SELECT" in statement]) == 5
    rest = world.cdrs.list(CdrFilter(), 1000, page.next_page_token)
    assert rest.next_page_token == ""
    found = page.items + rest.items
    keys = [(cdr.call.started_at_ns, cdr.id) for cdr in found]
    assert keys == sorted(keys, reverse=True)
    assert {cdr.call.call_id for cdr in found} == {str(index) for index in range(1500)}
    for cdr in found[:50]:
        assert cdr.tenant.id == cdr.call.tenant_id
        assert (cdr.extension.id if cdr.extension else 0) == cdr.call.extension_id
    assert [cdr for part in world.cdrs.export(CdrFilter()) for cdr in part] == found


def test_a_page_that_ends_exactly_at_the_end_has_no_token(world: World, payer: int) -> None:
    world.commit(0, 0, calls(payer, 0, 4))
    assert world.cdrs.list(CdrFilter(), 4, "").next_page_token == ""
    page = world.cdrs.list(CdrFilter(), 3, "")
    assert page.next_page_token != ""
    with pytest.raises(InvalidInput):
        world.cdrs.list(CdrFilter(tenant_id=payer), 3, page.next_page_token)


def test_an_empty_list_and_export(world: World, payer: int) -> None:
    world.cdrs.create(call(payer))
    nothing = CdrFilter(tenant_id=world.tenant())
    assert world.cdrs.list(nothing, 0, "").items == []
    assert list(world.cdrs.export(nothing)) == []
    unknown = CdrFilter(tenant_id=10**9)
    with pytest.raises(NotFound):
        world.cdrs.list(unknown, 0, "")
    with pytest.raises(NotFound):  # before the first part is read
        world.cdrs.export(unknown)


FOUND: list[tuple[dict[str, Any], str]] = [
    ({}, "dcba"),
    ({"search": "4420"}, "dc"),
    ({"search": "ZOË"}, "c"),
    ({"search": "zoë"}, "c"),
    ({"search": "IN"}, "db"),  # INBOUND, INTERNAL
    ({"search": "no_ans"}, "a"),
    ({"search": "_"}, "ca"),
    ({"search": "%"}, "b"),
    ({"search": "*"}, "b"),
    ({"search": "?"}, "b"),
    ({"search": "["}, "b"),
    ({"search": "]"}, "b"),
    ({"search": "^$.\\"}, "b"),
    ({"search": "4.20"}, ""),
    ({"search": "4?20"}, ""),
    ({"search": "straße"}, "a"),
    ({"search": "STRAßE"}, "a"),
    ({"search": "x" * 256}, ""),
    ({"status": RatingStatus.RATED}, "c"),
    ({"status": RatingStatus.NOT_BILLABLE}, "dba"),
    ({"status": RatingStatus.UNRATED}, ""),
    ({"started_after_ns": NOON_NS + 1}, "dcb"),
    ({"started_before_ns": NOON_NS + 1}, "a"),
    ({"started_after_ns": NOON_NS + 1, "started_before_ns": NOON_NS + 1}, ""),
    ({"started_after_ns": -(10**20), "started_before_ns": 10**21}, "dcba"),
    ({"started_after_ns": 10**20}, ""),
    ({"started_before_ns": -(10**20)}, ""),
]


@pytest.fixture
def listed(world: World, payer: int) -> int:
    for index, sent in enumerate(
        [
            call(payer, "Straße", disposition=Disposition.NO_ANSWER, caller_number="1"),
            call(payer, "^$.\\[]*?%", direction=Direction.INBOUND),
            call(payer, "4420", caller_number="Zoë_1"),
            call(payer, "4420", direction=Direction.INTERNAL),
        ]
    ):
        numbered = replace(sent, call_id="abcd"[index], started_at_ns=NOON_NS + index)
        world.cdrs.create(numbered)
    return payer


def test_filters_and_search(world: World, listed: int) -> None:
    for filters, expected in FOUND:
        wanted = CdrFilter(tenant_id=listed, **filters)
        page = world.cdrs.list(wanted, 0, "")
        assert "".join(cdr.call.call_id for cdr in page.items) == expected, filters


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"tenant_id": -1}, "tenant_id"),
        ({"extension_id": -1}, "extension_id"),
        ({"search": "a\0"}, "search"),
        ({"search": "x" * 257}, "search"),
        ({"started_after_ns": 1, "started_before_ns": 0}, "started_before"),
    ],
)
def test_wrong_filters(world: World, filters: dict[str, Any], field: str) -> None:
    wanted = CdrFilter(**filters)
    for ask in (lambda: world.cdrs.list(wanted, 0, ""), lambda: world.cdrs.export(wanted)):
        with pytest.raises(InvalidInput) as failure:
            ask()
        assert [wrong.field for wrong in failure.value.violations] == [field]


# Concurrent requests.


def test_one_call_from_two_workers_is_recorded_once(world: World, other: World, payer: int) -> None:
    sent = calls(payer, 0, 30)
    results = at_once(
        *(
            lambda worker=worker: [worker.cdrs.create(one) for one in sent]
            for worker in (world, other, world, other)
        )
    )
    assert all(result == results[0] for result in results), results
    assert len(world.rows()) == 30


def test_two_contents_of_one_call_id_at_once(world: World, other: World, payer: int) -> None:
    mine = calls(payer, 0, 30)
    theirs = calls(payer, 0, 30, seconds=8)

    def record(worker: World, one: Call) -> int | None:
        try:
            return worker.cdrs.create(one).id
        except AlreadyExists as failure:
            return -int(failure.metadata["cdr_id"])

    first, second = at_once(
        lambda: [record(world, one) for one in mine],
        lambda: [record(other, one) for one in theirs],
    )
    # Each call was recorded by one of them, and the other gets that CDR as a duplicate.
    assert [a + b for a, b in zip(first, second, strict=True)] == [0] * 30
    stored = {row.call_id: row.duration_seconds for row in world.rows()}
    won = {one.call_id: 7 if a > 0 else 8 for one, a in zip(mine, first, strict=True)}
    assert stored == won
