"""Transactions of few calls on PostgreSQL: their round trips, and connections that end in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from benchmarks.postgres_server import PostgresServer
from tests.faults.proxy import Proxy
from tests.world import World, call, calls
from tollwire.service.domain.errors import Reason, Unavailable
from tollwire.service.storage.engine import Database
from tollwire.service.storage.failures import UNKNOWN_OUTCOME
from tollwire.service.storage.schema.migrate import prepare

WAIT_SECONDS = 1.0
_TERMINATE = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def world(postgres: PostgresServer, name: str, proxy: Proxy) -> Iterator[World]:
    """A worker with the proxy before its database, with tenant 1 and its first CDR."""
    database = Database(postgres.url(name, proxy.port), wait_seconds=WAIT_SECONDS)
    prepare(database)
    world = World.over(database)
    world.tenant()
    world.rate(1, "44")
    world.cdrs.create(call(1, call_id="first"))
    yield world
    database.close()


def test_a_call_takes_two_round_trips(world: World, proxy: Proxy) -> None:
    before = proxy.requests
    world.cdrs.create(call(1, call_id="second"))
    assert proxy.requests - before == 2


def _prepared(world: World) -> list[str]:
    """The statements that the session of the pool's only connection has prepared."""
    query = "SELECT name FROM pg_prepared_statements WHERE name LIKE 'tollwire%%'"
    with world.database.read() as connection:
        return list(connection.exec_driver_sql(query).scalars())


def test_statements_are_prepared_again_after_the_driver_has_dropped_them(world: World) -> None:
    before = _prepared(world)
    assert before
    world.cdrs.create(call(1, call_id="second"))
    assert sorted(_prepared(world)) == sorted(before)
    with suppress(KeyError), world.database.write() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("SELECT 1", prepare=True)
        raise KeyError("the transaction rolls back")
    assert _prepared(world) == []
    world.cdrs.create(call(1, call_id="third"))
    # Those of a recorded call; what the tenant and its rates needed is prepared when it is needed.
    again = _prepared(world)
    assert again and set(again) <= set(before)
    world.cdrs.create(call(1, call_id="fourth"))
    assert sorted(_prepared(world)) == sorted(again)


def test_a_small_chunk_takes_two_round_trips(world: World, proxy: Proxy) -> None:
    upload_id = world.commit(0, 0, calls(1, 0, 2)).upload_id
    before = proxy.requests
    assert world.commit(upload_id, 2, calls(1, 2, 8)).created == 8
    assert proxy.requests - before == 2
    upload = world.uploads.get(upload_id)
    assert (upload.committed_offset, upload.created) == (10, 10)
    assert len(world.rows()) == 11


def test_a_chunk_whose_commit_has_no_answer_is_there_once(world: World, proxy: Proxy) -> None:
    upload_id = world.commit(0, 0, calls(1, 0, 2)).upload_id
    proxy.cut_answer(rb"COMMIT\0")
    with pytest.raises(Unavailable) as caught:
        world.commit(upload_id, 2, calls(1, 2, 3))
    assert UNKNOWN_OUTCOME in caught.value.message
    assert proxy.cuts == 1
    assert world.commit(upload_id, 2, calls(1, 2, 3)).created == 3
    assert world.commit(upload_id, 5, calls(1, 5, 1)).committed_offset == 6
    assert len(world.rows()) == 7


def test_dead_connections_of_the_pool_are_replaced(
    world: World, postgres: PostgresServer, name: str
) -> None:
    with world.database.read(), world.database.read():
        pass
    with postgres.connect(name) as other:
        assert len(other.execute(_TERMINATE).fetchall()) >= 2
    assert world.cdrs.create(call(1, call_id="second")).call.call_id == "second"
    with postgres.connect(name) as other:
        other.execute(_TERMINATE)
    world.database.ping()


def test_a_silent_connection_of_the_pool_is_replaced(world: World, proxy: Proxy) -> None:
    proxy.swallow_open()
    assert world.cdrs.create(call(1, call_id="second")).call.call_id == "second"


def test_a_commit_without_an_answer_is_not_reported_as_failed(world: World, proxy: Proxy) -> None:
    proxy.cut_answer(rb"COMMIT\0")
    with pytest.raises(Unavailable) as caught:
        world.cdrs.create(call(1, call_id="second"))
    assert caught.value.reason == Reason.DATABASE_UNAVAILABLE
    assert UNKNOWN_OUTCOME in caught.value.message
    assert proxy.cuts == 1
    assert [row.call_id for row in world.rows()] == ["first", "second"]
    assert world.cdrs.create(call(1, call_id="second")).id == world.rows()[1].id
    assert len(world.rows()) == 2
