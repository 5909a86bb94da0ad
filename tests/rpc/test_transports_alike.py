"""Both transports answer every unary RPC alike: message, status, details and metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from tests.integration.client import Client, make_call
from tests.integration.methods import METHODS, RIGHT, Scene, full_rate, set_scene
from tests.rpc.running import DEADLINE_SECONDS
from tests.rpc.transports import needs_native
from tollwire.service.domain.model import Token
from tollwire.service.domain.request import EVERY_TENANT, Role, Scope
from tollwire.service.process.composition import build_application
from tollwire.service.rpc.access_control import AccessControl
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.server import RpcServer
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.v1 import rating_service_pb2 as rating_pb

pytestmark = needs_native
UNARY = sorted(
    name
    for name, method in METHODS.items()
    if not method.client_streaming and not method.server_streaming
)
# What two servers that do the same thing choose differently.
CHOSEN = re.compile("created_at|updated_at|revoked_at|etag|secret|root|request_id|digest|hash")

Seen = tuple[Any, ...]


class Server:
    """One transport over a database of its own."""

    def __init__(self, stack: ExitStack, url: str, transport: str) -> None:
        everything = stack.enter_context(build_application(Settings(database=url)))
        access = AccessControl(everything.credentials, is_open=True)
        server = RpcServer(
            everything.subjects,
            capacity=Capacity(max_streams=4, share=0.5),
            pipeline=RpcPipeline(access, access.check_again),
            is_native=transport == "native",
        )
        stack.callback(server.stop, 0)
        address = str(server.bind(Listen("127.0.0.1", 0)))
        server.start()
        self.client = stack.enter_context(Client(address))
        self.scene: Scene = set_scene(self.client)
        tokens = everything.subjects.tokens
        own = Scope(frozenset({self.scene.tenant_id}))
        other = Scope(frozenset({self.client.new_tenant().id}))
        self.tokens = {
            "every tenant": tokens.create(Token("a", Role.ADMIN, EVERY_TENANT))[1],
            "own tenant": tokens.create(Token("b", Role.ADMIN, own))[1],
            "other tenant": tokens.create(Token("c", Role.ADMIN, other))[1],
            "rater": tokens.create(Token("d", Role.RATER, EVERY_TENANT))[1],
            "wrong": "tw_1_" + "x" * 43,
        }

    def send(self, name: str, request: bytes, *metadata: tuple[str, str | bytes]) -> Seen:
        """All that the client sees, but for what CHOSEN and the server's request ids are."""
        method = METHODS[name]
        path = f"/{method.containing_service.full_name}/{name}"
        try:
            answer, call = self.client.channel.unary_unary(path).with_call(
                request, metadata=metadata, timeout=DEADLINE_SECONDS
            )
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return (
                *(error.code(), _shown(error.details()), _pairs(error.initial_metadata())),
                _pairs(error.trailing_metadata()),
            )
        return (
            *(call.code(), _message(method, answer), _pairs(call.initial_metadata())),
            _pairs(call.trailing_metadata()),
        )


def _message(method: MethodDescriptor, answer: bytes) -> str:
    message = GetMessageClass(method.output_type).FromString(answer)
    _clear(message)
    return _shown(str(message))


def _clear(message: Message) -> None:
    for field, value in message.ListFields():
        if CHOSEN.search(field.name):
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for one in value if field.is_repeated else [value]:
                _clear(one)


def _pairs(metadata: Any) -> list[tuple[str, Any]]:
    found = []
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            value = _shown(str(status_pb2.Status.FromString(value)))
        if key == "x-request-id" and not value.startswith("mine"):
            value = "the server's"
        if key != "date":
            found.append((key, value))
    return sorted(found)


def _shown(text: str) -> str:
    return re.sub(r"v[0-9a-f-]{8,}|\d{4}-\d\d-\d\dT[0-9:.]+Z", "…", text)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("alike")
    with ExitStack() as stack:
        yield [
            Server(stack, f"sqlite:///{folder}/{transport}.db", transport)
            for transport in ("grpcio", "native")
        ]


