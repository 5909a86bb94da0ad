"""The permission matrix: every RPC, by every role with every kind of token, for objects of the
caller, of another tenant and of nobody, over the wire of one server.

A caller without the permission gets one and the same error for all objects. A caller with the
permission gets the same response for another tenant's objects as for objects that never existed.
The summary of the run states the size of the matrix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2

from tests.contract.matrix import METHODS, SERVICES, Answer, Asker, Case, Things, cases
from tests.integration.client import chunk, make_call, make_rate, timestamp
from tests.integration.serving import ServerProcess
from tests.rpc.test_permissions import FOR_ALL, FOR_EVERY_TENANT, may
from tollwire.service.domain.request import Role
from tollwire.service.process.composition import build_application
from tollwire.service.settings.config import Settings
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

OWN, OTHER, ABSENT = 7_000_001, 7_000_002, 7_000_003
MARK = "Confidential"  # in all names and texts of the other tenant
LIFE_SECONDS = 4
NOBODYS = "tw_999999_" + "A" * 43

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
# The responses that a caller with the permission never gets about existing objects.
NEVER = {
    *(UNAUTHENTICATED, DENIED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED),
    *(grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE),
}


@dataclass(frozen=True)
class Tokens:
    """The requests of callers of one role."""

    valid: str
    of_every_tenant: str
    refused: dict[str, str]


@dataclass(frozen=True)
class Stage:
    """A server that demands tokens, two tenants with their objects, and tokens."""

    asker: Asker
    root: str
    tokens: dict[Role, Tokens]
    own: Things
    other: Things
    nobodys: Things


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    url = f"sqlite:///{tmp_path_factory.mktemp('matrix') / 'tollwire.db'}"
    with build_application(Settings(database=url)) as everything:
        _, root = everything.subjects.tokens.create_first("root")
    with (
        ServerProcess(url, TOLLWIRE_ACCESS="tokens") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        asker = Asker(channel)
        own = _things(asker, root, OWN, "Acme")
        other = _things(asker, root, OTHER, MARK)
        tokens = {role: _tokens(asker, root, role) for role in Role}
        time.sleep(LIFE_SECONDS + 0.1)  # until the short-lived tokens have expired
        nobodys = Things(
            *(ABSENT, ABSENT + 1, 800_001, 800_002, 800_003, 0, 800_004),
            rates_token="nobody's",
            cdrs_token="nobody's",
        )
        asker.asked = 0
        yield Stage(asker, root, tokens, own, other, nobodys)


def _things(asker: Asker, root: str, tenant_id: int, name: str) -> Things:
    """A tenant with one object of each kind, and two of the listed ones."""

    def made(method: str, request: Message, token: str = root) -> Message:
        return asker.message(method, request, token)

    tenant = types.Tenant(id=tenant_id, name=name)
    made("TenantService/CreateTenant", tenant_pb.CreateTenantRequest(tenant=tenant))
    extension = types.Extension(id=tenant_id + 10**6, tenant_id=tenant_id, number="1", name=name)
    made("TenantService/CreateExtension", tenant_pb.CreateExtensionRequest(extension=extension))
    rates = [make_rate(prefix, tenant_id=tenant_id, destination=name) for prefix in ("44", "1")]
    rate, _ = [made("RatingService/CreateRate", rating_pb.CreateRateRequest(rate=r)) for r in rates]
    secret, token_id = _token(asker, root, Role.OPERATOR, [tenant_id])
    sent = chunk(
        [
            make_call(tenant_id, call_id="first", caller_number=name),
            make_call(tenant_id, "99", call_id="unrated"),
            make_call(tenant_id, "44", -1, call_id=name),
        ]
    )
    upload = made("CdrService/UploadCdrs", sent, secret)
    assert isinstance(upload, cdr_pb.UploadCdrsResponse)
    listed = made("CdrService/ListCdrs", cdr_pb.ListCdrsRequest(page_size=1), secret)
    assert isinstance(listed, cdr_pb.ListCdrsResponse)
    page = made("RatingService/ListRates", rating_pb.ListRatesRequest(page_size=1), secret)
    assert isinstance(page, rating_pb.ListRatesResponse)
    assert isinstance(rate, types.Rate)
    return Things(
        *(tenant_id, extension.id, rate.id, listed.cdrs[0].id),
        *(upload.upload_id, upload.committed_offset, token_id),
        rates_token=page.next_page_token,
        cdrs_token=listed.next_page_token,
    )


def _token(
    asker: Asker, root: str, role: Role, tenant_ids: list[int], life_seconds: int = 0
) -> tuple[str, int]:
    """A token's text and its id."""
    token = access_pb.Token(
        name=MARK if tenant_ids == [OTHER] else "somebody",
        role=access_pb.Role.Value(f"ROLE_{role.name}"),
        tenant_ids=tenant_ids,
        every_tenant=not tenant_ids,
    )
    if life_seconds:
        token.expires_at.CopyFrom(timestamp(time.time_ns() + life_seconds * 10**9))
    request = access_pb.CreateTokenRequest(token=token)
    made = asker.message("AccessService/CreateToken", request, root)
    assert isinstance(made, access_pb.CreateTokenResponse)
    return made.secret, made.token.id


