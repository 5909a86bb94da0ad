"""CreateCdr's calls in groups: each caller gets its own result, whatever the other calls are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from ratingcore.record.records import records_of
from tests.world import World, at_once, call
from tollwire.service.domain.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    Reason,
    Unavailable,
)
from tollwire.service.domain.model import Call, Cdr, ReversalRequest
from tollwire.service.domain.request import SEVERAL, Caller, Request, Role, Scope
from tollwire.service.domain.thread_context import handling
from tollwire.service.record.group_commit import Submission
from tollwire.service.record.recording import content_of
from tollwire.service.record.single_calls import RecordedCall
from tollwire.service.storage import cdrs
from tollwire.service.storage.engine import Database
from tollwire.service.storage.failures import UNKNOWN_OUTCOME

SECONDS = 30


def as_one_group(world: World, *actions: Callable[[], Any]) -> list[Any]:
    """Run the actions at the same moment, so that they arrive while another call is recorded; their
    results, or their exceptions, in order."""
    groups = world.cdrs._single_calls._groups
    first = threading.Event()
    go_on = threading.Event()
    commit = groups._commit

    def held(items: Sequence[Any]) -> Any:
        if not first.is_set():
            first.set()
            assert go_on.wait(SECONDS)
        return commit(items)

    groups._commit = held
    tenant_id = world.tenant()
    try:
        with ThreadPoolExecutor(len(actions) + 1) as pool:
            leader = pool.submit(world.cdrs.create, call(tenant_id, call_id="leader"))
            assert first.wait(SECONDS)
            futures: list[Future[Any]] = []
            for action in actions:
                count = len(groups._waiting)
                futures.append(pool.submit(action))
                while len(groups._waiting) == count and not futures[-1].done():
                    pass
            go_on.set()
            leader.result(SECONDS)
            return [one.exception(SECONDS) or one.result() for one in futures]
    finally:
        groups._commit = commit


def ledger_entries(world: World) -> int:
    """The number of entries of calls."""
    with world.database.read() as connection:
        query = "SELECT count(*) FROM ledger_entries WHERE kind < 4"
        return int(connection.exec_driver_sql(query).scalar_one())


@contextmanager
def caller_of(*tenant_ids: int) -> Iterator[None]:
    caller = Caller("scoped", Role.INGEST, Scope(frozenset(tenant_ids)), token_id=7)
    with handling(Request(caller=caller)):
        yield


def create(world: World, one: Call, *tenant_ids: int) -> Callable[[], Cdr]:
    """An action that records the call, for a caller that may see the tenants; without any: all."""

    def run() -> Cdr:
        if not tenant_ids:
            return world.cdrs.create(one)
        with caller_of(*tenant_ids):
            return world.cdrs.create(one)

    return run


def test_calls_that_arrive_together_share_a_transaction(world: World, payer: int) -> None:
    before = ledger_entries(world)
    sent = [call(payer, call_id=f"c{number}", seconds=number) for number in range(20)]
    cdrs = as_one_group(world, *(create(world, one) for one in sent))
    assert [cdr.call for cdr in cdrs] == sent
    assert [world.cdrs.get(cdr.id) for cdr in cdrs] == cdrs
    assert len({cdr.id for cdr in cdrs}) == 20
    # One for the leader, one for the group.
    assert ledger_entries(world) == before + 2


def test_each_call_of_a_group_gets_the_answer_that_it_gets_alone(world: World, payer: int) -> None:
    extension_id = world.extension(payer)
    foreign = world.extension(world.tenant(name="Other"), "102")
    known = world.cdrs.create(call(payer, call_id="known", seconds=5))
    sent = [
        call(payer, call_id="new"),
        call(payer, call_id="known", seconds=5),
        call(payer, call_id="known", seconds=6),
        call(payer, "33", call_id="unrated"),
        call(payer + 100, call_id="nobody"),
        call(payer, call_id="foreign", extension_id=foreign),
        call(payer, call_id="extension", extension_id=extension_id),
        call(payer, call_id="new", seconds=8),
    ]
    answers = as_one_group(world, *(create(world, one) for one in sent))
    good, again, changed, unrated, no_tenant, no_extension, with_extension, late = answers
    assert good == world.cdrs.get(good.id)
    assert again == known
    assert isinstance(changed, AlreadyExists)
    assert changed.metadata["cdr_id"] == str(known.id)
    assert unrated == world.cdrs.get(unrated.id)
    assert unrated.cost_e8 is None
    assert isinstance(no_tenant, NotFound)
    assert no_tenant.reason == Reason.TENANT_NOT_FOUND
    assert isinstance(no_extension, NotFound)
    assert no_extension.reason == Reason.EXTENSION_NOT_FOUND
    assert with_extension == world.cdrs.get(with_extension.id)
    assert with_extension.extension is not None
    # Of two calls of one call_id in one group the first to arrive is recorded.
    assert isinstance(late, AlreadyExists)
    assert late.metadata["cdr_id"] == str(good.id)


def test_a_cost_above_the_limit_is_the_error_of_its_own_caller(world: World, payer: int) -> None:
    world.rate(payer, "99", 10**12 - 1, 1)
    refused, good = as_one_group(
        world,
        create(world, call(payer, "99", seconds=2**31 - 1, call_id="dear")),
        create(world, call(payer, call_id="good")),
    )
    assert isinstance(refused, InvalidInput)
    assert refused.reason == Reason.COST_OVERFLOW
    assert [one.field for one in refused.violations] == ["call.duration_seconds"]
    assert good == world.cdrs.get(good.id)


def test_copies_of_one_call_in_a_group_are_one_cdr(world: World, payer: int) -> None:
    first, *others = as_one_group(
        world, *[create(world, call(payer, call_id="same")) for _ in range(5)]
    )
    assert others == [first] * 4
    assert len(world.rows()) == 2


def test_calls_without_a_call_id_and_their_occurrences(world: World, payer: int) -> None:
    first, second, again = as_one_group(
        world,
        create(world, call(payer)),
        create(world, call(payer, occurrence=2)),
        create(world, call(payer, occurrence=1)),
    )
    assert again == first
    assert second.id != first.id
    assert second.call.call_id == first.call.call_id + "-2"


def test_a_reversed_call_is_recorded_again_within_a_group(world: World, payer: int) -> None:
    reversed_cdr = world.cdrs.create(call(payer, call_id="again"))
    world.reversals.reverse_cdr(reversed_cdr.id, ReversalRequest("wrong", "tests"))
    again, other = as_one_group(
        world,
        create(world, call(payer, call_id="again", seconds=9)),
        create(world, call(payer, call_id="other")),
    )
    assert (again.generation, again.replaces_cdr_id) == (1, reversed_cdr.id)
    assert [world.cdrs.get(cdr.id) for cdr in (again, other)] == [again, other]


def test_each_caller_sees_its_own_tenants_only(world: World, payer: int) -> None:
    second = world.tenant(name="Second")
    extension_id = world.extension(second)
    mine, theirs, foreign, operators = as_one_group(
        world,
        create(world, call(payer, call_id="mine"), payer),
        create(world, call(second, call_id="theirs"), payer),
        create(world, call(payer, call_id="foreign", extension_id=extension_id), payer),
        create(world, call(second, call_id="operators")),
    )
    assert mine.call.tenant_id == payer
    assert isinstance(theirs, NotFound)
    assert theirs.message == f"tenant_id: there is no tenant {second}"
    assert isinstance(foreign, NotFound)
    assert foreign.reason == Reason.EXTENSION_NOT_FOUND
    assert operators.call.tenant_id == second


def refuse_rows(database: Database, call_id: str) -> None:
    """Make the database fail at a CDR with this call_id, with an error that has no name."""
    with database.write() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql(
                "CREATE TRIGGER refuse_rows BEFORE INSERT ON cdrs WHEN NEW.call_id ="
                f" '{call_id}' BEGIN SELECT raise(FAIL, 'no such row'); END"
            )
            return
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse_rows() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no such row'; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse_rows BEFORE INSERT ON cdrs FOR EACH ROW"
            f" WHEN (NEW.call_id = '{call_id}') EXECUTE FUNCTION refuse_rows()"
        )


def test_a_call_that_the_database_refuses_fails_alone(world: World, payer: int) -> None:
    refuse_rows(world.database, "bad")
    ids = ["a", "bad", "c", "d"]
    a, bad, c, d = as_one_group(world, *(create(world, call(payer, call_id=one)) for one in ids))
    assert isinstance(bad, Exception)
    assert not isinstance(bad, Unavailable)
    assert "no such row" in str(bad)
    assert [one.call.call_id for one in (a, c, d)] == ["a", "c", "d"]
    assert [row.call_id for row in world.rows()] == ["leader", "a", "c", "d"]


def test_many_clients_with_all_kinds_of_calls(world: World, payer: int, other: World) -> None:
    """Two workers. Whatever arrives together: one CDR for each call_id, and each caller gets the
    recorded CDR or a conflict."""
    other.decks.refresh()

    def client(number: int) -> list[Any]:
        worker = (world, other)[number % 2]
        answers: list[Any] = []
        for one in (
            call(payer, call_id=f"own-{number}", seconds=number),
            call(payer, call_id=f"shared-{number % 10}", seconds=7),
            call(payer, call_id=f"rivals-{number % 10}", seconds=number),
            call(payer, call_id=f"own-{number}", seconds=number),
            call(payer + 100, call_id=f"nobody-{number}"),
        ):
            try:
                answers.append(worker.cdrs.create(one))
            except (NotFound, AlreadyExists) as error:
                answers.append(error)
        return answers

    answers = at_once(*(lambda number=number: client(number) for number in range(60)))
    stored = {row.call_id: row.id for row in world.rows()}
    assert len(stored) == len(world.rows()) == 60 + 10 + 10
    winners: dict[str, list[Any]] = {}
    for number, (own, shared, rival, own_again, nobody) in enumerate(answers):
        assert own == own_again == world.cdrs.get(stored[f"own-{number}"])
        assert shared.id == stored[f"shared-{number % 10}"]
        assert isinstance(nobody, NotFound)
        winners.setdefault(f"rivals-{number % 10}", []).append(rival)
    for call_id, rivals in winners.items():
        (won,) = [one for one in rivals if isinstance(one, Cdr)]
        assert won.id == stored[call_id]
        lost = [one for one in rivals if isinstance(one, AlreadyExists)]
        assert len(lost) == len(rivals) - 1
        assert {one.metadata["cdr_id"] for one in lost} == {str(won.id)}


def test_tenants_in_opposite_order_through_two_workers(world: World, other: World) -> None:
    tenants = [world.tenant(name=f"T{number}") for number in range(4)]
    other.decks.refresh()

    def client(number: int) -> list[int]:
        worker, order = (world, tenants) if number % 2 else (other, tenants[::-1])
        return [
            worker.cdrs.create(call(tenant_id, call_id=f"{number}-{turn}")).id
            for turn in range(5)
            for tenant_id in order
        ]

    answers = at_once(*(lambda number=number: client(number) for number in range(12)))
    assert sorted(cdr_id for ids in answers for cdr_id in ids) == [row.id for row in world.rows()]


def _lock_tenant(connection: Connection, tenant_id: int) -> None:
    connection.exec_driver_sql(f"SELECT id FROM tenants WHERE id = {tenant_id} FOR UPDATE")


def test_a_locked_tenant_does_not_fail_the_others(database: Database, payer: int) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite locks no rows")
    url = database.engine.url.render_as_string(hide_password=False)
    impatient = Database(url, wait_seconds=1.0)
    world = World.over(impatient)
    locked = world.tenant(name="Locked")
    try:
        with database.write() as connection:
            _lock_tenant(connection, locked)
            good, waits = as_one_group(
                world,
                create(world, call(payer, call_id="good")),
                create(world, call(locked, call_id="locked")),
            )
    finally:
        impatient.close()
    assert isinstance(good, Cdr)
    assert isinstance(waits, Unavailable)
    assert "nothing was changed" in waits.message


def test_a_database_that_goes_away_in_the_middle_of_a_group(
    world: World, payer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world.database.is_sqlite:
        pytest.skip("SQLite is in the process")
    insert_new = cdrs.insert_new
    sizes = []

    def cut_off(connection: Connection, new: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(new))
        if len(new) == 3:
            driver: Any = connection.connection.driver_connection
            with world.database.read() as other:
                other.exec_driver_sql(
                    f"SELECT pg_terminate_backend({driver.info.backend_pid}, 10000)"
                )
        return insert_new(connection, new, *rest, **options)

    monkeypatch.setattr(cdrs, "insert_new", cut_off)
    actions = [create(world, call(payer, call_id=f"g{number}")) for number in range(3)]
    failures = as_one_group(world, *actions)
    # No part of the group is tried again: the database is away for all of it.
    assert sizes == [1, 3]
    for failure in failures:
        assert isinstance(failure, Unavailable)
        assert failure.reason == Reason.DATABASE_UNAVAILABLE
        # The commit was sent with the rows.
        assert UNKNOWN_OUTCOME in failure.message
    assert [row.call_id for row in world.rows()] == ["leader"]
    monkeypatch.undo()
    assert [action().call.call_id for action in actions] == ["g0", "g1", "g2"]


def test_submitted_calls_get_the_answers_of_single_ones(world: World, payer: int) -> None:
    other_id = world.tenant()
    scoped = Request(
        id="r", caller=Caller("one", Role.INGEST, Scope(frozenset({payer})), token_id=1)
    )
    calls = [call(payer, call_id="x"), call(payer, call_id="x"), call(other_id, call_id="y")]
    answers: dict[int, Any] = {}
    answered = threading.Event()

    def done(number: int, answer: Any) -> None:
        answers[number] = answer
        if len(answers) == 3:
            answered.set()

    with ThreadPoolExecutor(1) as pool:
        world.cdrs.submit(
            [
                Submission(records_of([content_of(one)], 0), scoped, partial(done, number))
                for number, one in enumerate(calls)
            ],
            pool.submit,
        )
        assert answered.wait(SECONDS)
    assert isinstance(answers[0], RecordedCall)
    assert answers[1] == world.cdrs.get(answers[0].cdr_id)
    assert (type(answers[2]), answers[2].reason) == (NotFound, Reason.TENANT_NOT_FOUND)
    assert scoped.tenant_id == SEVERAL
