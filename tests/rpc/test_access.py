"""Access over the wire: every method, every role, every kind of invalid token.

The messages are malformed. So a caller with access gets MALFORMED_REQUEST, and a caller without it
is refused before the message is read.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.rpc.running import DEADLINE_SECONDS, connected, refusal, running
from tollwire.service.accounts.credentials import token_invalid
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.domain.errors import Unauthenticated
from tollwire.service.domain.model import Tenant, Token
from tollwire.service.domain.request import EVERY_TENANT, Role, Scope
from tollwire.service.process.composition import build_application
from tollwire.service.rpc.access_control import AccessControl
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.permissions import PERMISSIONS, Needs
from tollwire.service.rpc.pipeline import RpcContext, RpcPipeline
from tollwire.service.rpc.server import RpcServer
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.v1 import (
    access_service_pb2,
    cdr_service_pb2,
    rating_service_pb2,
    tenant_service_pb2,
)

FILES = (rating_service_pb2, cdr_service_pb2, tenant_service_pb2, access_service_pb2)
SERVICES = {
    service.name: service
    for file in (*FILES, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
}
NO_MESSAGE = b"\xff"


@dataclass
class Guarded:
    """A server that demands tokens, in this process, and an open one, over one database."""

    closed: grpc.Channel
    open: grpc.Channel
    tokens: Tokens
    texts: dict[tuple[Role, bool], str]  # by role, and whether for every tenant
    wrong: dict[str, str]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Guarded]:
    path: Path = tmp_path_factory.mktemp("guarded") / "tollwire.db"
    with build_application(Settings(database=f"sqlite:///{path}")) as everything:
        everything.subjects.tenants.create(Tenant(name="Acme"))
        tokens = everything.subjects.tokens
        channels = []
        servers = []
        for is_open in (False, True):
            access = AccessControl(everything.credentials, is_open=is_open)
            servers.append(
                RpcServer(
                    everything.subjects,
                    capacity=Capacity(max_streams=4),
                    pipeline=RpcPipeline(access, access.check_again),
                    is_native=transport == "native",
                )
            )
            address = str(servers[-1].bind(Listen("127.0.0.1", 0)))
            servers[-1].start()
            channels.append(connected(address))
        with channels[0] as closed, channels[1] as opened:
            texts = {
                (role, every): tokens.create(
                    Token(role.value, role, EVERY_TENANT if every else Scope(frozenset({1})))
                )[1]
                for role in Role
                for every in (True, False)
            }
            yield Guarded(closed, opened, tokens, texts, wrong_texts(tokens))
        for server in servers:
            assert server.stop(0)


@pytest.mark.parametrize("ending", ["revoked", "expired"])
def test_the_first_token_closes_an_open_server_for_good(
    tmp_path: Path, transport: str, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    with build_application(
        Settings(database=f"sqlite:///{tmp_path / 'tollwire.db'}")
    ) as everything:
        access = AccessControl(everything.credentials, is_open=True, until_tokens=True)
        server = RpcServer(
            everything.subjects,
            capacity=Capacity(max_streams=4),
            pipeline=RpcPipeline(access, access.check_again),
            is_native=transport == "native",
        )
        address = str(server.bind(Listen("127.0.0.1", 0)))
        server.start()
        with connected(address) as channel:
            for name in ("CdrService/GetCdr", "AccessService/CreateToken"):
                assert answer(channel, name) == LET_IN
            tokens = everything.subjects.tokens
            if ending == "expired":
                expired_text(tokens)
            else:
                made, text = tokens.create(Token("first", Role.READER, EVERY_TENANT))
                assert answer(channel, "CdrService/GetCdr", f"Bearer {text}") == LET_IN
                tokens.revoke(made.id)
            for name in PERMISSIONS:
                if PERMISSIONS[name].needs is not Needs.NOTHING:
                    assert answer(channel, name) == TOKEN_REQUIRED
        assert server.stop(0)
    told = [line for line in caplog.messages if "has a token" in line]
    assert len(told) == 1


def wrong_texts(tokens: Tokens) -> dict[str, str]:
    _, text = tokens.create(Token("wrong", Role.ADMIN, EVERY_TENANT))
    revoked, revoked_text = tokens.create(Token("revoked", Role.ADMIN, EVERY_TENANT))
    tokens.revoke(revoked.id)
    return {
        "wrong": text[:-1] + ("A" if text[-1] != "A" else "B"),
        "unknown": text.replace("tw_", "tw_9", 1),
        "revoked": revoked_text,
        "expired": expired_text(tokens),
        "no token": "Zm9vOmJhcg==",
        "empty": "",
    }


def expired_text(tokens: Tokens) -> str:
    """Of a token that expires at once."""
    token = Token("late", Role.ADMIN, EVERY_TENANT, expires_at_ns=time.time_ns() + 10**9)
    _, text = tokens.create(token)
    while True:
        try:
            tokens._credentials.of_token(text)
        except Unauthenticated:
            return text
        time.sleep(0.01)


def method(name: str) -> MethodDescriptor:
    service, _, method = name.partition("/")
    return SERVICES[service].methods_by_name[method]


def ask(channel: grpc.Channel, name: str, *headers: str) -> Callable[[], Any]:
    """Sends a malformed message, with these authorization headers."""
    descriptor = method(name)
    path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
    metadata: Sequence[tuple[str, str]] = [("authorization", header) for header in headers]
    kind = f"{'stream' if descriptor.client_streaming else 'unary'}_" + (
        "stream" if descriptor.server_streaming else "unary"
    )
    request: Any = iter([NO_MESSAGE]) if descriptor.client_streaming else NO_MESSAGE
    call = getattr(channel, kind)(path)
    return lambda: call(request, metadata=metadata, timeout=DEADLINE_SECONDS)


def answer(channel: grpc.Channel, name: str, *headers: str) -> tuple[grpc.StatusCode, str]:
    found = refusal(ask(channel, name, *headers))
    return found.code, found.reason


LET_IN = (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
TOKEN_REQUIRED = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REQUIRED")
TOKEN_INVALID = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")
ROLE_LACKS = (grpc.StatusCode.PERMISSION_DENIED, "ROLE_LACKS")
SCOPE_LACKS = (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_LACKS")


@pytest.mark.parametrize("name", PERMISSIONS)
def test_each_role_has_access_according_to_the_table(guarded: Guarded, name: str) -> None:
    row = PERMISSIONS[name]
    for (role, every), text in guarded.texts.items():
        wanted = LET_IN
        if role not in row.roles:
            wanted = ROLE_LACKS
        elif row.needs is Needs.EVERY_TENANT and not every:
            wanted = SCOPE_LACKS
        for channel in (guarded.closed, guarded.open):
            assert answer(channel, name, f"Bearer {text}") == wanted, (role, every)


@pytest.mark.parametrize("name", PERMISSIONS)
def test_a_caller_without_a_valid_token_has_no_access(guarded: Guarded, name: str) -> None:
    is_asked = PERMISSIONS[name].needs is not Needs.NOTHING
    assert answer(guarded.closed, name) == (TOKEN_REQUIRED if is_asked else LET_IN)
    assert answer(guarded.open, name) == LET_IN
    for kind, text in guarded.wrong.items():
        for channel in (guarded.closed, guarded.open):
            found = answer(channel, name, f"Bearer {text}")
            assert found == (TOKEN_INVALID if is_asked else LET_IN), kind


def test_all_wrong_tokens_get_the_same_message(guarded: Guarded) -> None:
    answers = {
        repr(refusal(ask(guarded.closed, "CdrService/GetCdr", f"Bearer {text}")))
        for text in guarded.wrong.values()
    }
    assert len(answers) == 1


def test_how_the_header_may_be_written(guarded: Guarded) -> None:
    text = guarded.texts[Role.ADMIN, True]
    for header in (f"Bearer {text}", f"bearer {text}", f"BEARER {text}", f"Bearer  {text} "):
        assert answer(guarded.closed, "CdrService/GetCdr", header) == LET_IN, header
    for header in (text, f"Basic {text}", f"Bearer{text}", f"Bearer {text} {text}", "x" * 5000):
        assert answer(guarded.closed, "CdrService/GetCdr", header) == TOKEN_INVALID, header
    both = (f"Bearer {text}", f"Bearer {text}")
    assert answer(guarded.closed, "CdrService/GetCdr", *both) == TOKEN_INVALID


class Talk:
    """A stream of ratings, one request and its response at a time."""

    def __init__(self, channel: grpc.Channel, text: str) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stub = channel.stream_stream("/tollwire.v1.RatingService/StreamRateCalls")
        self._responses = stub(
            iter(self._requests.get, None),
            metadata=[("authorization", f"Bearer {text}")],
            timeout=DEADLINE_SECONDS,
        )

    def ask(self) -> Any:
        self._requests.put(b"")
        return next(self._responses)


def test_a_stream_that_is_open_ends_once_its_token_is_revoked(guarded: Guarded) -> None:
    made, text = guarded.tokens.create(Token("gone", Role.RATER, EVERY_TENANT))
    talk = Talk(guarded.closed, text)
    assert talk.ask() == b""
    assert talk.ask() == b""
    guarded.tokens.revoke(made.id)
    found = refusal(talk.ask)
    assert (found.code, found.reason) == TOKEN_INVALID


class Noting:
    """Streams that record their inputs; the caller's token is revoked after the first response of
    an export."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.is_revoked = False

    def stays(self, rpc: RpcContext) -> None:
        if self.is_revoked:
            raise token_invalid()

    def StreamRateCalls(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            self.seen.append(request)
            yield rating_service_pb2.StreamRateCallsResponse()

    def ExportRates(self, request: Any, context: Any) -> Iterator[Any]:
        yield rating_service_pb2.ExportRatesResponse()
        self.is_revoked = True
        yield rating_service_pb2.ExportRatesResponse()

    def __getattr__(self, name: str) -> Any:
        return self.ExportRates


@pytest.fixture
def noting() -> Iterator[tuple[Noting, grpc.Channel]]:
    noting = Noting()
    pipeline = RpcPipeline(check_again=noting.stays)
    with running(SERVICES["RatingService"], noting, pipeline=pipeline) as server:
        yield noting, server.channel


def test_requests_after_the_revocation_are_not_passed_on(
    noting: tuple[Noting, grpc.Channel],
) -> None:
    servicer, channel = noting
    talk = Talk(channel, "any")
    talk.ask()
    servicer.is_revoked = True
    assert refusal(talk.ask).reason == "TOKEN_INVALID"
    assert len(servicer.seen) == 1


def test_nothing_is_sent_after_the_revocation(noting: tuple[Noting, grpc.Channel]) -> None:
    _, channel = noting
    stub = channel.unary_stream("/tollwire.v1.RatingService/ExportRates")
    responses = stub(b"", timeout=DEADLINE_SECONDS)
    assert next(responses) == b""
    assert refusal(lambda: next(responses)).reason == "TOKEN_INVALID"
