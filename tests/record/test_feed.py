"""The feed of CDRs in the order of recording: each exactly once, during concurrent changes."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ratingcore.record.records import records_of
from tests.world import NOON_NS, World, call, calls
from tollwire.service.domain import paging
from tollwire.service.domain.errors import InvalidInput, NotFound, Reason
from tollwire.service.domain.request import EVERY_TENANT, Caller, Request, Role, Scope
from tollwire.service.domain.thread_context import handling
from tollwire.service.record import feed as module
from tollwire.service.record.feed import Feed, FeedPart
from tollwire.service.record.recording import Recorder, content_of, enter


@pytest.fixture
def feed(world: World) -> Feed:
    return Feed(world.database, world.decks)


def parts(
    feed: Feed, cursor: str = "", tenant_id: int = 0, *, from_now: bool = False
) -> list[FeedPart]:
    """All parts that there are now."""
    found = feed.watch(tenant_id, cursor, from_now=from_now, follow=False)
    told = [part for part in found if part is not None]
    assert [part.caught_up for part in told] == [False] * (len(told) - 1) + [True]
    return told


def ids(told: list[FeedPart]) -> list[int]:
    return [cdr.id for part in told for cdr in part.cdrs]


@contextmanager
def scope(*tenant_ids: int) -> Iterator[None]:
    caller = Caller("somebody", Role.READER, Scope(frozenset(tenant_ids)), 1)
    with handling(Request(caller, "r")):
        yield


def one_by_one(feed: Feed, tenant_id: int = 0) -> list[int]:
    """Each part is read by a new call, with the cursor of the one before."""
    cursor, found = "", []
    while True:
        stream = feed.watch(tenant_id, cursor, from_now=False, follow=False)
        part = next(one for one in stream if one is not None)
        assert part.cursor
        found += [cdr.id for cdr in part.cdrs]
        if part.caught_up:
            return found
        assert part.cursor != cursor
        cursor = part.cursor


def test_an_empty_record(feed: Feed) -> None:
    (part,) = parts(feed)
    assert part.cdrs == []
    assert ids(parts(feed, part.cursor)) == []


def test_parts_of_any_size_give_each_cdr_once(
    world: World, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer, other = world.tenant(), world.tenant()
    for turn in range(4):
        world.commit(0, 0, calls(payer, 10 * turn, 7) + calls(other, 10 * turn, 5))
        world.cdrs.create(call(other, call_id=f"single {turn}"))
    # Entries of other kinds are passed over.
    world.rate(payer, "4420")
    assert world.cdrs.rate_unrated(payer, None, None).rated == 28
    every = [row.id for row in world.rows()]
    assert len(every) == 52
    of_payer = [row.id for row in world.rows() if row.tenant_id == payer]
    whole = ids(parts(feed))
    assert sorted(whole) == every
    assert parts(feed)[0].cdrs[0] == world.cdrs.get(whole[0])
    for cdrs, rows, entries in itertools.product((1, 3, 1000), (1, 4, 10_000), (1, 2, 10_000)):
        monkeypatch.setattr(module, "MAX_PART_CDRS", cdrs)
        monkeypatch.setattr(module, "MAX_PART_ROWS", rows)
        monkeypatch.setattr(module, "MAX_PART_ENTRIES", entries)
        # In one order, for any size of the parts.
        assert ids(parts(feed)) == whole
        assert one_by_one(feed) == whole
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.0)
    assert one_by_one(feed, payer) == [one for one in whole if one in of_payer]
    with scope(payer):
        assert one_by_one(feed) == [one for one in whole if one in of_payer]


def test_long_texts_make_short_parts(
    world: World, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer = world.tenant()
    world.commit(0, 0, calls(payer, 0, 20))
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 3000)
    told = parts(feed)
    assert len(told) > 5
    assert ids(told) == [row.id for row in world.rows()]
    assert one_by_one(feed) == ids(told)


def test_from_now_omits_recorded_cdrs(world: World, feed: Feed) -> None:
    payer = world.tenant()
    world.commit(0, 0, calls(payer, 0, 3))
    (part,) = parts(feed, from_now=True)
    assert part.cdrs == []
    late = world.cdrs.create(call(payer, call_id="late"))
    assert ids(parts(feed, part.cursor)) == [late.id]


def test_a_cdr_is_as_it_is_when_it_is_read(world: World, feed: Feed) -> None:
    payer = world.tenant()
    one = world.cdrs.create(call(payer))
    (part,) = parts(feed)
    assert part.cdrs == [one]
    world.rate(payer, "4420")
    world.cdrs.rate_unrated(payer, None, None)
    assert ids(parts(feed, part.cursor)) == []
    assert parts(feed)[0].cdrs == [world.cdrs.get(one.id)]


def record(world: World, stack: ExitStack, tenant_id: int, call_id: str) -> int:
    """Record a call in a transaction that stays open until the stack is closed."""
    recorder = Recorder(world.decks)
    connection = stack.enter_context(world.decks.writing())
    records = records_of([content_of(call(tenant_id, call_id=call_id))])
    parties = recorder.hold(connection, records, EVERY_TENANT)
    recording = recorder.write(connection, recorder.rate(connection, records, parties), 0)
    enter(connection, recording)
    return recording.first_id


def test_a_transaction_that_is_committed_late_is_not_missed(world: World, feed: Feed) -> None:
    if world.database.is_sqlite:
        pytest.skip("SQLite has one writer")
    payer = world.tenant()
    with ExitStack() as held:
        lowest = record(world, held, payer, "late")
        others = [world.cdrs.create(call(payer, call_id=f"{index}")).id for index in range(40)]
        assert lowest < min(others)
        told = parts(feed)
        assert sorted(ids(told)) == others
    rest = parts(feed, told[-1].cursor)
    assert ids(rest) == [lowest]
    assert ids(parts(feed, rest[-1].cursor)) == []


def test_readers_that_stop_at_any_position_while_many_record(
    world: World, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PART_CDRS", 7)
    tenants = [world.tenant() for _ in range(2)]
    world.rate(tenants[0], "44")
    stop = threading.Event()

    def recorder(number: int) -> Callable[[], None]:
        own = World.over(world.database)

        def run() -> None:
            for turn in range(12):
                tenant_id = tenants[turn % 2]
                first = 1000 * number + 10 * turn
                own.commit(0, 0, calls(tenant_id, first, 9))
                own.cdrs.create(call(tenant_id, call_id=f"c{first + 9}", started_at_ns=NOON_NS))

        return run

    def reader(seed: int, tenant_id: int, found: list[int]) -> Callable[[], None]:
        chance = random.Random(seed)

        def run() -> None:
            cursor = ""
            while True:
                last_time = stop.is_set()
                left = chance.randrange(1, 6)
                for part in feed.watch(tenant_id, cursor, from_now=False, follow=not last_time):
                    if part is not None:
                        found.extend(cdr.id for cdr in part.cdrs)
                        cursor = part.cursor
                        left -= 1
                    if (left <= 0 or stop.is_set()) and not last_time:
                        break
                if last_time:
                    return

        return run

    found: list[list[int]] = [[], [], []]
    readers = [
        threading.Thread(target=reader(seed, tenant_id, found[seed]))
        for seed, tenant_id in enumerate((0, 0, tenants[0]))
    ]
    writers = [threading.Thread(target=recorder(number)) for number in range(4)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    every = sorted(row.id for row in world.rows())
    assert len(every) == 4 * 12 * 10
    assert sorted(found[0]) == every
    assert sorted(found[1]) == every
    assert sorted(found[2]) == sorted(row.id for row in world.rows() if row.tenant_id == tenants[0])


def test_it_waits_for_later_cdrs(world: World, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(module, "COUNT_SECONDS", 0.01)
    payer = world.tenant()
    stream = feed.watch(0, "", from_now=False, follow=True)
    first = next(stream)
    assert first is not None and first.caught_up and first.cdrs == []
    assert [next(stream) for _ in range(5)] == [None] * 5
    one = world.cdrs.create(call(payer))
    part = next(part for part in stream if part is not None)
    assert part.cdrs == [one]


@pytest.mark.parametrize("cursor", ["x", "W10", "WyIiXQ", "a" * 5000, "ä"])
def test_invalid_cursors(world: World, feed: Feed, cursor: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        feed.watch(0, cursor, from_now=False, follow=False)
    assert [wrong.field for wrong in refused.value.violations] == ["cursor"]


def test_cursors_of_other_feeds(world: World, feed: Feed) -> None:
    payer, other = world.tenant(), world.tenant()
    world.commit(0, 0, calls(payer, 0, 3))
    (told,) = parts(feed)
    reader = module._FeedReader(world.database, 0, None)
    present = reader.position(told.cursor, from_now=False).lengths
    refused = [
        (told.cursor, other, None),  # of all tenants
        (told.cursor, 0, (payer,)),  # of every tenant
        *(
            (reader.cursor(position), 0, None)
            for position in (
                # Beyond the end, as after an older backup was restored.
                module.Position((present[0] + 1, *present[1:])),
                module.Position((*present, *[0] * 300)),
                module.Position((*present, *[1] * 20)),
                module.Position(tuple(-1 for _ in present)),
                # Within an entry that does not exist, or that has no such row.
                module.Position(present, 0, 1),
                module.Position((0,) * len(present), 0, 3),
                module.Position(present, 2**62, 1),
                module.Position(present, -1, 1),
            )
        ),
    ]
    for cursor, tenant_id, within in refused:
        with ExitStack() as stack:
            if within:
                stack.enter_context(scope(*within))
            with pytest.raises(InvalidInput) as failure:
                feed.watch(tenant_id, cursor, from_now=False, follow=False)
        assert [wrong.field for wrong in failure.value.violations] == ["cursor"]
    with pytest.raises(InvalidInput) as failure:
        feed.watch(0, told.cursor, from_now=True, follow=False)
    assert [wrong.field for wrong in failure.value.violations] == ["from_now"]


def test_tenants_that_the_caller_may_not_see_do_not_exist(world: World, feed: Feed) -> None:
    payer, other = world.tenant(), world.tenant()
    for tenant_id in (payer, 10**9):
        with scope(other), pytest.raises(NotFound) as failure:
            feed.watch(tenant_id, "", from_now=False, follow=False)
        assert failure.value.reason == Reason.TENANT_NOT_FOUND
    with pytest.raises(InvalidInput):
        feed.watch(-1, "", from_now=False, follow=False)