def alike(servers: list[Server], name: str, request: Any, *metadata: Any) -> Seen:
    """What both clients see. ``request``: bytes, or a function of the scene."""
    seen = [
        server.send(
            name,
            request if isinstance(request, bytes) else request(server.scene).SerializeToString(),
            *(
                (key, f"Bearer {server.tokens[value]}" if key == "authorization" else value)
                for key, value in metadata
            ),
        )
        for server in servers
    ]
    assert seen[0] == seen[1]
    return seen[0]


@pytest.mark.parametrize("name", UNARY)
def test_requests_that_are_refused(servers: list[Server], name: str) -> None:
    for request in (b"", b"\xff", b"\x0a\x05ab", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"):
        alike(servers, name, request)
        alike(servers, name, request, ("x-request-id", "mine-1"), ("x-other-bin", b"\x00\xff"))


@pytest.mark.parametrize("holder", ["other tenant", "rater", "wrong"])
@pytest.mark.parametrize("name", UNARY)
def test_callers_who_may_not(servers: list[Server], name: str, holder: str) -> None:
    if name in ("DeleteTenant", "RevokeToken", "DeleteRate"):
        # Would end what later tests need, if it were allowed.
        assert alike(servers, name, b"", ("authorization", holder))[0] is not grpc.StatusCode.OK
        return
    alike(servers, name, RIGHT[name], ("authorization", holder))


@pytest.mark.parametrize("name", ["RateCall", "BatchRateCalls", "CreateCdr"])
def test_calls_without_a_price(servers: list[Server], name: str) -> None:
    kind: Any = GetMessageClass(METHODS[name].input_type)

    def request_for(**fields: Any) -> Any:
        def request(scene: Scene) -> Message:
            given = {"tenant_id": scene.tenant_id, "number": "447911123456", "seconds": 5} | fields
            call = make_call(given["tenant_id"], given["number"], given["seconds"])
            return kind(calls=[call]) if name == "BatchRateCalls" else kind(call=call)

        return request

    for fields in (
        {"number": "4930123456"},
        {"number": "anonymous"},
        {"number": "44", "tenant_id": 987_654},
        {"number": "44", "seconds": -1},
        {"number": "4" * 300},
    ):
        alike(servers, name, request_for(**fields), ("x-request-id", "mine-2"))
    if name == "RateCall":
        seen = alike(
            servers,
            name,
            lambda scene: rating_pb.RateCallRequest(
                call=make_call(scene.tenant_id, "447911123456", 5), min_rate_revision=10**6
            ),
        )
        assert seen[0] is grpc.StatusCode.FAILED_PRECONDITION


# Changes before what ends the things that they change.
LAST = ("RevokeToken", "DeleteRate", "DeleteExtension", "DeleteTenant")


def test_right_requests(servers: list[Server]) -> None:
    codes = {}
    for name in (*(one for one in UNARY if one not in LAST), *LAST):
        for _ in range(2):  # what was created or deleted is a conflict or unknown then
            seen = alike(servers, name, RIGHT[name], ("authorization", "own tenant"))
            codes.setdefault(name, seen[0])
            seen = alike(servers, name, RIGHT[name], ("authorization", "every tenant"))
            if codes[name] is not grpc.StatusCode.OK:
                codes[name] = seen[0]
    fine = {name for name, code in codes.items() if code is grpc.StatusCode.OK}
    # The others are refused for good reasons, alike.
    assert len(fine) > len(UNARY) - 8, set(UNARY) - fine


def test_a_changed_deck_is_announced_in_the_trailers(servers: list[Server]) -> None:
    def request(scene: Scene) -> Message:
        rate = full_rate(scene, "47")
        rate.tenant_id = scene.tenant_id + 1  # of the other tenant, which no test deletes
        return rating_pb.CreateRateRequest(rate=rate)

    code, *_, trailers = alike(servers, "CreateRate", request)
    assert (code, dict(trailers)) == (grpc.StatusCode.OK, {"tollwire-rate-revision": "2"})
    code, *_, trailers = alike(servers, "CreateRate", request)
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert dict(trailers)["x-request-id"] == "the server's"
