"""Which connections are closed, and that those of real clients are found and closed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.process.processes import wait_until
from tests.rpc.running import DEADLINE_SECONDS, connected
from tollwire.service.domain.model import Token
from tollwire.service.domain.request import EVERY_TENANT, Role
from tollwire.service.process.composition import build_application
from tollwire.service.rpc import connection_guard
from tollwire.service.rpc.access_control import AccessControl
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.connection_guard import Connection, ConnectionGuard, choose, peer_of
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.server import RpcServer, Subjects
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1.tenant_service_pb2_grpc import TenantServiceStub

FEW = 6


def a(name: str, since: float, *, used: bool = False) -> Connection:
    """A connection: its group is the first letter of its name."""
    return Connection(0, 0, (name, 1), name[0], since, used)


def chosen(*connections: Connection, demands: bool = True, **limits: Any) -> set[str]:
    given = {"max_connections": 100, "max_of_address": 100, "unused_since": None} | limits
    return {one.peer[0] for one in choose(connections, demands_tokens=demands, **given)}


def test_unused_connections_end_after_a_time_if_tokens_are_demanded() -> None:
    three = (a("a", 1), a("b", 1, used=True), a("c", 3))
    assert chosen(*three, unused_since=2) == {"a"}
    assert chosen(*three, unused_since=2, demands=False) == set()
    assert chosen(*three) == set()


def test_an_address_has_a_limit() -> None:
    of_one = (a("a1", 1, used=True), a("a2", 2), a("a3", 3), a("a4", 4, used=True))
    others = (a("b1", 0), a("c1", 0))
    assert chosen(*of_one, *others, max_of_address=3) == {"a2"}
    assert chosen(*of_one, *others, max_of_address=2) == {"a2", "a3"}
    assert chosen(*of_one, *others, max_of_address=1) == {"a2", "a3", "a4"}


def test_above_the_limit_the_oldest_unused_of_the_largest_address_is_closed_first() -> None:
    many = [a(f"a{number}", number) for number in range(4)]
    one, used = a("b1", 0), a("c1", 9, used=True)
    assert chosen(*many, one, used, max_connections=5, demands=False) == {"a0"}
    assert chosen(*many, one, used, max_connections=3, demands=False) == {"a0", "a1", "a2"}
    # Half of the connections may be unused if tokens are demanded.
    assert chosen(*many, one, used, max_connections=6) == {"a0", "a1"}
    # Used ones are closed last, the newest first.
    two = (a("d1", 1, used=True), a("d2", 2, used=True))
    assert chosen(*two, max_connections=1) == {"d2"}


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ipv4:192.0.2.1:5000", ("192.0.2.1", 5000)),
        ("ipv6:%5B2001:db8::1%5D:5000", ("2001:db8::1", 5000)),
        ("ipv6:[::ffff:192.0.2.1]:5000", ("192.0.2.1", 5000)),
        ("ipv6:%5Bfe80::1%25eth0%5D:7", ("fe80::1", 7)),
        ("unix:", None),
        ("ipv4:x:1", None),
        ("", None),
    ],
)
def test_peers_as_grpc_names_them(text: str, peer: tuple[str, int] | None) -> None:
    assert peer_of(text) == peer


@contextmanager
def guarded(
    tmp_path: Path, transport: str, *, max_of_address: int = FEW, is_open: bool = False
) -> Iterator[tuple[str, str]]:
    """A server with the guard, and a token."""
    with build_application(Settings(database=f"sqlite:///{tmp_path / 'tollwire.db'}")) as all_of_it:
        _, text = all_of_it.subjects.tokens.create(Token("any", Role.READER, EVERY_TENANT))
        guard = ConnectionGuard(2 * FEW, max_of_address, ends_unused=transport == "grpcio")
        access = AccessControl(all_of_it.credentials, is_open=is_open, identified=guard.identified)
        server = RpcServer(
            all_of_it.subjects,
            capacity=Capacity(max_streams=4),
            pipeline=RpcPipeline(access, access.check_again),
            is_native=transport == "native",
        )
        listen = server.bind(Listen("127.0.0.1", 0))
        server.start()
        guard.start(listen.port, lambda: not access.is_open())
        try:
            yield str(listen), text
        finally:
            guard.close()
            assert server.stop(0)


def lists_tenants(channel: grpc.Channel, text: str) -> None:
    TenantServiceStub(channel).ListTenants(
        tenant_pb.ListTenantsRequest(),
        metadata=[("authorization", f"Bearer {text}")],
        timeout=DEADLINE_SECONDS,
    )


def silent(stack: ExitStack, address: str, source: str = "127.0.0.2") -> socket.socket:
    host, _, port = address.rpartition(":")
    line = socket.create_connection((host, int(port)), DEADLINE_SECONDS, (source, 0))
    return stack.enter_context(line)


def is_closed(line: socket.socket) -> bool:
    line.settimeout(0.01)
    try:
        while line.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_silent_connections_of_one_address_do_not_keep_others_out(
    tmp_path: Path, transport: str
) -> None:
    with guarded(tmp_path, transport) as (address, text), ExitStack() as stack:
        channel = stack.enter_context(connected(address))
        lists_tenants(channel, text)
        lines = [silent(stack, address) for _ in range(5 * FEW)]
        wait_until(lambda: sum(not is_closed(line) for line in lines) == FEW)
        lists_tenants(channel, text)
        with connected(address) as another:
            lists_tenants(another, text)


def test_a_connection_without_an_identified_caller_ends(
    tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport == "native":
        pytest.skip("the front hides the connections of streams")
    monkeypatch.setattr(connection_guard, "UNUSED_SECONDS", 0.5)
    with guarded(tmp_path, transport) as (address, text), ExitStack() as stack:
        channel = stack.enter_context(connected(address))
        lists_tenants(channel, text)
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS)
        next(watch)
        line = silent(stack, address)
        stranger = stack.enter_context(connected(address))
        with pytest.raises(grpc.RpcError) as raised:
            stub = health_pb2_grpc.HealthStub(stranger)
            list(stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS))
        assert isinstance(raised.value, grpc.Call)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        wait_until(lambda: is_closed(line))
        assert watch.is_active()


def test_an_open_server_limits_addresses_too(tmp_path: Path, transport: str) -> None:
    with (
        guarded(tmp_path, transport, max_of_address=2, is_open=True) as (address, text),
        ExitStack() as stack,
    ):
        channel = stack.enter_context(connected(address))
        lists_tenants(channel, text)
        lines = [silent(stack, address, "127.0.0.1") for _ in range(3)]
        wait_until(lambda: sum(map(is_closed, lines)) == 2)
        lists_tenants(channel, text)


def test_the_port_for_health_has_limits_of_its_own() -> None:
    nothing: Any = None
    server = RpcServer(
        Subjects(*[nothing] * len(fields(Subjects))),
        capacity=Capacity(1, 1),
        pipeline=RpcPipeline(),
        connections=[("grpc.max_allowed_incoming_connections", 1)],
    )
    address = str(server.bind(Listen("127.0.0.1", 0)))
    health_address = str(server.bind_health(Listen("127.0.0.1", 0)))
    server.start()
    request = health_pb2.HealthCheckRequest()
    with connected(address) as first, connected(address) as second:
        assert health_pb2_grpc.HealthStub(first).Check(request, timeout=DEADLINE_SECONDS)
        with pytest.raises(grpc.RpcError):
            health_pb2_grpc.HealthStub(second).Check(request, timeout=DEADLINE_SECONDS)
        with connected(health_address) as probe:
            found = health_pb2_grpc.HealthStub(probe).Check(request, timeout=DEADLINE_SECONDS)
            assert found.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as raised:
                lists_tenants(probe, "any")
            assert isinstance(raised.value, grpc.Call)
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert server.stop(0)


def test_a_file_that_is_another_one_by_now_is_not_closed() -> None:
    client, line = socket.socketpair()
    with client, line:
        inode = os.fstat(line.fileno()).st_ino
        connection_guard._shut(Connection(line.fileno(), inode + 1, ("a", 1), "a", 0.0))
        line.sendall(b"x")
        assert client.recv(1) == b"x"
        connection_guard._shut(Connection(line.fileno(), inode, ("a", 1), "a", 0.0))
        assert client.recv(1) == b""
