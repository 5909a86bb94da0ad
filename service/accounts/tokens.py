"""Creates, lists and revokes tokens.

A caller can create, see and revoke only tokens within its own scope; for the caller, other tokens
do not exist. service/accounts/credentials.py checks tokens that clients send.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from tollwire.service.accounts import audit
from tollwire.service.accounts.credentials import Credentials, digest, new_secret, text_of
from tollwire.service.cache.decks import tenant_not_found
from tollwire.service.domain import paging, scopes
from tollwire.service.domain.checks import check_id, check_text, refuse
from tollwire.service.domain.errors import (
    AlreadyExists,
    FieldViolation,
    Forbidden,
    NotFound,
    Reason,
)
from tollwire.service.domain.model import (
    MAX_CERTIFICATE_IDENTITY_CHARS,
    MAX_ID,
    MAX_NAME_CHARS,
    MAX_STARTED_AT_NS,
    MAX_TOKEN_TENANTS,
    Page,
    Token,
)
from tollwire.service.domain.request import EVERY_TENANT, Role, Scope
from tollwire.service.domain.scopes import scope as callers_scope
from tollwire.service.domain.thread_context import current_request
from tollwire.service.storage import ids, tenants, tokens
from tollwire.service.storage.engine import Connection, Database

# The most that an id takes in a repeated field.
_ID_BYTES = 9


def check_token(token: Token, now_ns: int) -> list[FieldViolation]:
    """The violations of a token to create, with field paths from the token."""
    found = [
        *check_text("name", token.name, MAX_NAME_CHARS, required=True),
        *check_text(
            "certificate_identity", token.certificate_identity, MAX_CERTIFICATE_IDENTITY_CHARS
        ),
        *_check_scope(token.scope),
    ]
    expires_at_ns = token.expires_at_ns
    if expires_at_ns is not None and not now_ns < expires_at_ns <= MAX_STARTED_AT_NS:
        found.append(
            FieldViolation("expires_at", "must be in the future, and before 2262-04-11T23:47:16Z")
        )
    return found


def _check_scope(scope: Scope) -> Iterator[FieldViolation]:
    if scope.tenant_ids is None:
        return
    if not 1 <= len(scope.tenant_ids) <= MAX_TOKEN_TENANTS:
        yield FieldViolation(
            "tenant_ids",
            f"must name 1 to {MAX_TOKEN_TENANTS} tenants, unless every_tenant is set;"
            f" got {len(scope.tenant_ids)}",
        )
    wrong = [tenant_id for tenant_id in scope.tenant_ids if not 0 < tenant_id <= MAX_ID]
    if wrong:
        yield FieldViolation("tenant_ids", f"must be above 0, got {min(wrong)}")


class AdminExists(Exception):
    """An administrator already has a usable token. If that token is lost, only somebody with write
    access to the database can revoke it."""


class Tokens:
    """Manages tokens. Thread-safe."""

    def __init__(
        self,
        database: Database,
        credentials: Credentials,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._database = database
        self._credentials = credentials
        self._clock_ns = clock_ns

    def create(self, token: Token) -> tuple[Token, str]:
        """Create a token. Returns the token as stored, and its text, which cannot be read again.

        NotFound TENANT_NOT_FOUND for a tenant that does not exist or is outside the caller's scope;
        Forbidden SCOPE_LACKS; AlreadyExists CERTIFICATE_IDENTITY_TAKEN.
        """
        now_ns = self._clock_ns()
        refuse(check_token(token, now_ns), "token.")
        _check_reach(token)
        with self._database.write() as connection:
            made = self._add(connection, token, now_ns)
        self._credentials.load_after_commit()
        return made

    def create_first(self, name: str) -> tuple[Token, str]:
        """Create the first token: of an administrator of every tenant. AdminExists if such an
        administrator already has a usable token."""
        now_ns = self._clock_ns()
        token = Token(name=name, role=Role.ADMIN, scope=EVERY_TENANT)
        refuse(check_token(token, now_ns), "token.")
        with self._database.write() as connection:
            seq = tokens.begin_change(connection)
            for other in tokens.after(connection, 0, include_revoked=False):
                reaches_all = other.role is Role.ADMIN and other.scope == EVERY_TENANT
                if reaches_all and other.is_usable(now_ns):
                    raise AdminExists(
                        f"an administrator already has a token: {other.id} ({other.name}); use it"
                        " to create others, or revoke it first"
                    )
            return self._add(connection, token, now_ns, seq)

    def get(self, token_id: int) -> Token:
        refuse(check_id("id", token_id))
        with self._database.read() as connection:
            return _within_reach(tokens.get(connection, token_id), token_id)

    def list(self, page_size: int, page_token: str, *, include_revoked: bool) -> Page[Token]:
        """One page, by ascending id."""
        size = paging.page_size(page_size)
        wanted = ("tokens", include_revoked, scopes.within())
        (after_id,) = paging.decode_token(page_token, wanted, (int,)) or (0,)
        scope = callers_scope()
        with self._database.read() as connection:
            stored = tokens.after(connection, after_id, include_revoked=include_revoked)
            covered = (token for token in stored if scope.covers_all_of(token.scope))
            found = list(islice(covered, size + 1))
        return paging.cut(found, size, wanted, paging.by_id, _most_bytes)

    def revoke(self, token_id: int) -> Token:
        """Revoke a token. Returns it; a token that was revoked before is returned unchanged."""
        refuse(check_id("id", token_id))
        with self._database.write() as connection:
            seq = tokens.begin_change(connection)
            token = _within_reach(tokens.get(connection, token_id), token_id)
            if token.revoked_at_ns is not None:
                return token
            now_ns = self._clock_ns()
            tokens.revoke(connection, token_id, now_ns, seq)
            revoked = replace(token, revoked_at_ns=now_ns)
            _enter(connection, "RevokeToken", now_ns, token, revoked)
        self._credentials.load_after_commit()
        return revoked

    def _add(
        self, connection: Connection, token: Token, now_ns: int, seq: int = 0
    ) -> tuple[Token, str]:
        seq = seq or tokens.begin_change(connection)
        named = token.scope.tenant_ids or frozenset()
        for tenant_id in sorted(named - tenants.present(connection, named)):
            raise tenant_not_found(tenant_id)
        if token.certificate_identity:
            holder = tokens.with_identity(connection, token.certificate_identity)
            if holder is not None:
                raise _identity_taken(holder)
        token = replace(
            token,
            id=ids.take(connection, "tokens"),
            created_at_ns=now_ns,
            created_by=current_request().caller.name,
            revoked_at_ns=None,
        )
        secret = new_secret()
        tokens.add(connection, token, digest(secret), seq)
        _enter(connection, "CreateToken", now_ns, None, token)
        return token, text_of(token.id, secret)


def _enter(
    connection: Connection, action: str, now_ns: int, before: Token | None, after: Token
) -> None:
    """Write an entry to the audit log."""
    audit.enter(
        connection,
        action=action,
        resource=f"token/{after.id}",
        now_ns=now_ns,
        tenant_id=audit.sole_tenant(after.scope),
        before=before,
        after=after,
    )


def _check_reach(token: Token) -> None:
    """Forbidden SCOPE_LACKS if the token's scope is not within the caller's scope."""
    scope = callers_scope()
    if scope.tenant_ids is None:
        return
    if token.scope.tenant_ids is None:
        raise _scope_lacks(
            "only callers whose scope is every tenant can create a token for every tenant"
        )
    if token.certificate_identity:
        # Identities belong to no tenant: a caller could take the identity of another tenant.
        raise _scope_lacks(
            "only callers whose scope is every tenant can create a token for a certificate"
        )
    for tenant_id in sorted(token.scope.tenant_ids - scope.tenant_ids):
        raise tenant_not_found(tenant_id)


def _within_reach(token: Token | None, token_id: int) -> Token:
    if token is None or not callers_scope().covers_all_of(token.scope):
        raise NotFound(
            Reason.TOKEN_NOT_FOUND,
            f"there is no token {token_id}",
            metadata={"token_id": str(token_id)},
        )
    return token


def _scope_lacks(message: str) -> Forbidden:
    return Forbidden(Reason.SCOPE_LACKS, message)


def _identity_taken(holder: Token) -> AlreadyExists:
    return AlreadyExists(
        Reason.CERTIFICATE_IDENTITY_TAKEN,
        f"token {holder.id} has this certificate identity; revoke it first",
        metadata={"token_id": str(holder.id)},
    )


def _most_bytes(token: Token) -> int:
    """The maximum size of a token in a response."""
    texts = (token.name, token.certificate_identity, token.created_by)
    ids = token.scope.tenant_ids or ()
    return 100 + _ID_BYTES * len(ids) + sum(4 * len(text) for text in texts)
