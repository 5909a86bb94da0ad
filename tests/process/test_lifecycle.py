"""Servers as processes: how they start, report their address, fail to start, and stop."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.process.processes import Process, is_gone, wait_until
from tests.rpc.running import DEADLINE_SECONDS, connected, read_refusal, refusal
from tests.rpc.transports import TRANSPORTS
from tollwire.service.process.maintenance import upgrade_database
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import cdr_service_pb2_grpc as cdr_grpc
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import rating_service_pb2_grpc as rating_grpc
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import tenant_service_pb2_grpc as tenant_grpc
from tollwire.v1 import types_pb2

PROGRAM = """
import sys
from tollwire.service.process.app import serve
from tollwire.service.settings.config import Settings
names = ("listen", "database", "workers", "grace_seconds", "log_level", "transport")
sys.exit(serve(Settings(**dict(zip(names, sys.argv[1:])))))
"""
LINE = re.compile(
    r"tollwire: serving on (127\.0\.0\.1:\d+) \(open: requests need no token, sqlite,"
    r" (\d+) workers?, (\d+) tenants? and (\d+) rates? loaded in \d+\.\d s, pid (\d+)\)"
)


class Server(Process):
    """One server process; ``address`` is the one that it prints."""

    # Set for each test.
    transport = "grpcio"

    def __init__(
        self,
        database: Path,
        *,
        listen: str = "127.0.0.1:0",
        workers: int = 1,
        grace_seconds: float = 20,
        log_level: str = "INFO",
    ) -> None:
        super().__init__(
            *("-c", PROGRAM, listen, f"sqlite:///{database}", str(workers)),
            *(str(grace_seconds), log_level, self.transport),
        )
        self.line = self.output.next() or ""
        found = LINE.fullmatch(self.line)
        self.address = found[1] if found else ""


@pytest.fixture(autouse=True, params=TRANSPORTS)
def _transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests run over both transports."""
    monkeypatch.setattr(Server, "transport", request.param)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "tollwire.db"


def create_tenant(channel: grpc.Channel) -> int:
    stub = tenant_grpc.TenantServiceStub(channel)
    tenant = types_pb2.Tenant(name="A")
    return stub.CreateTenant(tenant_pb.CreateTenantRequest(tenant=tenant), wait_for_ready=True).id


def create_rate(channel: grpc.Channel, tenant_id: int, prefix: str = "44") -> types_pb2.Rate:
    rate = types_pb2.Rate(
        tenant_id=tenant_id, prefix=prefix, cost_per_minute="0.02", billing_increment=6
    )
    stub = rating_grpc.RatingServiceStub(channel)
    return stub.CreateRate(rating_pb.CreateRateRequest(rate=rate))


def a_call(tenant_id: int, **fields: Any) -> types_pb2.Call:
    call = types_pb2.Call(
        tenant_id=tenant_id,
        destination_number="442079460000",
        direction=types_pb2.DIRECTION_OUTBOUND,
        disposition=types_pb2.DISPOSITION_ANSWERED,
        duration_seconds=7,
        **fields,
    )
    call.started_at.GetCurrentTime()
    return call


def rate_call(channel: grpc.Channel, tenant_id: int) -> types_pb2.RatedCall:
    stub = rating_grpc.RatingServiceStub(channel)
    request = rating_pb.RateCallRequest(call=a_call(tenant_id))
    return stub.RateCall(request, timeout=DEADLINE_SECONDS, wait_for_ready=True).rated


