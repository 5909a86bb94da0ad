"""A whole server in this process, over a fresh SQLite file, for the tests of service/rpc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest

from tests.rpc.running import connected
from tests.rpc.transports import TRANSPORTS
from tollwire.service.process.composition import build_application
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.server import RpcServer
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen


@dataclass
class WholeServer:
    server: RpcServer
    channel: grpc.Channel
    address: str
    transport: str


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[WholeServer]:
    """With all services, all subjects and no tenant. One for the tests of a module."""
    path = tmp_path_factory.mktemp("whole") / "tollwire.db"
    with build_application(Settings(database=f"sqlite:///{path}")) as everything:
        server = RpcServer(
            everything.subjects,
            capacity=Capacity(max_streams=4),
            pipeline=RpcPipeline(),
            is_native=transport == "native",
        )
        address = str(server.bind(Listen("127.0.0.1", 0)))
        server.start()
        with connected(address) as channel:
            yield WholeServer(server, channel, address, transport)
        assert server.stop(0)
