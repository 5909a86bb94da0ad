"""The database of a server becomes unavailable and returns: PostgreSQL, and an SQLite file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.postgres_server import PostgresServer
from tests.databases import KINDS
from tests.integration.client import Client, Refusal, chunk, make_call, make_rate, refusal_of
from tests.integration.serving import ServerProcess, serving
from tollwire.v1 import types_pb2 as types

PATIENCE_SECONDS = 30
CHUNK = 100


class Outage:
    """A database that accepts no connections until it is opened again."""

    def __init__(self, postgres: PostgresServer) -> None:
        self.name = postgres.create()
        self.url = postgres.url(self.name)
        self.admin = postgres.connect("postgres")

    def cut(self) -> None:
        """End every connection; new ones are still accepted."""
        self.admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [self.name],
        )

    def begin(self) -> None:
        self._allow(False)
        self.cut()

    def end(self) -> None:
        self._allow(True)

    def _allow(self, allowed: bool) -> None:
        self.admin.execute(f'ALTER DATABASE "{self.name}" ALLOW_CONNECTIONS {allowed}'.encode())


@pytest.fixture
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    if "postgresql" not in KINDS:
        pytest.skip("PostgreSQL is left out by TOLLWIRE_TEST_POSTGRES=0")
    outage = Outage(request.getfixturevalue("postgres"))
    yield outage
    outage.admin.close()


def attempt(work: Any) -> Refusal | None:
    try:
        work()
    except grpc.RpcError as error:
        return refusal_of(error)
    return None


def test_the_server_survives_an_outage(outage: Outage) -> None:
    with serving(outage.url) as server, Client(server.address) as client:
        tenant = client.new_tenant()
        client.new_rate(tenant.id, "44", "0.0200", 6)
        call = make_call(tenant.id, "4420", 7)
        before = client.create_cdr(call)
        outage.begin()
        try:
            # Rating works from memory.
            for _ in range(20):
                assert client.rate(call).cost == "0.0040"
                assert client.batch([call])[0].cost == "0.0040"
            # A tenant that may exist by now is not reported as unknown.
            stranger = make_call(tenant.id + 1000)
            mixed = client.batch([stranger, call, stranger, call])
            assert [rated.cost for rated in mixed] == ["", "0.0040", "", "0.0040"]
            reasons = [rated.error.reason for rated in mixed]
            assert reasons == ["DATABASE_UNAVAILABLE", ""] * 2
            for work in (
                lambda: client.rate(stranger),
                lambda: client.create_cdr(call),
                lambda: client.get_cdr(before.id),
                lambda: client.upload(chunk([call])),
                lambda: client.new_rate(tenant.id, "45"),
                lambda: client.list_cdrs(tenant_id=tenant.id),
                lambda: client.import_rates(tenant.id, [make_rate("46")]),
                lambda: client.export_rates(tenant.id),
            ):
                refusal = attempt(work)
                assert refusal is not None
                assert refusal.code == grpc.StatusCode.UNAVAILABLE
                assert refusal.reason == "DATABASE_UNAVAILABLE"
        finally:
            outage.end()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while attempt(lambda: client.get_cdr(before.id)) is not None:
            assert time.monotonic() < deadline, "the server does not recover"
            time.sleep(0.05)
        assert client.create_cdr(call) == before
        client.import_rates(tenant.id, [make_rate("44", "9", 6)])
        assert client.rate(call).cost == "1.8000"


SERVING, NOT_SERVING = 1, 2
NEED_DATABASE = ("tollwire.v1.CdrService", "tollwire.v1.TenantService")
DO_WITHOUT = ("", "tollwire.v1.RatingService")


def await_health(channels: list[grpc.Channel], expected: int) -> None:
    """The services that need the database, in each worker; all others serve throughout."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
    while True:
        found = set()
        for stub in stubs:
            for name in (*NEED_DATABASE, *DO_WITHOUT):
                answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
                if name in DO_WITHOUT:
                    assert answer.status == SERVING, name
                else:
                    found.add(answer.status)
        if found == {expected}:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def is_told_by_health(server: ServerProcess, begin: Any, end: Any) -> None:
    """``begin`` and ``end`` are those of an outage."""
    with Client(server.address) as client, contextlib.ExitStack() as stack:
        tenant = client.new_tenant()
        client.new_rate(tenant.id, "44", "0.0200", 6)
        call = make_call(tenant.id, "4420", 7)
        own = [("grpc.use_local_subchannel_pool", 1)]
        # Each is with one of the workers.
        channels = [
            stack.enter_context(grpc.insecure_channel(server.address, options=own))
            for _ in range(8)
        ]
        await_health(channels, SERVING)
        for _ in range(2):
            begin()
            try:
                await_health(channels, NOT_SERVING)
                assert client.rate(call).cost == "0.0040"
            finally:
                end()
            await_health(channels, SERVING)
        assert client.create_cdr(call).cost == "0.0040"


def test_health_reports_that_postgresql_is_unavailable(outage: Outage) -> None:
    with serving(outage.url, workers=2) as server:
        is_told_by_health(server, outage.begin, outage.end)


def test_health_reports_that_the_file_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "tollwire.db"

    def begin() -> None:
        path.rename(tmp_path / "elsewhere")

    def end() -> None:
        (tmp_path / "elsewhere").rename(path)

    with serving(f"sqlite:///{path}", workers=2) as server:
        is_told_by_health(server, begin, end)


def test_an_upload_survives_lost_connections(outage: Outage) -> None:
    """A chunk whose transaction breaks is refused as UNAVAILABLE or was committed: never half."""
    with serving(outage.url) as server:
        total = 15 * CHUNK
        with Client(server.address) as client:
            tenant = client.new_tenant()
            client.new_rate(tenant.id, "44", "0.0200", 6)
            upload_id = client.upload(chunk([]))[0].upload_id
            committed, losses = 0, 0
            while committed < total:
                losses += 1
                assert losses < 100
                committed = send_rest(server, tenant, upload_id, committed, total, outage)
            state = client.get_upload(upload_id)
            assert (state.committed_offset, state.created) == (total, total)
            assert (state.duplicates, state.conflicts, state.rejected) == (0, 0, 0)
            cdrs = client.list_cdrs(tenant_id=tenant.id, page_size=1000)
            assert len({cdr.call_id for cdr in cdrs}) == len(cdrs) == total


def send_rest(
    server: ServerProcess,
    tenant: types.Tenant,
    upload_id: int,
    committed: int,
    total: int,
    outage: Outage,
) -> int:
    """Send the rest, while the connections are cut; return the final offset of the upload."""

    def requests() -> Iterator[Any]:
        for number, at in enumerate(range(committed, total, CHUNK)):
            if number == 2:
                outage.cut()
            calls = [
                make_call(tenant.id, "4420", 7, call_id=f"{index}")
                for index in range(at, at + CHUNK)
            ]
            yield chunk(calls, at, upload_id)

    with Client(server.address) as client:
        refusal = attempt(lambda: client.upload(*requests()))
        assert refusal is None or refusal.reason == "DATABASE_UNAVAILABLE", refusal
        deadline = time.monotonic() + PATIENCE_SECONDS
        while attempt(lambda: client.get_upload(upload_id)) is not None:
            assert time.monotonic() < deadline, "the server does not recover"
        return client.get_upload(upload_id).committed_offset
