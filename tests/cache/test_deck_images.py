"""Decks that the workers of a server share: who builds, who maps, and what is refused."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from ratingcore import Deck, DeckBuilder
from tests.world import NOON_NS, World
from tollwire.service.cache.deck_images import (
    ALL_DECKS,
    MAX_SINGLE_IMAGES,
    Answer,
    DeckImages,
    Exchange,
)
from tollwire.service.cache.deck_sharing import DeckSharing
from tollwire.service.cache.decks import Decks
from tollwire.service.domain.errors import Unavailable
from tollwire.service.domain.model import ImportMode, Rate, Rounding, Tenant
from tollwire.service.storage import decks as storage
from tollwire.service.storage.engine import Connection, Database

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
DEADLINE_SECONDS = 20


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    found = Exchange()
    yield found
    found.close()


@pytest.fixture
def join(exchange: Exchange) -> Iterator[Callable[[], DeckImages]]:
    """Makes the images of a worker."""
    made: list[DeckImages] = []

    def connect() -> DeckImages:
        made.append(DeckImages(exchange.connect()))
        return made[-1]

    yield connect
    for images in made:
        images.close()


Join = Callable[[], DeckImages]


def deck_at(revision: int, prefix: str = "44") -> Deck:
    builder = DeckBuilder()
    builder.put(revision, revision, prefix, "UK", 100, 60)
    return builder.build(revision)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class Raw:
    """A worker that sends what it should not."""

    def __init__(self, exchange: Exchange) -> None:
        self.socket = exchange.connect()
        self.socket.settimeout(DEADLINE_SECONDS)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def publish(self, tenant_id: int, revision: int, data: bytes, seals: int = SEALS) -> None:
        descriptor = os.memfd_create("decks", os.MFD_ALLOW_SEALING)
        os.write(descriptor, data)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        message = {"do": "publish", "tenant": tenant_id, "revision": revision, "seq": 1}
        socket.send_fds(self.socket, [json.dumps(message).encode()], [descriptor])
        os.close(descriptor)
        assert self.socket.recv(4096) == b"{}"


def image_of(tenant_id: int, deck: Deck) -> bytes:
    from ratingcore.deck.image import write_image

    descriptor = os.memfd_create("decks")
    try:
        write_image([(tenant_id, deck)], descriptor)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


# --- The exchange ---------------------------------------------------------------------------------


def test_one_worker_builds_and_the_others_map(join: Join) -> None:
    first, second = (join() for _ in range(2))
    assert first.take(7, 3) is Answer.BUILD
    assert first.take(7, 3) is Answer.BUILD  # it still has the claim
    assert second.take(7, 3) is Answer.WAIT
    published = first.publish(7, 3, 5, [(7, deck_at(3))])
    found = second.take(7, 3)
    assert not isinstance(found, Answer)
    for decks in (published, found):
        assert decks.keys() == {7}
        assert decks[7].is_mapped and decks[7].revision == 3
        decks[7]._check()
        assert list(decks[7]) == list(deck_at(3))
    assert second.take(7, 4) is Answer.BUILD
    assert second.take(8, 3) is Answer.BUILD


def test_a_worker_waits_for_the_one_that_builds(join: Join) -> None:
    first, second = (join() for _ in range(2))
    assert first.take(7, 3) is Answer.BUILD
    threading.Timer(0.1, lambda: first.publish(7, 3, 5, [(7, deck_at(3))])).start()
    found = second.take(7, 3, DEADLINE_SECONDS)
    assert not isinstance(found, Answer) and found[7].revision == 3
    began = time.monotonic()
    assert first.take(7, 4) is Answer.BUILD
    assert second.take(7, 4, 0.05) is Answer.WAIT
    assert 0.05 <= time.monotonic() - began < 5


@pytest.mark.parametrize("how", ["give up", "dies"])
def test_a_claim_ends_with_its_worker(join: Join, how: str) -> None:
    first, second = join(), join()
    assert first.take(7, 3) is Answer.BUILD
    if how == "dies":
        first.close()
    else:
        first.give_up(7)
    wait_for(lambda: second.take(7, 3) is Answer.BUILD, "the claim")


def test_the_newest_deck_of_a_tenant_counts(join: Join) -> None:
    one = join()
    every = [(1, deck_at(5)), (2, deck_at(5, "1"))]
    one.publish(ALL_DECKS, 10, 10, every)
    one.publish(1, 7, 11, [(1, deck_at(7))])
    one.publish(1, 6, 12, [(1, deck_at(6))])  # late: it does not replace the newer one
    one.publish(2, 4, 12, [(2, deck_at(4))])
    found = one.take(ALL_DECKS, 0)
    assert not isinstance(found, Answer)
    assert {tenant: deck.revision for tenant, deck in found.items()} == {1: 7, 2: 5}
    # A new image of all decks replaces those with a change that is in it.
    before = open_descriptors()
    one.publish(ALL_DECKS, 11, 11, every)
    assert open_descriptors() == before - 1
    found = one.take(ALL_DECKS, 0)
    assert not isinstance(found, Answer)
    assert {tenant: deck.revision for tenant, deck in found.items()} == {1: 5, 2: 5}


def test_the_number_of_images_is_limited(join: Join) -> None:
    one = join()
    one.publish(ALL_DECKS, 1, 1, [])
    before = open_descriptors()
    for tenant_id in range(1, MAX_SINGLE_IMAGES + 11):
        one.publish(tenant_id, 5, 2, [(tenant_id, deck_at(5))])
    assert open_descriptors() == before + MAX_SINGLE_IMAGES
    found = one.take(ALL_DECKS, 0)
    assert not isinstance(found, Answer)
    assert min(found) == 11 and len(found) == MAX_SINGLE_IMAGES
    assert open_descriptors() == before + MAX_SINGLE_IMAGES


def test_two_servers_share_nothing(join: Join) -> None:
    other = Exchange()
    images = DeckImages(other.connect())
    join().publish(7, 3, 5, [(7, deck_at(3))])
    assert images.take(7, 3) is Answer.BUILD
    images.close()
    other.close()


def test_an_image_cannot_be_changed_and_outlives_its_worker(exchange: Exchange, join: Join) -> None:
    second = join()
    with Raw(exchange) as first:
        first.publish(7, 3, image_of(7, deck_at(3)))
    (content, descriptors) = second._request({"do": "take", "tenant": 7, "revision": 3})
    assert content == {"answer": "FOUND"}
    (descriptor,) = descriptors
    for change in (
        lambda: os.pwrite(descriptor, b"x", 0),
        lambda: os.ftruncate(descriptor, 0),
        lambda: os.ftruncate(descriptor, 10**6),
    ):
        with pytest.raises(PermissionError):
            change()
    os.close(descriptor)


def _damaged() -> bytes:
    data = bytearray(image_of(7, deck_at(3)))
    data[-100] ^= 255
    data[200] ^= 255
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "seals", "message"),
    [
        (image_of(7, deck_at(3)), fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW, "can still be changed"),
        (_damaged(), SEALS, "the deck of tenant 7 is damaged"),
        (image_of(7, deck_at(3))[:-64], SEALS, "cut off"),
        (b"", SEALS, "no decks"),
        (bytes(1000), SEALS, "no decks"),
        (image_of(8, deck_at(3)), SEALS, "not that of tenant 7 at 3"),
        (image_of(7, deck_at(2)), SEALS, "not that of tenant 7 at 3"),
    ],
)
def test_an_image_that_is_not_valid_is_refused(
    exchange: Exchange,
    join: Join,
    caplog: pytest.LogCaptureFixture,
    data: bytes,
    seals: int,
    message: str,
) -> None:
    with Raw(exchange) as other:
        other.publish(7, 3, data, seals)
    worker = join()
    before = open_descriptors()
    assert worker.take(7, 3) is Answer.ALONE
    assert open_descriptors() <= before
    # From now on it is alone, and says so once.
    assert worker.take(7, 4) is Answer.ALONE
    assert worker.publish(7, 4, 1, [(7, deck_at(4))]) == {}
    worker.give_up(7)
    (record,) = [one for one in caplog.records if one.name == "tollwire.decks"]
    assert record.levelno == logging.WARNING
    assert message in record.getMessage()


def test_without_a_supervisor_a_worker_is_alone(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker = DeckImages(theirs)
    ours.close()
    assert worker.take(7, 3, 60) is Answer.ALONE
    assert worker.publish(7, 3, 1, [(7, deck_at(3))]) == {}
    assert len(caplog.records) == 1


# --- The decks of workers -------------------------------------------------------------------------


@pytest.fixture
def worker(database_url: str, join: Join) -> Iterator[Callable[[], World]]:
    """Makes workers of one server, each with a connection pool of its own."""
    with ExitStack() as stack:

        def make() -> World:
            database = Database(database_url)
            stack.callback(database.close)
            decks = Decks(database, images=join())
            stack.callback(decks.close)
            return World.over(database, decks)

        yield make


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deck is large from 200 rates on."""
    monkeypatch.setattr("tollwire.service.cache.decks.LARGE_CHANGE", 200)
    for module in ("decks", "deck_sharing"):
        monkeypatch.setattr(f"tollwire.service.cache.{module}.MIN_SHARED_BYTES", 4096)
    monkeypatch.setattr(DeckSharing.__init__, "__defaults__", (0.3,))


