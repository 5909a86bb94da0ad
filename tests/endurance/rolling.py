"""A rolling restart: two servers, of which one after the other is stopped and started, repeatedly.

Clients with the addresses of both, with the service config of the protos and no other retry logic,
send requests all the time. Each RPC counts as sent and then as answered or failed. At the end each
call whose CreateCdr was answered must be recorded once.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil

from tests.integration.client import NOON_SECONDS, make_call
from tests.integration.serving import ServerProcess
from tests.process.processes import wait_until
from tollwire.client.connection import CHANNEL_OPTIONS
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2
from tollwire.v1.cdr_service_pb2_grpc import CdrServiceStub
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub
from tollwire.v1.tenant_service_pb2_grpc import TenantServiceStub

CLIENTS = 6
SERVERS = 2
DEADLINE_SECONDS = 30
# Connected clients must first receive the news that the server serves.
SETTLED_SECONDS = 1
COST = "0.0040"


@dataclass
class Totals:
    """Of RPCs, and of the calls for which ``CreateCdr`` was answered."""

    restarts: int = 0
    sent: int = 0
    answered: int = 0
    failed: int = 0
    recorded: int = 0
    found: int = 0
    seconds: float = 0.0
    exit_codes: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def passed(self) -> bool:
        return (
            self.sent == self.answered > 0
            and self.recorded == self.found > 0
            and not any(self.exit_codes)
        )


class Site:
    """Two servers over one database, each with a fixed port."""

    def __init__(self, database_url: str, workers: int) -> None:
        self._database_url = database_url
        self._workers = workers
        self.ports = [_free_port() for _ in range(SERVERS)]
        self._servers = [self._start(at) for at in range(SERVERS)]

    @property
    def target(self) -> str:
        return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def _start(self, at: int) -> ServerProcess:
        listen = f"127.0.0.1:{self.ports[at]}"
        return ServerProcess(self._database_url, workers=self._workers, listen=listen)

    def restart(self, at: int) -> int:
        """Stop and start one server; return the exit code of the stopped one.

        Returns after all clients have connected to the new server, as an operator of a fleet waits
        before the next restart.
        """
        with self._servers[at] as old:
            code = old.terminate()
        self._servers[at] = self._start(at)
        pid, port = self._servers[at].process.pid, self.ports[at]
        wait_until(lambda: _connections(pid, port) >= CLIENTS)
        time.sleep(SETTLED_SECONDS)
        return code

    def close(self) -> list[int]:
        codes = []
        for server in self._servers:
            with server:
                codes.append(server.terminate())
        return codes


class Asking:
    """A client that sends one request after the other until it is stopped."""

    def __init__(self, target: str, name: str, tenant_id: int, stop: threading.Event) -> None:
        own = ("grpc.use_local_subchannel_pool", 1)
        self._channel = grpc.insecure_channel(target, options=[*CHANNEL_OPTIONS, own])
        self._rating = RatingServiceStub(self._channel)
        self._cdrs = CdrServiceStub(self._channel)
        self._name = name
        self._tenant_id = tenant_id
        self._stop = stop
        self.totals = Totals()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()
        self._channel.close()

    def _run(self) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            call = make_call(self._tenant_id, "4420", 7, call_id=f"{self._name}-{number}")
            rated = self._ask(self._rating.RateCall, rating_pb.RateCallRequest(call=call))
            assert rated is None or rated.rated.cost == COST
            batch = rating_pb.BatchRateCallsRequest(calls=[call] * 10)
            self._ask(self._rating.BatchRateCalls, batch)
            cdr = self._ask(self._cdrs.CreateCdr, cdr_pb.CreateCdrRequest(call=call))
            if cdr is not None:
                self.totals.recorded += 1
                self._ask(self._cdrs.GetCdr, cdr_pb.GetCdrRequest(id=cdr.id))

    def _ask(self, method: Callable[..., Any], request: Any) -> Any:
        self.totals.sent += 1
        try:
            answer = method(request, timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            self.totals.failed += 1
            self.totals.failures[f"{error.code().name}: {error.details()}"] += 1
            return None
        self.totals.answered += 1
        return answer


def roll(
    database_url: str,
    *,
    seconds: float = 0,
    restarts: int = 0,
    workers: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Totals:
    """Restart one server after the other, at least this often and for at least this time."""
    began = time.monotonic()
    site = Site(database_url, workers)
    stop = threading.Event()
    totals = Totals()
    clients: list[Asking] = []
    try:
        with grpc.insecure_channel(site.target, options=CHANNEL_OPTIONS) as channel:
            tenant_id = _tenant(channel)
            clients += [
                Asking(site.target, f"client{at}", tenant_id, stop) for at in range(CLIENTS)
            ]
            while totals.restarts < restarts or time.monotonic() - began < seconds:
                totals.exit_codes.append(site.restart(totals.restarts % SERVERS))
                totals.restarts += 1
                sent = sum(client.totals.sent for client in clients)
                say(f"{totals.restarts} restarts, {sent:,} RPCs sent")
            stop.set()
            for client in clients:
                client.join()
            totals.found = _count(channel, tenant_id)
    finally:
        stop.set()
        for client in clients:
            client.join()
        totals.exit_codes += site.close()
    for client in clients:
        totals.sent += client.totals.sent
        totals.answered += client.totals.answered
        totals.failed += client.totals.failed
        totals.recorded += client.totals.recorded
        totals.failures += client.totals.failures
    totals.seconds = round(time.monotonic() - began, 1)
    return totals


def _tenant(channel: grpc.Channel) -> int:
    tenants = TenantServiceStub(channel)
    request = tenant_pb.CreateTenantRequest(tenant=types_pb2.Tenant(name="rolling"))
    tenant = tenants.CreateTenant(request, timeout=DEADLINE_SECONDS, wait_for_ready=True)
    rate = types_pb2.Rate(
        tenant_id=tenant.id, prefix="44", cost_per_minute="0.0200", billing_increment=6
    )
    RatingServiceStub(channel).CreateRate(rating_pb.CreateRateRequest(rate=rate))
    return int(tenant.id)


def _count(channel: grpc.Channel, tenant_id: int) -> int:
    request = cdr_pb.SummarizeUsageRequest(tenant_id=tenant_id)
    request.started_after.seconds = NOON_SECONDS - 86_400
    request.started_before.seconds = NOON_SECONDS + 86_400
    (row,) = CdrServiceStub(channel).SummarizeUsage(request, timeout=DEADLINE_SECONDS).rows
    return int(row.calls)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _connections(server_pid: int, port: int) -> int:
    """The connections of the clients to the server or one of its workers."""
    server = psutil.Process(server_pid)
    return sum(
        connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
        for process in [server, *server.children(recursive=True)]
        for connection in process.net_connections("tcp")
    )
