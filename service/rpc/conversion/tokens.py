"""Tokens and roles."""

from __future__ import annotations

from tollwire.service.accounts.tokens import check_token
from tollwire.service.domain.errors import invalid_field
from tollwire.service.domain.model import Token
from tollwire.service.domain.request import Role, Scope
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.fields import REQUIRED, Violations
from tollwire.v1 import access_service_pb2 as pb

ROLES = {role: pb.Role.Value(f"ROLE_{role.name}") for role in Role}
_ROLES_BY_NUMBER = {number: role for role, number in ROLES.items()}


def token(token: Token) -> pb.Token:
    tenant_ids = token.scope.tenant_ids
    return pb.Token(
        id=token.id,
        name=token.name,
        role=ROLES[token.role],
        tenant_ids=sorted(tenant_ids or ()),
        every_tenant=tenant_ids is None,
        certificate_identity=token.certificate_identity,
        created_at=fields.timestamp(token.created_at_ns),
        created_by=token.created_by,
        expires_at=fields.timestamp(token.expires_at_ns),
        revoked_at=fields.timestamp(token.revoked_at_ns),
    )


def token_to_create(request: pb.CreateTokenRequest, now_ns: int) -> Token:
    if not request.HasField("token"):
        raise invalid_field("token", REQUIRED)
    message, violations = request.token, Violations()
    role = _ROLES_BY_NUMBER.get(message.role)
    if role is None:
        names = ", ".join(role.name for role in Role)
        words = f"unknown role {message.role}" if message.role else f"{REQUIRED}: one of {names}"
        violations.add("token.role", words)
    expires_at_ns = None
    if message.HasField("expires_at"):
        expires_at_ns = fields.time_ns(message.expires_at, "token.expires_at", violations)
    token = Token(
        name=message.name,
        role=role or Role.RATER,
        scope=_scope(message, violations),
        certificate_identity=message.certificate_identity,
        expires_at_ns=expires_at_ns,
    )
    violations.merge(check_token(token, now_ns), "token.")
    violations.raise_if_any()
    return token


def _scope(message: pb.Token, violations: Violations) -> Scope:
    if not message.every_tenant:
        return Scope(frozenset(message.tenant_ids))
    if message.tenant_ids:
        violations.add("token.every_tenant", "must not be set where tenant_ids names tenants")
    return Scope()
