"""The tables of tokens and of the audit log.

The conventions are in ``tenant_tables``; only roles are names and not numbers, because they are not
read in bulk.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from tollwire.service.storage.schema.tenant_tables import Base, RowId, partial_index


class TokenRow(Base):
    """A token. Only a digest of its secret is stored; ``role`` is the name of the role.
    ``change_seq`` orders the changes of all tokens: workers follow it. The only change is to revoke
    it, once."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    tenant_ids: Mapped[str | None] = mapped_column(Text)  # JSON, rising; NULL: every tenant
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    certificate_identity: Mapped[str | None] = mapped_column(Text)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[str] = mapped_column(Text)
    expires_at_ns: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at_ns: Mapped[int | None] = mapped_column(BigInteger)
    change_seq: Mapped[int] = mapped_column(BigInteger, index=True)

    __table_args__ = (
        CheckConstraint("id > 0", name="id"),
        CheckConstraint("role IN ('rater', 'ingest', 'reader', 'operator', 'admin')", name="role"),
        CheckConstraint("length(secret_sha256) = 32", name="secret_sha256"),
        CheckConstraint("length(name) BETWEEN 1 AND 200", name="name"),
    )


IS_NOT_REVOKED = TokenRow.revoked_at_ns.is_(None)
partial_index(
    "uq_tokens_certificate_identity",
    TokenRow.certificate_identity,
    where=IS_NOT_REVOKED,
    unique=True,
)


class TokenClockRow(Base):
    """One row that counts changes of tokens. A transaction raises it first, so changes exclude each
    other and ``change_seq`` is in the order of their commits."""

    __tablename__ = "token_clock"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    change_seq: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class AuditEntryRow(Base):
    """One administrative change. ``tenant_id`` 0: several tenants, or none. ``before`` and
    ``after`` are JSON, or empty. An entry is written once and never deleted."""

    __tablename__ = "audit_entries"

    # The database assigns it: an id counter would be locked until the end of each change.
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    token_id: Mapped[int] = mapped_column(BigInteger)
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    caller: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    resource: Mapped[str] = mapped_column(Text)
    before: Mapped[str] = mapped_column(Text)
    after: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("ix_audit_entries_tenant_id_id", "tenant_id", "id"),)
