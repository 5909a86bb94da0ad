"""The tables of the record: CDRs, uploads, and everything that is added to CDRs later.

The conventions are in ``tenant_tables``.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Sequence,
    SmallInteger,
    Text,
    func,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from tollwire.service.domain.model import RatingStatus
from tollwire.service.storage.schema.tenant_tables import Base, RowId, partial_index

# The sequences of row ids on PostgreSQL (tollwire.service.storage.ids). SQLite needs none.
ROW_IDS = {
    name: Sequence(f"{name}_ids", start=1, metadata=Base.metadata)
    for name in ("cdrs", "cdr_pricings", "cdr_reversals")
}


class UploadRow(Base):
    """An upload and its totals over the committed chunks."""

    __tablename__ = "uploads"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    committed_offset: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[int] = mapped_column(BigInteger)
    duplicates: Mapped[int] = mapped_column(BigInteger)
    conflicts: Mapped[int] = mapped_column(BigInteger)
    rejected: Mapped[int] = mapped_column(BigInteger)
    unrated: Mapped[int] = mapped_column(BigInteger)
    # The sum over all records, also failed ones.
    duration_seconds: Mapped[int] = mapped_column(BigInteger)
    # The control totals that the client stated last; NULL if it stated none.
    stated_calls: Mapped[int | None] = mapped_column(BigInteger)
    stated_duration_seconds: Mapped[int | None] = mapped_column(BigInteger)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    updated_at_ns: Mapped[int] = mapped_column(BigInteger)
    # When its reversal was requested: further chunks are refused.
    reversed_at_ns: Mapped[int | None] = mapped_column(BigInteger)
    # The scope of the caller who started it, as JSON by rising id; NULL for every tenant.
    scope_tenant_ids: Mapped[str | None] = mapped_column(Text)
    # Those of created whose call_id had a reversed CDR.
    recorded_again: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    # Records whose call_id was derived, and those of them that are duplicates.
    derived_call_ids: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    derived_duplicates: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    # The number of changes of this row, and a SHA-256 over all its chunks:
    # tollwire.service.storage.covered_rows.
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    chunks_hash: Mapped[bytes | None] = mapped_column(LargeBinary)


# The uploads of callers with one tenant, and with few: an index of PostgreSQL cannot hold the text
# of thousands.
HAS_SHORT_SCOPE = func.length(UploadRow.scope_tenant_ids) <= literal_column("100")
partial_index("ix_uploads_scope", UploadRow.scope_tenant_ids, UploadRow.id, where=HAS_SHORT_SCOPE)


class UploadChunkRow(Base):
    """The outcome of a committed chunk, for a client that sends it again."""

    __tablename__ = "upload_chunks"

    upload_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("uploads.id"), primary_key=True, autoincrement=False
    )
    first_index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    calls: Mapped[int] = mapped_column(Integer)
    # SHA-256 over the chunk's calls in chunks of older releases; empty if record_digests is set.
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    created: Mapped[int] = mapped_column(Integer)
    duplicates: Mapped[int] = mapped_column(Integer)
    conflicts: Mapped[int] = mapped_column(Integer)
    rejected: Mapped[int] = mapped_column(Integer)
    unrated: Mapped[int] = mapped_column(Integer)
    # The created CDRs have consecutive ids from this one on; 0 if none was created.
    first_cdr_id: Mapped[int] = mapped_column(BigInteger)
    # 8 bytes for each record: ratingcore/record/record_digest.pyx. NULL in chunks of older
    # releases.
    record_digests: Mapped[bytes | None] = mapped_column(LargeBinary)
    recorded_again: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    derived_call_ids: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    derived_duplicates: Mapped[int] = mapped_column(Integer, server_default=text("0"))


class UploadFailureRow(Base):
    """A failed record of an upload, with the reason and its bytes as they were sent.

    Deleted after the retention time of the settings: no other part of an upload is deleted.
    """

    __tablename__ = "upload_failures"

    upload_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("uploads.id"), primary_key=True, autoincrement=False
    )
    record_index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    call_id: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    message: Mapped[str] = mapped_column(Text)
    # tollwire.v1.Call in protobuf's wire format.
    content: Mapped[bytes] = mapped_column(LargeBinary)
    created_at_ns: Mapped[int] = mapped_column(BigInteger, index=True)


class CdrRow(Base):
    """One call and what it cost.

    The cost is two integers, whole units and the rest in 10**-8: a cost of 15 digits before the
    point does not fit 64 bits at that scale, and SQLite has no exact decimals. ``generation``: how
    many CDRs of this tenant and call_id were reversed before this one.

    No foreign keys: at millions of rows an hour they cost more than the insert. The writing
    transaction has a share lock on the tenants and extensions, and triggers refuse to delete those
    that CDRs refer to.
    """

    __tablename__ = "cdrs"

    # Wide columns first and texts last: PostgreSQL aligns each to its width, and pads with zeros.
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    started_at_ns: Mapped[int] = mapped_column(BigInteger)
    rate_revision: Mapped[int] = mapped_column(BigInteger)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    extension_id: Mapped[int | None] = mapped_column(BigInteger)
    ended_at_ns: Mapped[int | None] = mapped_column(BigInteger)
    bill_seconds: Mapped[int | None] = mapped_column(BigInteger)
    cost_units: Mapped[int | None] = mapped_column(BigInteger)
    rate_version_id: Mapped[int | None] = mapped_column(BigInteger)
    upload_id: Mapped[int | None] = mapped_column(BigInteger)
    duration_seconds: Mapped[int] = mapped_column(Integer)
    direction: Mapped[int] = mapped_column(SmallInteger)
    disposition: Mapped[int] = mapped_column(SmallInteger)
    status: Mapped[int] = mapped_column(SmallInteger)
    unrated_reason: Mapped[int | None] = mapped_column(SmallInteger)
    cost_fraction_e8: Mapped[int | None] = mapped_column(Integer)
    call_id: Mapped[str] = mapped_column(Text)
    caller_number: Mapped[str] = mapped_column(Text)
    destination_number: Mapped[str] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))

    __table_args__ = (
        CheckConstraint("duration_seconds >= 0", name="duration_seconds"),
        CheckConstraint("direction BETWEEN 1 AND 3", name="direction"),
        CheckConstraint("disposition BETWEEN 1 AND 6", name="disposition"),
        CheckConstraint("status BETWEEN 1 AND 3", name="status"),
        CheckConstraint("unrated_reason BETWEEN 1 AND 3", name="unrated_reason"),
        # UNRATED has a reason and no cost; all other statuses have a cost and no reason.
        CheckConstraint(
            "(status = 3) = (unrated_reason IS NOT NULL)"
            " AND (status = 3) = (bill_seconds IS NULL)"
            " AND (status = 3) = (cost_units IS NULL)"
            " AND (status = 3) = (cost_fraction_e8 IS NULL)",
            name="unrated_has_no_cost",
        ),
        CheckConstraint("(status = 1) = (rate_version_id IS NOT NULL)", name="rated_has_a_rate"),
        CheckConstraint(
            "status <> 2 OR (bill_seconds = 0 AND cost_units = 0 AND cost_fraction_e8 = 0)",
            name="not_billable_costs_nothing",
        ),
        CheckConstraint("cost_units >= 0 AND cost_fraction_e8 BETWEEN 0 AND 99999999", name="cost"),
        CheckConstraint("generation >= 0", name="generation"),
        Index("uq_cdrs_call", "tenant_id", "call_id", "generation", unique=True),
        Index("ix_cdrs_tenant_started", "tenant_id", "started_at_ns", "id"),
        Index("ix_cdrs_started", "started_at_ns", "id"),
    )


partial_index(
    "ix_cdrs_extension_started",
    CdrRow.extension_id,
    CdrRow.started_at_ns,
    CdrRow.id,
    where=CdrRow.extension_id.is_not(None),
)
# A literal, because the databases do not use the index for a parameter.
IS_UNRATED = CdrRow.status == literal_column(str(int(RatingStatus.UNRATED)))
partial_index(
    "ix_cdrs_unrated", CdrRow.tenant_id, CdrRow.started_at_ns, CdrRow.id, where=IS_UNRATED
)


class CdrPricingRow(Base):
    """A change of a CDR that was recorded UNRATED, with the values before: it was priced, or got
    another reason (``new_unrated_reason``) at ``new_rate_revision``. The changes of one CDR have
    rising ids, and the price is the last."""

    __tablename__ = "cdr_pricings"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    cdr_id: Mapped[int] = mapped_column(BigInteger)
    unrated_reason: Mapped[int] = mapped_column(SmallInteger)
    rate_revision: Mapped[int] = mapped_column(BigInteger)
    priced_at_ns: Mapped[int] = mapped_column(BigInteger)
    # NULL: the CDR was priced.
    new_unrated_reason: Mapped[int | None] = mapped_column(SmallInteger)
    new_rate_revision: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint("unrated_reason BETWEEN 1 AND 3", name="unrated_reason"),
        CheckConstraint("new_unrated_reason BETWEEN 1 AND 3", name="new_unrated_reason"),
        CheckConstraint(
            "(new_unrated_reason IS NULL) = (new_rate_revision IS NULL)"
            " AND (new_unrated_reason IS NULL OR new_unrated_reason <> unrated_reason)",
            name="correction",
        ),
        Index("ix_cdr_pricings_cdr", "cdr_id", "id"),
    )


partial_index(
    "uq_cdr_pricings_priced",
    CdrPricingRow.cdr_id,
    where=CdrPricingRow.new_unrated_reason.is_(None),
    unique=True,
)


class LedgerEntryRow(Base):
    """The rows that one transaction wrote: ``row_count`` rows of a ``kind`` (EntryKind) with ids
    from ``first_id`` on, and the SHA-256 of their canonical bytes. Rows of some kinds are of a
    ``revision`` of the tenant or upload ``first_id`` instead (service/storage/covered_rows.py).
    ``hash`` covers the entry and the hash of the entry before it in the chain; the digest covers
    the revision."""

    __tablename__ = "ledger_entries"

    chain: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)  # from 1
    kind: Mapped[int] = mapped_column(SmallInteger)
    first_id: Mapped[int] = mapped_column(BigInteger)
    row_count: Mapped[int] = mapped_column(Integer)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    # The version of the digest and of the hash: tollwire.service.storage.ledger.
    format: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    # Ed25519, by the operator's key; NULL without a key.
    signature: Mapped[bytes | None] = mapped_column(LargeBinary)

    __table_args__ = (
        CheckConstraint("format > 0", name="format"),
        CheckConstraint("kind BETWEEN 1 AND 8", name="kind"),
        CheckConstraint("row_count > 0", name="row_count"),
        CheckConstraint("length(digest) = 32 AND length(hash) = 32", name="sizes"),
        CheckConstraint("length(signature) = 64", name="signature"),
        Index("uq_ledger_entries_rows", "kind", "first_id", "revision", unique=True),
    )


class LedgerHeadRow(Base):
    """The end of a chain of the ledger. A transaction locks this row to add the next entry."""

    __tablename__ = "ledger_heads"

    chain: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    length: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes] = mapped_column(LargeBinary)  # of the last entry; zeros before the first


class CdrReversalRow(Base):
    """The reversal of a CDR, which stays unchanged. Both parts of the cost are those of the CDR
    with the sign changed; NULL if it is UNRATED.

    The tenant, the start and the upload are copies from the CDR, so that sums and lists of
    reversals do not read it. Written once.
    """

    __tablename__ = "cdr_reversals"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    cdr_id: Mapped[int] = mapped_column(BigInteger, unique=True)
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    started_at_ns: Mapped[int] = mapped_column(BigInteger)
    cost_units: Mapped[int | None] = mapped_column(BigInteger)
    cost_fraction_e8: Mapped[int | None] = mapped_column(Integer)
    upload_id: Mapped[int | None] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text)
    requested_by: Mapped[str] = mapped_column(Text)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint(
            "cost_units <= 0 AND cost_fraction_e8 BETWEEN -99999999 AND 0", name="cost"
        ),
        CheckConstraint("(cost_units IS NULL) = (cost_fraction_e8 IS NULL)", name="cost_is_whole"),
        CheckConstraint("length(reason) BETWEEN 1 AND 1000", name="reason"),
        CheckConstraint("length(requested_by) BETWEEN 1 AND 200", name="requested_by"),
        Index("ix_cdr_reversals_tenant_started", "tenant_id", "started_at_ns"),
        Index("ix_cdr_reversals_created", "created_at_ns", "id"),
        Index("ix_cdr_reversals_tenant_created", "tenant_id", "created_at_ns", "id"),
    )


partial_index(
    "ix_cdr_reversals_upload_created",
    CdrReversalRow.upload_id,
    CdrReversalRow.created_at_ns,
    CdrReversalRow.id,
    where=CdrReversalRow.upload_id.is_not(None),
)
