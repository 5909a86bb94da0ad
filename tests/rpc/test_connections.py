"""The effects of grpc's options for connections: limits of their number and of their time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.process.processes import wait_until
from tests.rpc.running import DEADLINE_SECONDS, connected
from tollwire.service.rpc import connections
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.connections import connection_options
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.server import RpcServer, Subjects
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen

SERVING = health_pb2.HealthCheckResponse.SERVING


@contextmanager
def served(*args: Any) -> Iterator[str]:
    nothing: Any = None
    server = RpcServer(
        Subjects(*[nothing] * len(fields(Subjects))),
        capacity=Capacity(1, 1),
        pipeline=RpcPipeline(),
        connections=connection_options(*args),
    )
    address = str(server.bind(Listen("127.0.0.1", 0)))
    server.start()
    yield address
    assert server.stop(0)


def check(channel: grpc.Channel) -> int:
    request = health_pb2.HealthCheckRequest()
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=DEADLINE_SECONDS).status


def established(address: str) -> int:
    port = int(address.rpartition(":")[2])
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
        for each in psutil.Process().net_connections("tcp")
    )


def test_a_connection_beyond_the_limit_is_closed_and_the_others_go_on() -> None:
    with served(3, 0) as address, ExitStack() as stack:
        channels = [stack.enter_context(connected(address)) for _ in range(3)]
        assert [check(channel) for channel in channels] == [SERVING] * 3
        for _ in range(5):
            with connected(address) as beyond, pytest.raises(grpc.RpcError) as raised:
                check(beyond)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert [check(channel) for channel in channels] == [SERVING] * 3
        channels[0].close()

        def lets_in() -> bool:
            with connected(address) as another:
                try:
                    return check(another) == SERVING
                except grpc.RpcError:
                    return False

        wait_until(lets_in)


def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 1)
    with served(10, 0) as address:
        host, _, port = address.rpartition(":")
        for words in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            with socket.create_connection((host, int(port)), DEADLINE_SECONDS) as silent:
                silent.sendall(words)
                while silent.recv(4096):
                    pass


def test_an_unused_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 1)
    with served(10, 0) as address, connected(address) as channel:
        assert check(channel) == SERVING
        wait_until(lambda: established(address) == 0)
        # Its client opens another.
        assert check(channel) == SERVING


def test_an_old_connection_is_replaced_and_no_rpc_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(10, 0.3) as address, connected(address) as channel:
        seen = set()

        def check_on() -> bool:
            assert check(channel) == SERVING
            seen.update(
                each.raddr.port
                for each in psutil.Process().net_connections("tcp")
                if each.laddr.port == int(address.rpartition(":")[2]) and each.raddr
            )
            return len(seen) > 3

        wait_until(check_on)
    monkeypatch.setattr(connections, "AGE_GRACE_SECONDS", 0.5)
    with served(10, 0.3) as address, connected(address) as channel:
        request = health_pb2.HealthCheckRequest()
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=DEADLINE_SECONDS)
        with pytest.raises(grpc.RpcError) as raised:
            list(watch)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_settings_reach_the_transport() -> None:
    named = dict(connection_options(7, 0))
    assert named["grpc.max_allowed_incoming_connections"] == 7
    assert "grpc.max_connection_age_ms" not in named
    settings = Settings(max_connection_age_seconds=90)
    aged = dict(connection_options(settings.max_connections, settings.max_connection_age_seconds))
    assert aged["grpc.max_connection_age_ms"] == 90_000
