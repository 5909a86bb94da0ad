"""Servers behind PgBouncer: in transaction mode everything works, and statement mode is refused.

Transactions of one connection go to different sessions, so all state of a session is lost.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from click.testing import CliRunner

from benchmarks.postgres_server import PostgresServer
from tests.faults.pgbouncer import PROGRAM, PgBouncer
from tests.faults.serving import Sender
from tests.integration.client import Client, chunk, make_call, make_rate
from tests.integration.serving import ServerProcess
from tollwire.service.cli.main import main
from tollwire.service.storage.changes import ChangeWatch
from tollwire.service.storage.decks import CLOCK
from tollwire.service.storage.engine import Database
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed: .ci/tools pgbouncer"),
]


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[PgBouncer]:
    with PgBouncer(postgres) as pooler:
        yield pooler


def test_the_pooler_changes_sessions(pooler: PgBouncer) -> None:
    """A check of the test's set-up: prepared statements are lost."""
    url = pooler.url("postgres").replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url) as two:
        two.execute(
            "SELECT 1"
        )  # it has the first session, so the other connection needs a second one
        one.execute("SELECT 1")
        two.rollback()
        seen = {one.execute("SELECT pg_backend_pid()").fetchone() for _ in range(4)}
        assert len(seen) > 1
        with pytest.raises(psycopg.Error):
            for _ in range(4):
                one.execute("SELECT %s::int", (1,), prepare=True)


def migrated(url: str) -> None:
    done = CliRunner().invoke(main, ["migrate", "--database", url])
    assert done.exit_code == 0, done.output


@pytest.mark.timeout(300)
@pytest.mark.parametrize("has_second_url", [False, True], ids=["one URL", "two URLs"])
def test_everything_works_in_transaction_mode(
    postgres: PostgresServer, pooler: PgBouncer, name: str, has_second_url: bool
) -> None:
    url = pooler.url(name)
    migrated(url)
    # Long, because few sessions and a busy machine make statements wait.
    env = {"TOLLWIRE_DATABASE_WAIT_SECONDS": "60"}
    if has_second_url:
        env["TOLLWIRE_SESSION_DATABASE"] = postgres.url(name)
    with ServerProcess(url, workers=2, **env) as server:
        # As many as leave each of the four sessions enough time, on a busy machine too.
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(lambda part: one_client(server.address, part), range(3)))
        with Client(server.address) as client:
            the_whole_record_is_right(client)
        log = server.log()
        assert "defect" not in log and "Traceback" not in log, log
        assert "--database is a connection pooler" in log
        assert ("--session-database allows" in log) is not has_second_url
        assert server.terminate() == 0


def one_client(address: str, part: int) -> None:
    """Each with its own tenant; several run at one time, over both workers."""
    with Client(address) as client, Client(address) as other, Client(address) as third:
        tenant = client.new_tenant(name=f"tenant {part}")
        client.import_rates(tenant.id, [make_rate(f"44{n}", "0.0200", 6) for n in range(300)])
        assert len(client.export_rates(tenant.id)) > 250
        call = make_call(tenant.id, "999123", 7)
        assert client.create_cdr(call_with(call, "early")).status == types.RATING_STATUS_UNRATED
        rate = client.new_rate(tenant.id, "999", "0.0600", 6)
        # Every worker rates with it.
        until = time.monotonic() + 30
        for one in (client, other, third) * 3:
            while True:
                try:
                    assert one.rate(call).cost == "0.0120"
                    break
                except Exception:
                    assert time.monotonic() < until
                    time.sleep(0.02)
        rate.cost_per_minute = "0.1200"
        client.update_rate(rate, "cost_per_minute")
        for n in range(12):
            created = other.create_cdr(call_with(call, f"single {n}"))
            again = client.create_cdr(call_with(call, f"single {n}"))
            assert again == created
        sender = Sender(client, tenant.id, "sender", chunks=8)
        sender.run()
        sender.check()
        assert sender.breaks == 0
        done = client.cdrs.RateUnrated(cdr_pb.RateUnratedRequest(tenant_id=tenant.id))
        assert done.rated >= 1
        (wrong,) = client.upload(chunk([call_with(call, f"wrong {n}") for n in range(50)]))
        assert wrong.created == 50
        client.cdrs.ReverseUpload(
            cdr_pb.ReverseUploadRequest(
                upload_id=wrong.upload_id, reason="wrong deck", requested_by="desk"
            )
        )
        found = client.list_cdrs(tenant_id=tenant.id, page_size=100)
        assert len(found) == 1 + 12 + sender.total + 50
        assert len({cdr.id for cdr in found}) == len(found)
        request = cdr_pb.ExportCdrsRequest(tenant_id=tenant.id)
        assert sum(len(part.cdrs) for part in client.cdrs.ExportCdrs(request)) == len(found)
        rows = client.cdrs.SummarizeUsage(cdr_pb.SummarizeUsageRequest(tenant_id=tenant.id)).rows
        assert rows[0].calls >= len(found) - 50


