"""Tokens created, listed and revoked, within the administrator's scope; over both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.world import NOON_NS, World, at_once
from tollwire.service.accounts.credentials import Credentials
from tollwire.service.accounts.tokens import AdminExists, Tokens, _most_bytes
from tollwire.service.domain import paging
from tollwire.service.domain.errors import (
    AlreadyExists,
    Forbidden,
    InvalidInput,
    NotFound,
    Reason,
    TollwireError,
    Unauthenticated,
)
from tollwire.service.domain.model import MAX_ID, MAX_TOKEN_TENANTS, Token
from tollwire.service.domain.request import EVERY_TENANT, LOCAL, Caller, Request, Role, Scope
from tollwire.service.domain.thread_context import handling
from tollwire.service.rpc.conversion import tokens as conversion
from tollwire.service.storage.engine import Database

HOUR_NS = 3600 * 10**9


class Clock:
    now_ns = NOON_NS

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials(database: Database, clock: Clock) -> Iterator[Credentials]:
    credentials = Credentials(database, clock)
    credentials.load()
    yield credentials
    credentials.close()


@pytest.fixture
def tokens(database: Database, credentials: Credentials, clock: Clock) -> Tokens:
    """With tenants 1, 2 and 3."""
    world = World.over(database)
    for _ in range(3):
        world.tenant()
    return Tokens(database, credentials, clock)


def scope(*tenant_ids: int) -> Scope:
    return Scope(frozenset(tenant_ids))


def token(**fields: Any) -> Token:
    return Token(**({"name": "switch", "role": Role.INGEST, "scope": scope(1)} | fields))


def asked_by(*tenant_ids: int) -> Any:
    """The block runs as an administrator of these tenants."""
    return handling(Request(caller=Caller("Ada", Role.ADMIN, scope(*tenant_ids), token_id=77)))


def refused(kind: type[TollwireError], reason: Reason, action: Any, *values: Any) -> TollwireError:
    with pytest.raises(kind) as raised:
        action(*values)
    assert raised.value.reason is reason
    return raised.value


def test_a_token_is_kept_as_it_was_made(tokens: Tokens) -> None:
    wanted = token(
        scope=scope(3, 1), certificate_identity="spiffe://here/7", expires_at_ns=NOON_NS + 1
    )
    made, _ = tokens.create(wanted)
    assert made == replace(wanted, id=made.id, created_at_ns=NOON_NS, created_by=LOCAL.name)
    assert tokens.get(made.id) == made
    assert tokens.list(0, "", include_revoked=False).items == [made]


def test_its_text_is_accepted(tokens: Tokens, credentials: Credentials) -> None:
    made, text = tokens.create(token())
    assert text.startswith(f"tw_{made.id}_") and len(text) == len(f"tw_{made.id}_") + 43
    assert credentials.of_token(text) == Caller("switch", Role.INGEST, scope(1), made.id)


def test_its_text_is_not_stored(tokens: Tokens, database: Database) -> None:
    made, text = tokens.create(token())
    secret = text.removeprefix(f"tw_{made.id}_")
    with database.read() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM tokens").all()
    assert len(rows) == 1
    assert secret not in repr(rows) and secret.encode().hex() not in repr(rows)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, ["token.name"]),
        ({"name": "x" * 201}, ["token.name"]),
        ({"name": "a\0"}, ["token.name"]),
        ({"certificate_identity": "x" * 256}, ["token.certificate_identity"]),
        ({"scope": scope()}, ["token.tenant_ids"]),
        ({"scope": scope(*range(1, MAX_TOKEN_TENANTS + 2))}, ["token.tenant_ids"]),
        ({"scope": scope(1, 0)}, ["token.tenant_ids"]),
        ({"scope": scope(-1, 2**63)}, ["token.tenant_ids"]),
        ({"expires_at_ns": NOON_NS}, ["token.expires_at"]),
        ({"expires_at_ns": 2**63 - 1}, ["token.expires_at"]),
        (
            {"name": "", "scope": scope(0), "expires_at_ns": -1},
            ["token.name", "token.tenant_ids", "token.expires_at"],
        ),
    ],
)
def test_wrong_tokens_are_refused(tokens: Tokens, fields: dict[str, Any], wrong: list[str]) -> None:
    error = refused(InvalidInput, Reason.INVALID_FIELD, tokens.create, token(**fields))
    assert [violation.field for violation in error.violations] == wrong


def test_the_tenants_must_exist(tokens: Tokens) -> None:
    error = refused(NotFound, Reason.TENANT_NOT_FOUND, tokens.create, token(scope=scope(2, 9, 8)))
    assert error.metadata == {"tenant_id": "8"}


def test_a_revoked_token_is_refused_and_stays_revoked(
    tokens: Tokens, credentials: Credentials, clock: Clock
) -> None:
    made, text = tokens.create(token())
    caller = credentials.of_token(text)
    assert credentials.is_still_valid(caller)
    revoked = tokens.revoke(made.id)
    assert revoked == replace(made, revoked_at_ns=NOON_NS)
    clock.now_ns += HOUR_NS
    assert tokens.revoke(made.id) == revoked == tokens.get(made.id)
    refused(Unauthenticated, Reason.TOKEN_INVALID, credentials.of_token, text)
    assert not credentials.is_still_valid(caller)
    assert tokens.list(0, "", include_revoked=False).items == []
    assert tokens.list(0, "", include_revoked=True).items == [revoked]


@pytest.mark.parametrize("act", ["get", "revoke"])
def test_an_unknown_token_is_not_found(tokens: Tokens, act: str) -> None:
    refused(NotFound, Reason.TOKEN_NOT_FOUND, getattr(tokens, act), 5)
    refused(InvalidInput, Reason.INVALID_FIELD, getattr(tokens, act), 0)


def test_pages_go_on_where_the_last_one_ended(tokens: Tokens) -> None:
    made = [tokens.create(token(name=f"{n}", scope=scope(1 + n % 2)))[0] for n in range(5)]
    tokens.revoke(made[1].id)
    page = tokens.list(2, "", include_revoked=False)
    assert page.items == [made[0], made[2]]
    assert tokens.list(2, page.next_page_token, include_revoked=False).items == made[3:]
    refused(
        *(InvalidInput, Reason.INVALID_FIELD),
        lambda: tokens.list(2, page.next_page_token, include_revoked=True),
    )
    with asked_by(1):
        page = tokens.list(2, "", include_revoked=False)
        assert (page.items, page.next_page_token) == ([made[0], made[2]], page.next_page_token)
        assert page.next_page_token
        assert tokens.list(2, page.next_page_token, include_revoked=False).items == [made[4]]


def test_a_page_of_large_tokens_ends_early(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response of 1,000 tokens for 1,000 tenants each would pass gRPC's limit of 4 MiB."""
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 3000)
    made = [tokens.create(token(name=f"{n}{'é' * 199}"))[0] for n in range(5)]
    page = tokens.list(1000, "", include_revoked=False)
    assert 1 <= len(page.items) < 4
    found = list(page.items)
    while page.next_page_token:
        page = tokens.list(1000, page.next_page_token, include_revoked=False)
        found += page.items
    assert found == made


