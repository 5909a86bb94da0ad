"""A client certificate with the identity of a token, over mutual TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.authority import Authority, Issued, files_of
from tests.rpc.running import DEADLINE_SECONDS, refusal
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.domain.model import Tenant, Token
from tollwire.service.domain.request import Role, Scope
from tollwire.service.process.composition import build_application
from tollwire.service.rpc.access_control import AccessControl
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.server import RpcServer
from tollwire.service.rpc.tls import ServerTls
from tollwire.service.rpc.transports.grpcio import GrpcioCall
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.v1 import tenant_service_pb2 as pb
from tollwire.v1 import tenant_service_pb2_grpc

AUTHORITY = Authority()


@dataclass
class Mutual:
    """A server that demands tokens and client certificates. With tenants 1 and 2."""

    address: str
    tokens: Tokens

    def token(self, identity: str, tenant_id: int) -> tuple[Token, str]:
        scope = Scope(frozenset({tenant_id}))
        token = Token("desk", Role.READER, scope, certificate_identity=identity)
        return self.tokens.create(token)

    def tenants(self, shows: Issued, *header: str) -> list[int]:
        """The tenants that the holder of this certificate sees."""
        credentials = grpc.ssl_channel_credentials(AUTHORITY.pem, shows.key, shows.chain)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(self.address, credentials, options) as channel:
            answer = tenant_service_pb2_grpc.TenantServiceStub(channel).ListTenants(
                pb.ListTenantsRequest(),
                metadata=[("authorization", text) for text in header],
                timeout=DEADLINE_SECONDS,
            )
        return [tenant.id for tenant in answer.tenants]

    def reason(self, shows: Issued, *header: str) -> str:
        return refusal(lambda: self.tenants(shows, *header)).reason


@contextmanager
def serving(folder: Path) -> Iterator[Mutual]:
    AUTHORITY.issue("localhost").write(folder)
    AUTHORITY.write(folder)
    with build_application(Settings(database=f"sqlite:///{folder}/tollwire.db")) as everything:
        for _ in range(2):
            everything.subjects.tenants.create(Tenant(name="Acme"))
        access = AccessControl(everything.credentials, is_open=False, takes_certificates=True)
        server = RpcServer(
            everything.subjects, capacity=Capacity(max_streams=2), pipeline=RpcPipeline(access)
        )
        tls = ServerTls(files_of(folder, mutual=True))
        listen = server.bind(Listen("127.0.0.1", 0), tls.credentials)
        server.start()
        yield Mutual(f"localhost:{listen.port}", everything.subjects.tokens)
        assert server.stop(0)


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mutual]:
    with serving(tmp_path_factory.mktemp("mutual")) as server:
        yield server


def test_a_certificate_identifies_the_token_with_its_identity(mutual: Mutual) -> None:
    desk = AUTHORITY.issue("desk-1.example", common_name="whatever")
    assert mutual.reason(desk) == "TOKEN_REQUIRED"
    made, _ = mutual.token("desk-1.example", 1)
    assert mutual.tenants(desk) == [1]
    assert mutual.reason(AUTHORITY.issue("desk-2.example")) == "TOKEN_REQUIRED"
    mutual.tokens.revoke(made.id)
    assert mutual.reason(desk) == "TOKEN_REQUIRED"


def test_the_common_name_counts_if_there_is_no_other(mutual: Mutual) -> None:
    mutual.token("desk-3", 2)
    assert mutual.tenants(AUTHORITY.issue(common_name="desk-3")) == [2]
    named = AUTHORITY.issue("desk-4.example", common_name="desk-3")
    assert mutual.reason(named) == "TOKEN_REQUIRED"


def test_a_uniform_identifier_counts_as_a_name_does(mutual: Mutual) -> None:
    mutual.token("spiffe://example/desk", 2)
    desk = AUTHORITY.issue("desk-6.example", uri="spiffe://example/desk")
    assert mutual.tenants(desk) == [2]


def test_a_token_that_is_sent_counts_before_the_certificate(mutual: Mutual) -> None:
    desk = AUTHORITY.issue("desk-5.example")
    mutual.token("desk-5.example", 1)
    _, text = mutual.token("", 2)
    assert mutual.tenants(desk, f"Bearer {text}") == [2]
    assert mutual.reason(desk, f"Bearer {text}x") == "TOKEN_INVALID"


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ({}, []),
        ({"peer_dns": [b"a", b"b"], "peer_uri": [b"spiffe://x"]}, ["spiffe://x", "a", "b"]),
        ({"x509_common_name": [b"cn"], "peer_email": [b"a@b"]}, ["cn"]),
        ({"x509_common_name": [b"cn"], "peer_uri": [b"urn:x"]}, ["urn:x"]),
        ({"x509_common_name": [b"\xff"]}, ["\ufffd"]),
    ],
)
def test_the_identities_of_a_certificate(shown: dict[str, list[bytes]], found: list[str]) -> None:
    class Context:
        def time_remaining(self) -> float:
            return 1.0

        def is_active(self) -> bool:
            return True

        def invocation_metadata(self) -> tuple[()]:
            return ()

        def auth_context(self) -> dict[str, list[bytes]]:
            return shown

    context: Any = Context()
    assert list(GrpcioCall(context, iter([]), print).identities()) == found
