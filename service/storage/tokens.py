"""Tokens as rows, and the clock of their changes.

A transaction that changes tokens first locks and raises the clock (``begin_change``) and writes its
number to the row, so the order of ``change_seq`` is the order of the commits. Tokens change rarely,
so this lock delays no other work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from tollwire.service.domain.model import Token
from tollwire.service.domain.request import Role, Scope
from tollwire.service.storage.changes import Clock
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.schema.access_tables import IS_NOT_REVOKED, TokenClockRow, TokenRow

# A revocation must take effect within a second in all workers, even if a notification is lost.
CLOCK = Clock("token_clock", "tollwire_tokens", poll_seconds=0.1)

_SHOWN = tuple(
    column
    for column in TokenRow.__table__.columns
    if column.name not in ("secret_sha256", "change_seq")
)
_PART_ROWS = 1000
_CHANGE_SEQ = "SELECT change_seq FROM token_clock"


class _ChangedRow(NamedTuple):
    id: int
    name: str
    role: str
    tenant_ids: str | None
    certificate_identity: str | None
    created_at_ns: int
    created_by: str
    expires_at_ns: int | None
    revoked_at_ns: int | None
    secret_sha256: bytes


_CHANGED = (
    f"SELECT {', '.join(_ChangedRow._fields)} FROM tokens WHERE change_seq > ? ORDER BY change_seq"
)


def begin_change(connection: Connection) -> int:
    """Lock the clock; returns the number of this change. No other token changes before this
    transaction ends."""
    seq = connection.execute(
        update(TokenClockRow)
        .values(change_seq=TokenClockRow.change_seq + 1)
        .returning(TokenClockRow.change_seq)
    ).scalar_one()
    CLOCK.notify(connection)
    return seq


def change_seq(connection: Connection) -> int:
    """The number of the last committed change of any token."""
    ((found,),) = dialect_of(connection).driver_rows(connection, _CHANGE_SEQ, ())
    return int(found)


def add(connection: Connection, token: Token, secret_sha256: bytes, seq: int) -> None:
    """Store a new token, in the change with this number."""
    tenant_ids = token.scope.tenant_ids
    connection.execute(
        insert(TokenRow).values(
            id=token.id,
            name=token.name,
            role=token.role.value,
            tenant_ids=None if tenant_ids is None else json.dumps(sorted(tenant_ids)),
            secret_sha256=secret_sha256,
            certificate_identity=token.certificate_identity or None,
            created_at_ns=token.created_at_ns,
            created_by=token.created_by,
            expires_at_ns=token.expires_at_ns,
            change_seq=seq,
        )
    )


def revoke(connection: Connection, token_id: int, now_ns: int, seq: int) -> None:
    """Revoke a token that is not revoked, in the change with this number."""
    connection.execute(
        update(TokenRow).where(TokenRow.id == token_id).values(revoked_at_ns=now_ns, change_seq=seq)
    )


def get(connection: Connection, token_id: int) -> Token | None:
    row = connection.execute(select(*_SHOWN).where(TokenRow.id == token_id)).first()
    return None if row is None else _token(row)


def with_identity(connection: Connection, certificate_identity: str) -> Token | None:
    """The token for client certificates with this identity that is not revoked."""
    query = select(*_SHOWN).where(
        TokenRow.certificate_identity == certificate_identity, IS_NOT_REVOKED
    )
    row = connection.execute(query).first()
    return None if row is None else _token(row)


def after(connection: Connection, after_id: int, *, include_revoked: bool) -> Iterator[Token]:
    """Tokens with ids above ``after_id``, by rising id. Reads them in parts, as they are taken."""
    while True:
        query = select(*_SHOWN).where(TokenRow.id > after_id).order_by(TokenRow.id)
        if not include_revoked:
            query = query.where(IS_NOT_REVOKED)
        rows = connection.execute(query.limit(_PART_ROWS)).all()
        yield from map(_token, rows)
        if len(rows) < _PART_ROWS:
            return
        after_id = rows[-1].id


def changed_since(connection: Connection, known_seq: int) -> Iterator[tuple[Token, bytes]]:
    """The tokens that changed after ``known_seq``, each with the digest of its secret, in the order
    of their last changes."""
    for row in dialect_of(connection).driver_rows(connection, _CHANGED, (known_seq,)):
        changed = _ChangedRow(*row)
        yield _token(changed), bytes(changed.secret_sha256)


def _token(row: Any) -> Token:
    every = row.tenant_ids is None
    return Token(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        scope=Scope(None if every else frozenset(json.loads(row.tenant_ids))),
        certificate_identity=row.certificate_identity or "",
        created_at_ns=row.created_at_ns,
        created_by=row.created_by,
        expires_at_ns=row.expires_at_ns,
        revoked_at_ns=row.revoked_at_ns,
    )