def test_the_size_of_a_token_is_not_underestimated() -> None:
    ids = range(MAX_ID - MAX_TOKEN_TENANTS, MAX_ID)
    large = token(
        name="é" * 200, scope=scope(*ids), certificate_identity="é" * 255, created_by="é" * 255
    )
    large = replace(
        large, id=MAX_ID, created_at_ns=NOON_NS + 1, expires_at_ns=NOON_NS, revoked_at_ns=NOON_NS
    )
    sent = conversion.token(large).ByteSize()
    assert sent <= _most_bytes(large) < 1.3 * sent


def test_an_administrator_sees_and_revokes_only_tokens_in_scope(
    tokens: Tokens,
) -> None:
    within = [tokens.create(token(scope=scope(1)))[0], tokens.create(token(scope=scope(1, 2)))[0]]
    beyond = [
        tokens.create(token(scope=reach))[0] for reach in (scope(3), scope(2, 3), EVERY_TENANT)
    ]
    with asked_by(1, 2):
        assert tokens.list(0, "", include_revoked=True).items == within
        assert [tokens.get(made.id) for made in within] == within
        for act in (tokens.get, tokens.revoke):
            absent = refused(NotFound, Reason.TOKEN_NOT_FOUND, act, 99)
            for made in beyond:
                error = refused(NotFound, Reason.TOKEN_NOT_FOUND, act, made.id)
                assert error.message.replace(str(made.id), "99") == absent.message
                assert error.metadata.keys() == absent.metadata.keys()
        assert tokens.revoke(within[1].id).revoked_at_ns is not None
    assert [tokens.get(made.id) for made in beyond] == beyond