class OpenUpload:
    """An upload whose stream stays open."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: queue.SimpleQueue[cdr_pb.UploadCdrsRequest] = queue.SimpleQueue()
        stub = cdr_grpc.CdrServiceStub(channel)
        self.responses = stub.UploadCdrs(iter(self._requests.get, None))

    def send(self, offset: int, *calls: types_pb2.Call) -> cdr_pb.UploadCdrsResponse:
        self._requests.put(cdr_pb.UploadCdrsRequest(offset=offset, calls=calls))
        return next(self.responses)


def test_it_prints_its_address_and_stops_on_sigterm(database: Path) -> None:
    with Server(database) as server:
        found = LINE.fullmatch(server.line)
        assert found is not None, server.line
        assert found.groups() == (server.address, "1", "0", "0", str(server.pid))
        with connected(server.address) as channel:
            create_rate(channel, create_tenant(channel))
        assert server.terminate() == 0
        assert server.output.rest() == []
        lines = [line for line in server.errors.rest() if " tollwire.rpc: " not in line]
        assert len(lines) == 1 and "SIGTERM: stopping" in lines[0], lines
    with Server(database) as server:
        assert ", sqlite, 1 worker, 1 tenant and 1 rate loaded in " in server.line
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0


def test_sigterm_ends_open_streams_and_keeps_acknowledged_chunks(database: Path) -> None:
    with Server(database) as server, connected(server.address) as channel:
        tenant_id = create_tenant(channel)
        upload = OpenUpload(channel)
        assert upload.send(0, a_call(tenant_id, call_id="a")).created == 1
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        for stream in (upload.responses, watch):
            found = _end_of(stream)
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        # Long before the grace period, which nothing needs.
        assert server.wait() == 0
    with Server(database) as server, connected(server.address) as channel:
        stub = cdr_grpc.CdrServiceStub(channel)
        page = stub.ListCdrs(cdr_pb.ListCdrsRequest(tenant_id=tenant_id))
        assert [cdr.call_id for cdr in page.cdrs] == ["a"]


def _end_of(stream: Iterator[Any]) -> Any:
    """The refusal at the end of a stream; before it a watch receives NOT_SERVING."""
    try:
        for message in stream:
            assert message.status == health_pb2.HealthCheckResponse.NOT_SERVING
    except grpc.RpcError as error:
        return read_refusal(error)
    raise AssertionError("the stream ended without an error")


def test_rpcs_that_do_not_end_in_time_are_cancelled(database: Path) -> None:
    with Server(database, grace_seconds=0.2) as server, connected(server.address) as channel:
        tenant_id = create_tenant(channel)
        stub = rating_grpc.RatingServiceStub(channel)
        request = rating_pb.StreamRateCallsRequest(
            calls=[a_call(tenant_id, call_id="x" * 255)] * 9999
        )
        answers = stub.StreamRateCalls(iter([request] * 400))
        # The client does not read on, so the server cannot continue to write.
        assert len(next(answers).rated) == 9999
        assert server.terminate() == 0
        with pytest.raises(grpc.RpcError) as refused:
            list(answers)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_handler_that_waits_for_the_database_does_not_hold_up_the_stop(database: Path) -> None:
    with Server(database, grace_seconds=0.2) as server, connected(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        # Another program holds the write lock for longer than any wait.
        other = sqlite3.connect(database, isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            stub = tenant_grpc.TenantServiceStub(channel)
            request = tenant_pb.CreateTenantRequest(tenant=types_pb2.Tenant(name="A"))
            waiting = stub.CreateTenant.future(request)
            time.sleep(1)  # until the handler has begun to wait, which is not observable
            assert server.terminate() == 0
            assert waiting.code() is grpc.StatusCode.UNAVAILABLE
            other.execute("ROLLBACK")
        # It ends with its client and leaves no data.
        lines = server.errors.rest()
        assert any("SIGTERM: stopping" in line for line in lines)
        assert not any("some RPCs did not end in time" in line for line in lines)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_is_one_line_and_exit_code_1(database: Path, workers: int) -> None:
    with socket.socket() as other:
        # The other program allows sharing of the port; the server does not.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with Server(database, listen=address, workers=workers) as server:
            assert server.wait() == 1
            assert server.output.rest() == []
            assert server.errors.rest() == [
                f"tollwire: cannot listen on {address}: the port is in use; stop the other server"
                " or use another port"
            ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path, workers: int) -> None:
    with Server(tmp_path / "missing" / "tollwire.db", workers=workers) as server:
        assert server.wait() == 1
        lines = server.errors.rest()
        assert len(lines) == 1, lines
        folder = tmp_path / "missing"
        assert lines[0].startswith(f"tollwire: --database: the folder {folder} does not exist")


def test_each_rpc_is_a_line_at_debug_without_any_number(database: Path) -> None:
    with Server(database, log_level="DEBUG") as server, connected(server.address) as channel:
        tenant_id = create_tenant(channel)
        upload = OpenUpload(channel)
        call = a_call(tenant_id, call_id="a", caller_number="+15550001234")
        assert upload.send(0, call).created == 1
        upload.responses.cancel()
        rating = rating_grpc.RatingServiceStub(channel)
        found = refusal(lambda: rating.RateCall(rating_pb.RateCallRequest(call=call)))
        assert found.reason == "NO_RATE"
        assert server.terminate() == 0
        lines = [line for line in server.errors.rest() if " tollwire.rpc: " in line]
        said = [line.partition(" tollwire.rpc: ")[2] for line in lines]
        assert re.fullmatch(r"TenantService/CreateTenant: OK .*", said[0])
        assert any(line.startswith("RatingService/RateCall: NOT_FOUND NO_RATE ") for line in said)
        assert any(line.startswith("CdrService/UploadCdrs: ") for line in said)
        assert len(said) == 3  # one for each
        assert not any("5550001" in line or "442079" in line for line in lines)


def serving(address: str, pids: set[int]) -> int:
    """The processes that answer 20 new connections."""
    channels = []
    try:
        for _ in range(20):
            channel = grpc.insecure_channel(
                address, options=[("grpc.use_local_subchannel_pool", 1)]
            )
            channels.append(channel)
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            assert health.Check(request, timeout=DEADLINE_SECONDS, wait_for_ready=True).status
        port = int(address.rpartition(":")[2])
        return sum(
            any(
                connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
                for connection in psutil.Process(pid).net_connections("tcp")
            )
            for pid in pids
        )
    finally:
        for channel in channels:
            channel.close()


def test_workers_share_a_port_and_a_killed_one_is_replaced(database: Path) -> None:
    with Server(database, workers=2, log_level="WARNING") as server:
        assert ", sqlite, 2 workers, 0 tenants and 0 rates loaded in " in server.line
        assert f"pid {server.pid})" in server.line
        with connected(server.address) as channel:
            tenant_id = create_tenant(channel)
            create_rate(channel, tenant_id)
        workers = {worker.pid for worker in server.workers()}
        assert len(workers) == 2
        wait_until(lambda: serving(server.address, workers) == 2)

        killed = min(workers)
        psutil.Process(killed).kill()
        line = server.errors.next() or ""
        assert f"(pid {killed}) ended with code -9; a new one starts" in line
        # The port is served without the worker and after its restart.
        with connected(server.address) as channel:
            assert rate_call(channel, tenant_id).cost == "0.0040"
        wait_until(lambda: len({worker.pid for worker in server.workers()} - {killed}) == 2)
        workers = {worker.pid for worker in server.workers()} - {killed}
        wait_until(lambda: serving(server.address, workers) == 2)
        assert server.terminate() == 0
        assert all(is_gone(psutil.Process(pid)) for pid in workers if psutil.pid_exists(pid))


def test_sigterm_to_the_parent_ends_the_streams_of_its_workers(database: Path) -> None:
    with Server(database, workers=2) as server, connected(server.address) as channel:
        tenant_id = create_tenant(channel)
        upload = OpenUpload(channel)
        assert upload.send(0, a_call(tenant_id, call_id="a")).created == 1
        workers = server.workers()
        server.process.send_signal(signal.SIGTERM)
        assert _end_of(upload.responses).reason == "SHUTTING_DOWN"
        assert server.wait() == 0
        assert all(map(is_gone, workers))


def test_workers_do_not_outlive_a_killed_parent(database: Path) -> None:
    with Server(database, workers=2) as server:
        workers = server.workers()
        assert len(workers) == 2
        server.process.kill()
        for worker in workers:
            wait_until(lambda worker=worker: is_gone(worker))


def test_a_database_is_upgraded(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{database}"
    for words in ("it had no schema before", "it was up to date"):
        assert upgrade_database(url) == 0
        assert re.fullmatch(
            rf"tollwire: the database has schema \w+; {words}\n", capsys.readouterr().out
        )


def test_a_database_that_cannot_be_upgraded_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE something_else (id INTEGER)")
    for url in (f"sqlite:///{path}", f"sqlite:///{tmp_path}/missing/x.db"):
        assert upgrade_database(url) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(("tollwire: the database", "tollwire: --database: the folder"))
        assert said.err.count("\n") == 1