def call_with(call: types.Call, call_id: str) -> types.Call:
    made = types.Call()
    made.CopyFrom(call)
    made.call_id = call_id
    return made


def the_whole_record_is_right(client: Client) -> None:
    assert client.verify().differences == []
    *_, last = client.cdrs.VerifyLedger(cdr_pb.VerifyLedgerRequest())
    assert last.done and not last.differences


def test_a_server_sets_up_an_empty_database(pooler: PgBouncer, name: str) -> None:
    with ServerProcess(pooler.url(name)) as server, Client(server.address) as client:
        assert client.new_tenant().id
        assert server.terminate() == 0


def test_notifications_need_sessions(
    postgres: PostgresServer, pooler: PgBouncer, name: str
) -> None:
    migrated(postgres.url(name))
    for url, second, is_told in (
        (pooler.url(name), None, False),
        (pooler.url(name), postgres.url(name), True),
        (postgres.url(name), None, True),
    ):
        database = Database(url, session_url=second)
        watch = ChangeWatch(database, CLOCK)
        try:
            assert database.check_sessions() is (url == pooler.url(name))
            with postgres.connect(name) as admin:
                query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
                assert (admin.execute(f"{query} AND datname = '{name}'".encode()).fetchone()) == (
                    (1,) if is_told else (0,)
                )
        finally:
            watch.close()
            database.close()


def test_an_unreachable_second_url_costs_milliseconds(pooler: PgBouncer, name: str) -> None:
    migrated(pooler.url(name))
    away = "postgresql+psycopg://postgres@127.0.0.1:1/x"
    database = Database(pooler.url(name), session_url=away)
    watch = ChangeWatch(database, CLOCK)
    closing, other_end = socket.socketpair()
    try:
        assert not watch.has_moved(0)
        watch.wait(closing)
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE deck_clock SET change_seq = change_seq + 1")
        assert watch.has_moved(0)
    finally:
        for end in (closing, other_end):
            end.close()
        watch.close()
        database.close()


def refused(*options: str) -> str:
    done = CliRunner().invoke(main, ["serve", "--listen", "127.0.0.1:0", *options])
    assert done.exit_code == 1, done.output
    (line,) = done.output.splitlines()
    assert "Traceback" not in line
    return line


def test_a_second_url_that_does_not_help_is_refused(
    postgres: PostgresServer, pooler: PgBouncer, name: str
) -> None:
    url = pooler.url(name)
    migrated(url)
    line = refused("--database", url, "--session-database", url)
    assert "--session-database: a connection pooler in transaction mode answers" in line
    other = pooler.url("postgres")
    line = refused("--database", url, "--session-database", other)
    assert "is not the database of --database" in line
    line = refused("--database", url, "--session-database", f"{url}_none")
    assert "--session-database: the database does not exist" in line


def test_session_mode_keeps_sessions(postgres: PostgresServer, name: str) -> None:
    migrated(postgres.url(name))
    with PgBouncer(postgres, mode="session", sessions=30) as pooler:
        database = Database(pooler.url(name), session_url=pooler.url(name))
        try:
            assert database.check_sessions()
        finally:
            database.close()


def test_statement_mode_is_refused_by_name(postgres: PostgresServer, name: str) -> None:
    with PgBouncer(postgres, mode="statement") as pooler:
        line = refused("--database", pooler.url(name))
    assert "statement mode" in line and "pool_mode = transaction" in line


def test_errors_of_a_pooler_are_named(
    postgres: PostgresServer, pooler: PgBouncer, name: str
) -> None:
    line = refused("--database", f"{pooler.url(name)}?options=-c%20statement_timeout%3D1")
    assert "ignore_startup_parameters" in line
    line = refused("--database", pooler.url("nowhere"))
    assert "the database does not exist" in line