def test_a_new_token_has_no_wider_scope_than_its_creators(tokens: Tokens) -> None:
    with asked_by(1, 2):
        made, _ = tokens.create(token(scope=scope(1, 2)))
        assert made.created_by == "Ada"
        absent = refused(NotFound, Reason.TENANT_NOT_FOUND, tokens.create, token(scope=scope(9)))
        other = refused(NotFound, Reason.TENANT_NOT_FOUND, tokens.create, token(scope=scope(1, 3)))
        assert other.message == absent.message.replace("9", "3")
        for fields in ({"scope": EVERY_TENANT}, {"certificate_identity": "spiffe://here/7"}):
            refused(Forbidden, Reason.SCOPE_LACKS, tokens.create, token(**fields))
    assert len(tokens.list(0, "", include_revoked=True).items) == 1


def test_a_certificate_belongs_to_one_token(tokens: Tokens, credentials: Credentials) -> None:
    made, _ = tokens.create(token(certificate_identity="spiffe://here/7"))
    again = token(name="another", certificate_identity="spiffe://here/7")
    error = refused(AlreadyExists, Reason.CERTIFICATE_IDENTITY_TAKEN, tokens.create, again)
    assert error.metadata == {"token_id": str(made.id)}
    caller = credentials.of_certificate(["spiffe://here/8", "spiffe://here/7"])
    assert caller is not None and caller.token_id == made.id
    tokens.revoke(made.id)
    assert credentials.of_certificate(["spiffe://here/7"]) is None
    next_one, _ = tokens.create(again)
    caller = credentials.of_certificate(["spiffe://here/7"])
    assert caller is not None and caller.token_id == next_one.id


def test_one_of_many_concurrent_tokens_gets_a_certificate(tokens: Tokens) -> None:
    def want() -> bool:
        try:
            tokens.create(token(certificate_identity="spiffe://here/7"))
        except AlreadyExists:
            return False
        return True

    assert sum(at_once(*[want] * 4)) == 1


def test_the_first_token_is_made_if_no_administrator_has_one(
    tokens: Tokens, credentials: Credentials, clock: Clock
) -> None:
    tokens.create(token(role=Role.ADMIN, scope=scope(1)))
    tokens.create(token(role=Role.OPERATOR, scope=EVERY_TENANT))
    passing = token(role=Role.ADMIN, scope=EVERY_TENANT, expires_at_ns=NOON_NS + HOUR_NS)
    tokens.create(passing)
    with pytest.raises(AdminExists, match=r"3 \(switch\)"):
        tokens.create_first("Ada")
    clock.now_ns += HOUR_NS
    first, text = tokens.create_first("Ada")
    assert (first.role, first.scope, first.name) == (Role.ADMIN, EVERY_TENANT, "Ada")
    credentials.load()
    assert credentials.of_token(text).token_id == first.id
    with pytest.raises(AdminExists):
        tokens.create_first("Ada")
    tokens.revoke(first.id)
    assert tokens.create_first("Ada")[0].id > first.id