def big_deck(price_e8: int = 100) -> list[Rate]:
    return [
        Rate(prefix=str(prefix), cost_per_minute_e8=price_e8, billing_increment=1)
        for prefix in range(10_000, 10_300)
    ]


def prices(world: World, tenant_id: int = 1) -> set[int]:
    return {rate.cost_per_minute_e8 for rate in world.decks.deck(tenant_id).deck}


def agree(*worlds: World) -> None:
    """All hold what the database holds."""
    fresh = Decks(worlds[0].database)
    fresh.load()
    for world in worlds:
        world.decks.refresh()
        assert world.decks.size() == fresh.size()
        for tenant_id in fresh._decks:
            found, expected = world.decks.deck(tenant_id), fresh.deck(tenant_id)
            found.deck._check()
            assert (found.tenant, found.revision) == (expected.tenant, expected.revision)
            assert found.deck.rounding == expected.deck.rounding
            assert list(found.deck) == list(expected.deck)


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on to read the rates of a whole deck is an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("the rates are read")

    monkeypatch.setattr(storage, "present_rates", refuse)
    monkeypatch.setattr(storage, "rates_come", refuse)


def test_a_start_with_decks(
    database: Database, worker: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = World.over(database)
    tenants = [plain.tenant(name=f"Tenant {number}") for number in range(3)]
    for tenant_id in tenants[:2]:
        plain.rate(tenant_id, "44")
    first = worker()
    assert all(first.decks.deck(one).deck.is_mapped for one in tenants)
    with monkeypatch.context() as patched:
        no_reading(patched)
        second = worker()
    assert all(second.decks.deck(one).deck.is_mapped for one in tenants)
    agree(first, second)
    # A change after the image: the next worker maps it and reads the change.
    rate = first.rate(tenants[0], "447")
    first.rates.delete(rate.id, "")
    first.rate(tenants[0], "448")
    first.tenants.update(Tenant(id=tenants[1], rounding=Rounding.UP), frozenset({"rounding"}))
    first.tenants.delete(tenants[2])
    first.tenants.create(Tenant(id=tenants[2], name="again"))
    fourth = first.tenant(name="new")
    first.rate(fourth, "1")
    with monkeypatch.context() as patched:
        patched.setattr(storage, "present_rates", None)
        third = worker()
    agree(first, second, third)


def test_a_start_without_decks(
    worker: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = worker()
    with monkeypatch.context() as patched:
        no_reading(patched)
        second = worker()
    tenant_id = first.tenant()
    first.rate(tenant_id, "44")
    agree(first, second, worker())


def test_with_many_outdated_decks_a_worker_reads_all_and_publishes_them(
    database: Database, worker: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollwire.service.cache.decks.MAX_OUTDATED", 1)
    plain = World.over(database)
    tenants = [plain.tenant() for _ in range(3)]
    first = worker()
    for tenant_id in tenants:
        first.rate(tenant_id, "44")
    second = worker()
    assert all(second.decks.deck(one).deck.is_mapped for one in tenants)
    with monkeypatch.context() as patched:
        no_reading(patched)
        third = worker()
    agree(first, second, third)


def test_a_restored_database_is_read_anew(database: Database, worker: Callable[[], World]) -> None:
    """An image that is newer than the database is not used."""
    plain = World.over(database)
    plain.rate(plain.tenant(), "44")
    first = worker()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE decks SET revision = 1")
    assert first.decks.deck(1).revision == 2
    assert worker().decks.deck(1).revision == 1


def test_an_imported_deck_is_built_once(
    database: Database, worker: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    World.over(database).tenant()
    first, second = worker(), worker()
    second.decks.follow()
    for mode, price in (
        (ImportMode.MERGE, 100),
        (ImportMode.REPLACE, 200),
        (ImportMode.MERGE, 300),
    ):
        with monkeypatch.context() as patched:
            no_reading(patched)
            first.import_deck(1, mode, False, big_deck(price))
            revision = first.decks.deck(1).revision
            wait_for(lambda: second.decks.deck(1).revision == revision, "the import")  # noqa: B023
        for world in (first, second):
            assert world.decks.deck(1).deck.is_mapped
            assert prices(world) == {price}
    agree(first, second)
    # The next worker maps it as well, and so it does after a change of one rate.
    with monkeypatch.context() as patched:
        no_reading(patched)
        agree_ = worker()
    assert agree_.decks.deck(1).deck.is_mapped
    first.rate(1, "44")
    agree(first, second, agree_, worker())


def test_an_import_by_another_server_is_read_by_one_worker(
    database: Database, worker: Callable[[], World]
) -> None:
    elsewhere = World.over(database)
    elsewhere.tenant()
    first, second = worker(), worker()
    elsewhere.import_deck(1, ImportMode.REPLACE, False, big_deck())
    for world in (first, second):
        world.decks.refresh()
        assert world.decks.deck(1).deck.is_mapped
    agree(first, second)


def test_an_import_that_fails_leaves_no_image_and_no_claim(
    database: Database, worker: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    World.over(database).tenant()
    first, second = worker(), worker()

    def fail(*_: object) -> None:
        raise Unavailable("DATABASE_UNAVAILABLE", "as the test wants it")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "advance", fail)
        with pytest.raises(Unavailable):
            first.import_deck(1, ImportMode.REPLACE, False, big_deck(100))
    revision = first.decks.deck(1).revision
    images = second.decks._images
    assert images is not None
    assert images.take(1, revision + 1) is Answer.BUILD
    images.give_up(1)
    # The same revision, with other rates.
    first.import_deck(1, ImportMode.REPLACE, False, big_deck(200))
    second.decks.refresh()
    assert second.decks.deck(1).revision == revision + 1
    assert prices(second) == {200}
    agree(first, second)


def test_a_worker_that_dies_with_a_claim_holds_up_nobody(
    database: Database, join: Join, worker: Callable[[], World]
) -> None:
    elsewhere = World.over(database)
    elsewhere.tenant()
    first = worker()
    victim = join()
    assert victim.take(1, 2) is Answer.BUILD
    elsewhere.import_deck(1, ImportMode.REPLACE, False, big_deck())
    threading.Timer(0.2, victim.close).start()
    first.decks.refresh()
    agree(first)


def test_a_worker_that_publishes_nothing_is_not_waited_for_long(
    database: Database,
    join: Join,
    worker: Callable[[], World],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tollwire.service.cache.decks.BUILD_WAIT_SECONDS", 0.05)
    elsewhere = World.over(database)
    elsewhere.tenant()
    first = worker()
    hangs = join()
    assert hangs.take(1, 2) is Answer.BUILD
    elsewhere.import_deck(1, ImportMode.REPLACE, False, big_deck())
    agree(first)
    assert not first.decks.deck(1).deck.is_mapped


def test_a_load_that_fails_gives_up_its_claim(
    database: Database, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = World.over(database)
    plain.rate(plain.tenant(), "44")
    first, second = (Decks(database, images=join()) for _ in range(2))

    def fail(connection: Connection, known_seq: int) -> None:
        raise Unavailable("DATABASE_UNAVAILABLE", "as the test wants it")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "changed_since", fail)
        with pytest.raises(Unavailable):
            first.load()
    second.load()
    first.load()
    assert first.deck(1).deck.is_mapped and second.deck(1).deck.is_mapped


def test_a_worker_without_images_goes_on_alone(
    database: Database, exchange: Exchange, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    plain = World.over(database)
    plain.rate(plain.tenant(), "44")
    with Raw(exchange) as other:
        other.publish(ALL_DECKS, 1, b"junk" * 100)
    alone = Decks(database, images=join())
    alone.load()
    assert not alone.deck(1).deck.is_mapped
    plain.import_deck(1, ImportMode.REPLACE, False, big_deck())
    alone.refresh()
    agree(replace(plain, decks=alone))
    assert len([one for one in caplog.records if "not shared" in one.getMessage()]) == 1
    alone.close()


def test_changes_are_shared_once_they_are_quiet(
    database: Database, worker: Callable[[], World]
) -> None:
    plain = World.over(database)
    plain.tenant()
    plain.import_deck(1, ImportMode.REPLACE, False, big_deck())
    workers = [worker() for _ in range(3)]
    for world in workers:
        world.decks.follow()
    for price in (500, 600):
        for step in range(5):
            workers[step % 3].rate(1, f"{price}{step}9999999", cost_e4=price)
            for world in workers:
                world.decks.refresh()
                assert (
                    world.decks.deck(1)
                    .deck.rate(f"{price}{step}9999999", NOON_NS, 60, True)
                    .rate_id
                )
            assert not all(world.decks.deck(1).deck.is_mapped for world in workers)
        wait_for(
            lambda: all(world.decks.deck(1).deck.is_mapped for world in workers),
            "the changed deck is shared",
        )
        agree(*workers)


def test_small_decks_are_not_shared(database: Database, worker: Callable[[], World]) -> None:
    plain = World.over(database)
    plain.tenant()
    first = worker()
    sharing = first.decks._sharing
    assert sharing is not None
    first.rate(1, "44")
    assert sharing._due == {}
