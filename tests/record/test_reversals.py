"""ReverseCdr and ListReversals: entries that reverse CDRs, once, and do not change them."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.world import NOON_NS, World, at_once, call, calls
from tollwire.service.domain.errors import InvalidInput, NotFound, Reason
from tollwire.service.domain.model import (
    MAX_COST_E8,
    Cdr,
    CdrFilter,
    Direction,
    RatingStatus,
    Reversal,
    ReversalRequest,
)
from tollwire.service.domain.record_model import ReversalFilter, UnratedOutcome
from tollwire.service.record.reversals import Reversals
from tollwire.service.storage import ledger
from tollwire.service.storage.ledger import EntryKind

WHY = ReversalRequest("the switch was in test", "anna@noc-1")


def reversal_rows(world: World) -> list[Any]:
    with world.database.read() as connection:
        return list(connection.exec_driver_sql("SELECT * FROM cdr_reversals ORDER BY id"))


def test_a_cdr_is_reversed_and_does_not_change(world: World, payer: int) -> None:
    world.rate(payer, "9", 99_999_999_9999, 60, connect_fee_e8=999_9999_0000)
    extension = world.extension(payer)
    recorded = [
        world.cdrs.create(one)
        for one in (
            call(payer, "4420", 7, call_id="rated", extension_id=extension),
            call(payer, call_id="free", direction=Direction.INBOUND),
            call(payer, "33", call_id="unrated"),
            call(payer, "9", 600_000_000, call_id="dear"),
        )
    ]
    rows = world.rows()
    reversed_ = [world.reversals.reverse_cdr(cdr.id, WHY) for cdr in recorded]
    assert [replace(cdr, reversal=None) for cdr in reversed_] == recorded
    assert world.rows() == rows
    entries = [cdr.reversal for cdr in reversed_]
    assert [entry and entry.cost_e8 for entry in entries] == [-40_0000, 0, None, -MAX_COST_E8]
    assert {entry.request for entry in entries if entry} == {WHY}
    assert [world.cdrs.get(cdr.id) for cdr in recorded] == reversed_
    assert world.cdrs.list(CdrFilter(tenant_id=payer), 0, "").items == reversed_[::-1]
    assert [cdr for part in world.cdrs.export(CdrFilter()) for cdr in part] == reversed_[::-1]


def test_reversing_again_changes_nothing(world: World, payer: int, other: World) -> None:
    cdr = world.cdrs.create(call(payer, "4420", 7))
    first = world.reversals.reverse_cdr(cdr.id, WHY)
    rows = reversal_rows(world)
    assert other.reversals.reverse_cdr(cdr.id, ReversalRequest("no, another", "ben")) == first
    assert reversal_rows(world) == rows


def test_the_reversal_has_its_own_time(world: World, payer: int) -> None:
    cdr = world.cdrs.create(call(payer))
    found = Reversals(world.database, lambda: NOON_NS).reverse_cdr(cdr.id, WHY).reversal
    assert found is not None
    assert found == Reversal(found.id, WHY, cost_e8=-40_0000, created_at_ns=NOON_NS)


def test_the_same_call_can_be_recorded_again(world: World, payer: int) -> None:
    wrong = call(payer, "4420", 7, call_id="a")
    cdr = world.cdrs.create(wrong)
    gone = world.reversals.reverse_cdr(cdr.id, WHY)
    made = [world.cdrs.create(replace(wrong, call_id=call_id)) for call_id in ("a", "b")]
    assert [(again.cost_e8, again.reversal) for again in made] == [(cdr.cost_e8, None)] * 2
    assert world.cdrs.get(cdr.id) == replace(gone, replaced_by_cdr_id=made[0].id)


@pytest.mark.parametrize(
    ("cdr_id", "request_", "fields"),
    [
        (0, WHY, ["id"]),
        (-1, ReversalRequest("", ""), ["id", "reason", "requested_by"]),
        (1, ReversalRequest("x" * 1001, "x" * 201), ["reason", "requested_by"]),
        (1, ReversalRequest("a\0b", "a\0b"), ["reason", "requested_by"]),
        (2**63, WHY, ["id"]),
    ],
)
def test_requests_that_are_refused(
    world: World, cdr_id: int, request_: ReversalRequest, fields: list[str]
) -> None:
    with pytest.raises(InvalidInput) as failure:
        world.reversals.reverse_cdr(cdr_id, request_)
    assert [wrong.field for wrong in failure.value.violations] == fields


def test_the_longest_texts_and_any_language(world: World, payer: int) -> None:
    longest = ReversalRequest("é" * 999 + "🙂", "ü" * 200)
    cdr = world.cdrs.create(call(payer))
    reversal = world.reversals.reverse_cdr(cdr.id, longest).reversal
    assert reversal is not None
    assert reversal.request == longest


def test_an_unknown_cdr(world: World) -> None:
    with pytest.raises(NotFound) as failure:
        world.reversals.reverse_cdr(7, WHY)
    assert (failure.value.reason, failure.value.metadata) == (Reason.CDR_NOT_FOUND, {"id": "7"})


def test_a_reversed_unrated_cdr_is_not_in_the_queue(world: World, payer: int) -> None:
    waiting = [world.cdrs.create(call(payer, "33", call_id=name)) for name in "abc"]
    gone = world.reversals.reverse_cdr(waiting[1].id, WHY)
    assert world.cdrs.rate_unrated(0, None, None) == UnratedOutcome(2, 0, 2)
    world.rate(payer, "33")
    assert world.cdrs.rate_unrated(0, None, None) == UnratedOutcome(2, 2, 0)
    assert world.cdrs.rate_unrated(payer, None, None) == UnratedOutcome(0, 0, 0)
    assert world.cdrs.get(gone.id) == gone
    # A call that is priced by now is reversed at its price.
    reversal = world.reversals.reverse_cdr(waiting[0].id, WHY).reversal
    assert reversal is not None
    assert reversal.cost_e8 == -600_0000


# Lists.


def test_lists_begin_with_the_newest_and_continue(world: World, payer: int) -> None:
    clock = iter(range(NOON_NS, NOON_NS + 100))
    stranger = world.tenant()
    reversals = Reversals(world.database, lambda: next(clock))
    upload = world.commit(0, 0, [*calls(payer, 0, 6), *calls(stranger, 0, 6)])
    world.cdrs.create(call(payer, call_id="single"))
    cdrs = {cdr.id: cdr for cdr in reversed(world.cdrs.list(CdrFilter(), 100, "").items)}
    order = [7, 1, 13, 12, 3, 5, 9, 2, 11]
    made = [reversals.reverse_cdr(list(cdrs)[place - 1], WHY) for place in order]

    def listed(page_size: int, **wanted: Any) -> list[Cdr]:
        found: list[Cdr] = []
        token = ""
        while True:
            page = world.reversals.list(ReversalFilter(**wanted), page_size, token)
            assert len(page.items) <= page_size
            found += page.items
            token = page.next_page_token
            if not token:
                return found

    newest = made[::-1]
    assert listed(100) == listed(2) == listed(3) == newest
    mine = [cdr for cdr in newest if cdr.call.tenant_id == payer]
    assert 0 < len(mine) < len(newest)
    assert listed(2, tenant_id=payer) == mine
    uploaded = [cdr for cdr in newest if cdr.upload_id == upload.upload_id]
    assert len(uploaded) == len(newest) - 1
    assert listed(4, upload_id=upload.upload_id) == uploaded
    with pytest.raises(NotFound):
        listed(1, upload_id=upload.upload_id + 1)
    period = {"created_after_ns": NOON_NS + 2, "created_before_ns": NOON_NS + 5}
    assert listed(2, **period) == newest[4:7]
    assert listed(9, created_after_ns=-(10**19), created_before_ns=10**20) == newest
    assert listed(9, tenant_id=payer, upload_id=upload.upload_id, **period) == [
        cdr for cdr in newest[4:7] if cdr in mine and cdr in uploaded
    ]


def test_of_one_instant_the_highest_id_comes_first(world: World, payer: int) -> None:
    reversals = Reversals(world.database, lambda: NOON_NS)
    world.commit(0, 0, calls(payer, 0, 5))
    made = [reversals.reverse_cdr(row.id, WHY) for row in world.rows()]
    first = reversals.list(ReversalFilter(), 3, "")
    second = reversals.list(ReversalFilter(), 3, first.next_page_token)
    assert first.items + second.items == made[::-1]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"tenant_id": -1, "upload_id": -1}, ["tenant_id", "upload_id"]),
        ({"created_after_ns": 1, "created_before_ns": 0}, ["created_before"]),
    ],
)
def test_lists_that_are_refused(world: World, fields: dict[str, Any], wrong: list[str]) -> None:
    with pytest.raises(InvalidInput) as failure:
        world.reversals.list(ReversalFilter(**fields), 0, "")
    assert [violation.field for violation in failure.value.violations] == wrong


def test_a_token_is_valid_for_its_own_list(world: World, payer: int) -> None:
    world.commit(0, 0, calls(payer, 0, 2))
    for row in world.rows():
        world.reversals.reverse_cdr(row.id, WHY)
    token = world.reversals.list(ReversalFilter(), 1, "").next_page_token
    with pytest.raises(InvalidInput, match="with these filters"):
        world.reversals.list(ReversalFilter(tenant_id=payer), 1, token)


# Concurrent requests.


def test_two_concurrent_requests_make_one_reversal(world: World, other: World, payer: int) -> None:
    world.commit(0, 0, calls(payer, 0, 40))
    for row in world.rows():
        answers = at_once(
            *(
                lambda worker=worker, who=who, cdr_id=row.id: worker.reversals.reverse_cdr(
                    cdr_id, ReversalRequest("twice", who)
                )
                for worker, who in ((world, "a"), (other, "b"), (world, "c"))
            )
        )
        assert isinstance(answers[0], Cdr), answers
        assert answers == [answers[0]] * 3
    assert sorted(row.cdr_id for row in reversal_rows(world)) == [row.id for row in world.rows()]


def test_against_rate_unrated_each_cdr_is_priced_or_withdrawn(
    world: World, other: World, payer: int
) -> None:
    """Priced and then reversed at that price, or reversed without a price and never priced."""
    world.commit(0, 0, calls(payer, 0, 120, number="33"))
    waiting = [row.id for row in world.rows()]
    world.rate(payer, "33", 60, 60)

    def reverse_some() -> None:
        for cdr_id in waiting[::2]:
            world.reversals.reverse_cdr(cdr_id, WHY)

    def reverse_others() -> None:
        for cdr_id in reversed(waiting[1::2]):
            other.reversals.reverse_cdr(cdr_id, WHY)

    def rate() -> int:
        # Repeatedly, until the others have finished.
        return sum(
            other.cdrs.rate_unrated(payer, NOON_NS + first, NOON_NS + first + 10).rated
            for first in range(0, 120, 10)
        )

    outcomes = at_once(reverse_some, reverse_others, rate)
    assert isinstance(outcomes[2], int), outcomes
    assert outcomes[:2] == [None, None]
    entries = {row.cdr_id: row for row in reversal_rows(world)}
    assert sorted(entries) == waiting
    priced = [row for row in world.rows() if row.status == RatingStatus.RATED]
    assert len(priced) == outcomes[2]
    for row in world.rows():
        cost = (row.cost_units, row.cost_fraction_e8)
        taken = (entries[row.id].cost_units, entries[row.id].cost_fraction_e8)
        assert taken == ((None, None) if cost == (None, None) else (-cost[0], -cost[1]))
    assert world.cdrs.rate_unrated(0, None, None) == UnratedOutcome(0, 0, 0)


def wait_for_a_lock(world: World) -> None:
    """Wait until another session of PostgreSQL waits for a lock on a row."""
    deadline = time.monotonic() + 20
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while True:
        with world.database.read() as connection:
            if connection.exec_driver_sql(query + " AND datname = current_database()").scalar_one():
                return
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)


@pytest.mark.parametrize("whole_upload", [False, True], ids=["one CDR", "its upload"])
@pytest.mark.parametrize("reversed_first", [True, False], ids=["reversed first", "rated first"])
def test_the_waiting_request_sees_the_result_of_the_other(
    world: World, other: World, payer: int, reversed_first: bool, whole_upload: bool
) -> None:
    """RateUnrated and a reversal, one of them blocked until the other has committed.

    (SQLite has one writer, and no reader sees half of a transaction.)
    """
    if world.database.is_sqlite:
        return
    upload_id = world.commit(0, 0, calls(payer, 0, 5, number="33")).upload_id
    cdr_id = world.rows()[2].id
    world.rate(payer, "33", 60, 60)
    held, finish = threading.Event(), threading.Event()

    def reverse(worker: World) -> UnratedOutcome | None:
        if whole_upload:
            worker.reversals.reverse_upload(upload_id, WHY)
        else:
            worker.reversals.reverse_cdr(cdr_id, WHY)
        return None

    def rate(worker: World) -> UnratedOutcome:
        return worker.cdrs.rate_unrated(payer, None, None)

    def first() -> object:
        """Up to its commit, which waits."""
        append: Any = ledger.append
        mine = threading.current_thread()

        def appended(connection: Any, kind: EntryKind, *arguments: Any, **options: Any) -> None:
            append(connection, kind, *arguments, **options)
            if kind in ledger.OF_CALLS and threading.current_thread() is mine:
                held.set()
                assert finish.wait(20)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledger, "append", appended)
            return reverse(world) if reversed_first else rate(world)

    def second() -> object:
        assert held.wait(20)
        return rate(other) if reversed_first else reverse(other)

    def let_go() -> None:
        assert held.wait(20)
        wait_for_a_lock(world)
        finish.set()

    outcomes = at_once(first, second, let_go)
    withdrawn = (5 if whole_upload else 1) if reversed_first else 0
    assert UnratedOutcome(5 - withdrawn, 5 - withdrawn, 0) in outcomes, outcomes
    assert outcomes.count(None) == 2, outcomes
    assert sum(row.status == RatingStatus.UNRATED for row in world.rows()) == withdrawn
    entries = reversal_rows(world)
    assert len(entries) == (5 if whole_upload else 1)
    cost = (None, None) if reversed_first else (0, -60_0000)
    assert {(entry.cost_units, entry.cost_fraction_e8) for entry in entries} == {cost}