def _tokens(asker: Asker, root: str, role: Role) -> Tokens:
    valid, _ = _token(asker, root, role, [OWN])
    revoked, revoked_id = _token(asker, root, role, [OWN])
    asker.message("AccessService/RevokeToken", access_pb.RevokeTokenRequest(id=revoked_id), root)
    return Tokens(
        valid,
        _token(asker, root, role, [])[0],
        {
            "wrong": valid[:-43] + NOBODYS[-43:],
            "of nobody": NOBODYS,
            "expired": _token(asker, root, role, [OWN], LIFE_SECONDS)[0],
            "revoked": revoked,
        },
    )


def test_every_method_that_is_served_is_in_the_matrix(stage: Stage) -> None:
    for method in METHODS:
        assert cases(method)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    told = stage.asker.message("ServerReflection/ServerReflectionInfo", request, stage.root)
    assert isinstance(told, reflection_pb2.ServerReflectionResponse)
    served = {service.name.rpartition(".")[2] for service in told.list_services_response.service}
    assert served == {service.name for service in SERVICES}


def test_the_permission_matrix(
    stage: Stage, record_property: Callable[[str, object], None]
) -> None:
    for role in Role:
        for method in METHODS:
            _ask_without_a_right(stage, role, method)
            _ask_for_some_tenants(stage, role, method)
            _ask_for_every_tenant(stage, role, method)
    record_property(
        "permission matrix",
        f"{len(METHODS)} RPCs, {len(Role)} roles, objects of one's own, of another tenant, of"
        " nobody; no token, wrong, of nobody, expired, revoked, valid, of every tenant:"
        f" {stage.asker.asked:,} requests, all"
        " with the expected responses",
    )


def _about(stage: Stage, method: str, case: Case, token: str | None) -> list[Answer]:
    """The responses about the caller's own objects, another tenant's, and nobody's."""
    whose = (stage.own, stage.other, stage.nobodys)
    return [stage.asker.ask(method, case(stage.own, of), token) for of in whose]


def _ask_without_a_right(stage: Stage, role: Role, method: str) -> None:
    case, *_ = cases(method)
    told: dict[str, set[Answer]] = {}
    for kind, token in {"none": None, **stage.tokens[role].refused}.items():
        told[kind] = set(_about(stage, method, case, token))
        if method in FOR_ALL and method.startswith("Health/"):
            assert {answer.code for answer in told[kind]} == {grpc.StatusCode.OK}, method
            continue
        [answer] = told[kind]
        wanted = "TOKEN_REQUIRED" if kind == "none" else "TOKEN_INVALID"
        assert (answer.code, answer.reason) == (UNAUTHENTICATED, wanted), (method, role, kind)
    del told["none"]
    # Nor does it reveal what is wrong with a token.
    assert len(set.union(*told.values())) == 1, (method, told)


def _ask_for_some_tenants(stage: Stage, role: Role, method: str) -> None:
    for number, case in enumerate(cases(method)):
        own, other, nobodys = _about(stage, method, case, stage.tokens[role].valid)
        where = (method, role, number, own, other)
        if not may(role, method) or method in FOR_EVERY_TENANT:
            assert own == other == nobodys, where
            wanted = "SCOPE_LACKS" if may(role, method) else "ROLE_LACKS"
            assert (own.code, own.reason) == (DENIED, wanted), where
            continue
        assert other.about(stage.other) == nobodys.about(stage.nobodys), (where, nobodys)
        assert own.code not in NEVER, where
        for answer in (own, other, nobodys):
            assert MARK not in answer.text, where
        assert str(stage.other.tenant_id) not in own.text, where
        assert str(stage.other.extension_id) not in own.text, where


def _ask_for_every_tenant(stage: Stage, role: Role, method: str) -> None:
    for number, case in enumerate(cases(method)):
        request = case(stage.own, stage.own)
        answer = stage.asker.ask(method, request, stage.tokens[role].of_every_tenant)
        where = (method, role, number, answer)
        if may(role, method):
            assert answer.code not in NEVER, where
        else:
            assert (answer.code, answer.reason) == (DENIED, "ROLE_LACKS"), where


def test_nothing_of_the_other_tenant_was_changed(stage: Stage) -> None:
    """Runs after the matrix, in which no caller may have changed it."""
    seen = {
        "TenantService/GetTenant": tenant_pb.GetTenantRequest(id=OTHER),
        "RatingService/ListRates": rating_pb.ListRatesRequest(tenant_id=OTHER),
        "CdrService/ListCdrs": cdr_pb.ListCdrsRequest(tenant_id=OTHER),
        "CdrService/GetUpload": cdr_pb.GetUploadRequest(upload_id=stage.other.upload_id),
        "CdrService/ListReversals": cdr_pb.ListReversalsRequest(tenant_id=OTHER),
        "AccessService/GetToken": access_pb.GetTokenRequest(id=stage.other.token_id),
    }
    texts = {
        method: stage.asker.ask(method, request, stage.root).text
        for method, request in seen.items()
    }
    assert texts["TenantService/GetTenant"].count(MARK) == 1
    assert texts["RatingService/ListRates"].count(MARK) == 2
    assert texts["CdrService/ListCdrs"].count("call_id") == 2
    assert "RATING_STATUS_UNRATED" in texts["CdrService/ListCdrs"]
    assert "reversed_at" not in texts["CdrService/GetUpload"]
    assert texts["CdrService/ListReversals"] == ""
    assert "revoked_at" not in texts["AccessService/GetToken"]
