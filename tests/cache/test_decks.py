"""Decks in memory follow the database, whichever worker changes it."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest

import ratingcore
from tests.world import NOON_NS, World, call
from tollwire.service.cache.decks import Decks, TenantDeck
from tollwire.service.domain.errors import NotFound, Reason, Unavailable
from tollwire.service.domain.model import ImportMode, Interval, Rate, Rounding, Tenant
from tollwire.service.storage import changes
from tollwire.service.storage import decks as storage
from tollwire.service.storage.change_follower import ChangeFollower
from tollwire.service.storage.changes import ChangeWatch
from tollwire.service.storage.dialects import sqlite_wakeups
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.parties import hold_parties

_DEADLINE_SECONDS = 20


@pytest.fixture
def writer(database: Database) -> World:
    """The worker that makes all changes. With tenant 1."""
    world = World.over(database)
    world.tenant()
    return world


@pytest.fixture
def other(writer: World, database_url: str) -> Iterator[Decks]:
    """The loaded decks of another worker, with its own connection pool."""
    database = Database(database_url)
    decks = Decks(database)
    decks.load()
    yield decks
    decks.close()
    database.close()


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.002)


def _infos(deck: TenantDeck) -> list[ratingcore.RateInfo]:
    """All rates of a deck. The indexes of unused terms have none."""
    found: list[ratingcore.RateInfo] = []
    for index in range(2 * len(deck.deck) + 1):
        with suppress(IndexError):
            found.append(deck.deck.rate_at(index))
    assert len(found) == len(deck.deck)
    return found


def _rates(deck: TenantDeck) -> set[tuple[int, int, str, str, int, bool]]:
    return {
        (
            *(rate.version_id, rate.rate_id, rate.prefix, rate.destination),
            *(rate.cost_per_minute_e8, rate.blocked),
        )
        for rate in _infos(deck)
    }


def _same(decks: Decks, world: World, tenant_id: int) -> bool:
    """Whether the decks in memory equal those in the database."""
    deck = decks.deck(tenant_id)
    stored = {
        (
            *(rate.version_id, rate.id, rate.prefix, rate.destination),
            *(rate.cost_per_minute_e8, rate.blocked),
        )
        for part in world.rates.export(tenant_id)
        for rate in part
    }
    return _rates(deck) == stored and deck.tenant == world.tenants.get(tenant_id)


def test_all_decks_are_loaded(writer: World, other: Decks) -> None:
    second = writer.tenant(name="second", rounding=Rounding.UP, country_code="49")
    rate = writer.rates.create(
        Rate(
            tenant_id=second,
            prefix="447",
            destination="UK",
            cost_per_minute_e8=1500_0000,
            billing_increment=6,
            connect_fee_e8=3_0000,
            minimum_seconds=9,
            intervals=(Interval(60, 1000, 1),),
            effective_from_ns=-(10**19),
            effective_to_ns=10**20,
            blocked=True,
        )
    )
    writer.rates.delete(writer.rate(second, "1").id, "")
    fresh = Decks(writer.database)
    fresh.load()
    deck = fresh.deck(second)
    assert deck.tenant == writer.tenants.get(second)
    assert deck.deck.rounding == Rounding.UP
    assert deck.revision == writer.decks.deck(second).revision
    (info,) = _infos(deck)
    assert (info.version_id, info.rate_id, info.prefix) == (rate.version_id, rate.id, "447")
    assert info.intervals == ((60, 1000, 1),)
    assert (info.connect_fee_e8, info.minimum_seconds, info.blocked) == (30_000, 9, True)
    assert fresh.size() == (2, 1)


def test_a_change_through_one_worker_reaches_the_others(writer: World, other: Decks) -> None:
    other.follow()

    def reaches(what: str) -> TenantDeck:
        revision = writer.decks.deck(1).revision
        _wait_for(lambda: other.deck(1).revision == revision, what)
        assert _same(other, writer, 1)
        return other.deck(1)

    rate = writer.rate(1, "44")
    assert len(reaches("a creation").deck) == 1
    rate = writer.rates.update(
        replace(rate, prefix="49", cost_per_minute_e8=1_0000),
        frozenset({"prefix", "cost_per_minute_e8"}),
        "",
    )
    assert [info.prefix for info in _infos(reaches("an update"))] == ["49"]
    deck = [Rate(prefix=str(prefix)) for prefix in range(300)]
    writer.import_deck(1, ImportMode.REPLACE, False, deck)
    assert len(reaches("an import").deck) == 300
    writer.tenants.update(Tenant(id=1, rounding=Rounding.DOWN), frozenset({"rounding"}))
    changed = reaches("a rounding")
    assert (changed.tenant.rounding, changed.deck.rounding) == (Rounding.DOWN, Rounding.DOWN)
    writer.import_deck(1, ImportMode.REPLACE, False, [])
    assert len(reaches("a deletion").deck) == 0
    created = writer.tenant()
    assert other.deck(created).revision == 1
    writer.tenants.delete(1)
    _wait_for(lambda: other.size()[0] == 1, "a tenant's deletion")
    writer.tenants.create(Tenant(id=1, name="again"))
    assert reaches("a tenant created again").tenant.name == "again"


def test_any_sequence_of_changes_gives_what_a_fresh_load_gives(writer: World, other: Decks) -> None:
    pick = random.Random(7)
    writer.tenant()
    for step in range(60):
        tenant_id = pick.choice((1, 2))
        rates = [rate for part in writer.rates.export(tenant_id) for rate in part]
        kind = pick.choice(("create", "create", "update", "delete", "import", "rules", "again"))
        if kind == "create":
            writer.rate(tenant_id, str(10**9 + step), cost_e4=step)
        elif kind == "update" and rates:
            sent = replace(pick.choice(rates), prefix=str(2 * 10**9 + step), blocked=True)
            writer.rates.update(sent, frozenset({"prefix", "blocked"}), "")
        elif kind == "delete" and rates:
            writer.rates.delete(pick.choice(rates).id, "")
        elif kind == "import":
            deck = [Rate(prefix=str(pick.randint(0, 99))) for _ in range(20)]
            unique = list({rate.prefix: rate for rate in deck}.values())
            mode = pick.choice((ImportMode.MERGE, ImportMode.REPLACE))
            writer.import_deck(tenant_id, mode, False, unique)
        elif kind == "rules":
            tenant = Tenant(id=tenant_id, name=str(step), country_code=str(1 + step))
            writer.tenants.update(tenant, frozenset({"name", "country_code"}))
        elif kind == "again":
            writer.tenants.delete(tenant_id)
            writer.tenants.create(Tenant(id=tenant_id, name=f"again {step}"))
        if pick.random() < 0.5:
            other.refresh()
            assert all(_same(other, writer, tenant) for tenant in (1, 2)), (step, kind)
    other.refresh()
    assert all(_same(other, writer, tenant) for tenant in (1, 2))
    assert all(_same(writer.decks, writer, tenant) for tenant in (1, 2))


def test_an_unknown_tenant_is_looked_for_in_the_database(writer: World, other: Decks) -> None:
    created = writer.tenant()
    assert other.deck(created).tenant.id == created
    with pytest.raises(NotFound) as raised:
        other.deck(99)
    assert raised.value.reason == Reason.TENANT_NOT_FOUND
    assert raised.value.metadata == {"tenant_id": "99"}


def test_a_deck_in_use_does_not_change(writer: World) -> None:
    writer.rate(1, "44")
    held = writer.decks.deck(1)
    before = _rates(held)
    writer.rates.delete(1, "")
    assert _rates(held) == before
    assert held.deck.rate("4420", NOON_NS, 60, True).rate_id == 1
    assert len(writer.decks.deck(1).deck) == 0


def test_a_writing_transaction_catches_up_with_committed_changes(
    writer: World, other: Decks, database_url: str
) -> None:
    database = Database(database_url)
    try:
        writer.rate(1, "44")
        assert other.deck(1).revision == 1
        with database.write() as connection:
            other.catch_up(connection)
            assert other.deck(1).revision == 2
        # A CDR is priced with it, although this worker has not been notified.
        late = World.over(database)
        writer.rates.update(
            Rate(id=1, cost_per_minute_e8=12_0000_0000), frozenset({"cost_per_minute_e8"}), ""
        )
        assert late.decks.deck(1).revision == 2
        assert late.cdrs.create(call(1, "4420", 60)).cost_e8 == 12_0000_0000
    finally:
        database.close()


def test_a_deck_is_seen_complete_and_never_an_older_one(writer: World, other: Decks) -> None:
    writer.import_deck(1, ImportMode.REPLACE, False, _deck_at(0))
    other.refresh()
    other.follow()
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        last = 0
        while not stop.is_set():
            deck = other.deck(1)
            if deck.revision < last:
                wrong.append(f"revision {deck.revision} after {last}")
            last = deck.revision
            costs = {
                deck.deck.rate(number, NOON_NS, 60, True).cost_scaled
                for number in ("100", "250", "399")
            }
            if len(costs) != 1 or len(deck.deck) != 300:
                wrong.append(f"{len(deck.deck)} rates at {costs}")

    def refresh() -> None:
        while not stop.is_set():
            other.refresh()

    threads = [threading.Thread(target=target) for target in (read, read, refresh)]
    for thread in threads:
        thread.start()
    try:
        for cost in range(1, 8):
            writer.import_deck(1, ImportMode.REPLACE, False, _deck_at(cost))
        revision = writer.decks.deck(1).revision
        _wait_for(lambda: other.deck(1).revision == revision, "the last import")
    finally:
        stop.set()
        for thread in threads:
            thread.join(_DEADLINE_SECONDS)
    assert wrong == []


def _deck_at(cost_e4: int) -> list[Rate]:
    return [
        Rate(prefix=str(prefix), cost_per_minute_e8=cost_e4 * 10_000) for prefix in range(100, 400)
    ]


def test_an_absent_database_is_survived(
    writer: World, other: Decks, caplog: pytest.LogCaptureFixture
) -> None:
    """It serves the old decks meanwhile, and finds the changes when the database is back."""
    writer.rate(1, "44")
    other.refresh()
    other.follow()
    _rename(writer.database, "deck_clock", "away")
    _wait_for(lambda: "cannot follow" in caplog.text, "a warning")
    assert len(other.deck(1).deck) == 1
    _rename(writer.database, "away", "deck_clock")
    writer.rate(1, "49")
    _wait_for(lambda: len(other.deck(1).deck) == 2, "the change")
    _wait_for(lambda: "following the changes of rates again" in caplog.text, "the good news")
    assert caplog.text.count("cannot follow") == 1


def test_lost_connections_are_made_again(writer: World, other: Decks) -> None:
    if writer.database.is_sqlite:
        return
    other.follow()
    writer.rate(1, "44")
    _wait_for(lambda: len(other.deck(1).deck) == 1, "the change")
    with writer.database.write() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    writer.rate(1, "49")
    _wait_for(lambda: len(other.deck(1).deck) == 2, "the change after the loss")


def test_the_database_notifies_of_a_change(
    writer: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "IDLE_SECONDS", 1000.0)
    known_seq = _clock(writer)
    told = Database(database_url)
    watch = ChangeWatch(told, storage.CLOCK)
    closing, other_end = socket.socketpair()
    is_seen = threading.Event()

    def wait_for_the_change() -> None:
        while not watch.has_moved(known_seq):
            watch.wait(closing)
        is_seen.set()

    threading.Thread(target=wait_for_the_change, daemon=True).start()
    assert not is_seen.wait(0.05)
    writer.rate(1, "44")
    assert is_seen.wait(_DEADLINE_SECONDS)
    assert not watch.has_moved(_clock(writer))
    watch.close()
    for end in (closing, other_end):
        end.close()
    told.close()


def test_looks_get_rarer_while_commits_follow_each_other(
    writer: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not writer.database.is_sqlite:
        return  # PostgreSQL notifies of changes only
    monkeypatch.setattr(sqlite_wakeups.LogWrites, "settle_seconds", 1000.0)
    pauses: list[float] = []
    monkeypatch.setattr(changes, "_wait_for", lambda _, seconds: pauses.append(seconds))
    told = Database(database_url)
    watch = ChangeWatch(told, storage.CLOCK)
    closing, other_end = socket.socketpair()
    writer.rate(1, "44")
    for number in range(6):
        assert watch.has_moved(_clock(writer)) is False
        watch.wait(closing)
        writer.rate(1, f"45{number}")
    assert pauses == [0.005, 0.01, 0.02, 0.02, 0.02]
    watch.close()
    for end in (closing, other_end):
        end.close()
    told.close()


def test_a_change_without_a_notification_is_found(writer: World, database: Database) -> None:
    """As with a pooler that executes LISTEN on another connection each time."""
    with database.read() as connection:
        known_seq = storage.change_seq(connection)
    seen = threading.Event()
    follower = ChangeFollower(
        *(
            database,
            replace(storage.CLOCK, channel="another"),
            "changes",
            logging.getLogger("test"),
        ),
        known_seq=lambda: known_seq,
        refresh=seen.set,
    )
    follower.start()
    assert not seen.wait(0.1)
    writer.rate(1, "44")
    assert seen.wait(_DEADLINE_SECONDS), "the change"
    follower.close()


def test_a_committed_change_is_a_success_though_it_cannot_be_read_back() -> None:
    nowhere = Decks(Database("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    with pytest.raises(Unavailable):
        nowhere.refresh()
    nowhere.refresh_after_commit()


class Noting(Decks):
    """Records on which connections decks are built."""

    built_on: list[Connection]

    def catch_up(self, connection: Connection, change_seq: int | None = None) -> None:
        before = self._known_seq
        super().catch_up(connection, change_seq)
        if self._known_seq > before:
            self.built_on.append(connection)


@pytest.fixture
def noting(writer: World, database_url: str) -> Iterator[Noting]:
    database = Database(database_url)
    decks = Noting(database)
    decks.built_on = []
    decks.load()
    yield decks
    database.close()


def test_a_writing_transaction_finds_the_decks_caught_up(writer: World, noting: Noting) -> None:
    writer.import_deck(1, ImportMode.REPLACE, False, _deck_at(1))
    with noting.writing() as connection:
        assert len(noting.deck(1).deck) == 300
        noting.catch_up(connection)
        assert len(noting.built_on) == 1 and connection not in noting.built_on
    with noting.writing():
        assert len(noting.built_on) == 1
    writer.rate(1, "45")
    hold = partial(hold_parties, tenant_ids={1}, extension_ids=set(), cdr_count=1)
    with noting.recording(hold) as (connection, parties):
        assert parties.tenant_ids == {1}
        assert len(noting.built_on) == 2 and connection not in noting.built_on
        assert noting.deck(1).revision == writer.decks.deck(1).revision
    with suppress(KeyError), noting.writing():
        raise KeyError("what happens in the transaction ends it once")
    # And no thread waits for it.
    writer.rate(1, "44")


def test_a_commit_while_a_transaction_waits_is_not_read_within_it(
    writer: World, noting: Noting
) -> None:
    """Another worker writes after the first has caught up, as with consecutive imports."""

    class Racing(Noting):
        imports = 0

        def refresh(self) -> None:
            super().refresh()
            if self.imports < self.limit:
                self.imports += 1
                writer.import_deck(1, ImportMode.REPLACE, False, _deck_at(self.imports))

        limit = 1

    racing = Racing(noting._database)
    racing.built_on = []
    racing.load()
    writer.rate(1, "44")
    with racing.writing() as connection:
        assert racing.imports == 1
        assert len(racing.deck(1).deck) == 300
        assert len(racing.built_on) == 2 and connection not in racing.built_on
    # If that does not end, the transaction begins anyway, and catches up itself.
    racing.limit = 100
    writer.rate(1, "45")
    with racing.writing() as connection:
        racing.catch_up(connection)
        assert connection in racing.built_on
        assert racing.deck(1).revision == writer.decks.deck(1).revision
    assert racing.imports < 100


def test_closing_ends_the_follower(writer: World, other: Decks) -> None:
    other.follow()
    other.close()
    assert not any(thread.name == "decks" for thread in threading.enumerate())


def test_the_clock_orders_changes_as_they_were_committed(writer: World) -> None:
    for _ in range(3):
        writer.rate(writer.tenant(), "44")
    writer.rate(2, "49")
    with writer.database.read() as connection:
        states = storage.changed_since(connection, 0)
        last = storage.change_seq(connection)
        assert storage.changed_since(connection, last) == []
    assert [state.tenant_id for state in states] == [1, 3, 4, 2]
    assert [state.change_seq for state in states] == sorted(state.change_seq for state in states)
    assert states[-1].change_seq == last


def _clock(world: World) -> int:
    with world.database.read() as connection:
        return storage.change_seq(connection)


def _rename(database: Database, table: str, to: str) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {to}")
