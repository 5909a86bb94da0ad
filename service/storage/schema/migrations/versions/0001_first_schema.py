"""The first schema: tenants, extensions, rates with their history, uploads, CDRs.

Triggers are not in here: see tollwire.service.storage.schema.triggers.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite gives ids by itself only to a column of the exact type INTEGER.
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# On PostgreSQL a value of these is the first of a block of ids, of this many.
_ID_BLOCK_SIZE = 1_000_000
_ID_BLOCKS = ("cdrs", "cdr_pricings", "cdr_reversals")

# SQLite has one writer, whose commits wait for each other anyway.
_LEDGER_CHAINS = {"sqlite": 1, "postgresql": 16}

_COUNTERS = ("tenants", "extensions", "rate_versions", "uploads", "tokens")


def upgrade() -> None:
    _create_tenants()
    _create_rates()
    _create_rate_changes()
    _create_uploads()
    _create_upload_failures()
    _create_cdrs()
    _create_reversals()
    _create_cdr_pricings()
    _create_ledger()
    _create_tokens()
    _create_audit_entries()
    if op.get_bind().dialect.supports_sequences:
        for table in _ID_BLOCKS:
            blocks = sa.Sequence(f"{table}_id_blocks", start=1, increment=_ID_BLOCK_SIZE)
            op.execute(sa.schema.CreateSequence(blocks))
    counters = op.create_table(
        "id_counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_id_counters"),
    )
    op.bulk_insert(counters, [{"name": name, "next_id": 1} for name in _COUNTERS])


def _where(condition: str) -> dict[str, Any]:
    """The condition of a partial index, for both databases."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def _create_tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("rounding", sa.SmallInteger(), nullable=False),
        sa.Column("country_code", sa.Text(), nullable=False),
        sa.Column("national_prefix", sa.Text(), nullable=False),
        sa.Column("international_prefix", sa.Text(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id > 0", name="ck_tenants_id"),
        sa.CheckConstraint("length(currency) = 3", name="ck_tenants_currency"),
        sa.CheckConstraint("rounding BETWEEN 1 AND 4", name="ck_tenants_rounding"),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    op.create_table(
        "tenant_versions",
        sa.Column("tenant_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("rounding", sa.SmallInteger(), nullable=False),
        sa.Column("country_code", sa.Text(), nullable=False),
        sa.Column("national_prefix", sa.Text(), nullable=False),
        sa.Column("international_prefix", sa.Text(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "revision", name="pk_tenant_versions"),
    )
    op.create_table(
        "extensions",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.CheckConstraint("id > 0", name="ck_extensions_id"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_extensions_tenant_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_extensions"),
    )
    op.create_index("ix_extensions_tenant_id", "extensions", ["tenant_id"])


def _create_rates() -> None:
    op.create_table(
        "decks",
        sa.Column("tenant_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_decks"),
    )
    op.create_index("ix_decks_change_seq", "decks", ["change_seq"])
    clock = op.create_table(
        "deck_clock",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_deck_clock_one_row"),
        sa.PrimaryKeyConstraint("id", name="pk_deck_clock"),
    )
    op.bulk_insert(clock, [{"id": 1, "change_seq": 0}])
    op.create_table(
        "rate_versions",
        sa.Column("version_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("rate_id", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("created_revision", sa.BigInteger(), nullable=False),
        sa.Column("retired_revision", sa.BigInteger(), nullable=True),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("cost_per_minute_e4", sa.BigInteger(), nullable=False),
        sa.Column("billing_increment", sa.Integer(), nullable=False),
        sa.Column("connect_fee_e4", sa.BigInteger(), nullable=False),
        sa.Column("minimum_seconds", sa.Integer(), nullable=False),
        sa.Column("intervals", sa.Text(), nullable=True),
        sa.Column("effective_from_s", sa.BigInteger(), nullable=False),
        sa.Column("effective_from_nanos", sa.Integer(), nullable=False),
        sa.Column("effective_to_s", sa.BigInteger(), nullable=False),
        sa.Column("effective_to_nanos", sa.Integer(), nullable=False),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ns", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "billing_increment BETWEEN 1 AND 86400", name="ck_rate_versions_billing_increment"
        ),
        sa.CheckConstraint(
            "connect_fee_e4 BETWEEN 0 AND 999999999999", name="ck_rate_versions_connect_fee"
        ),
        sa.CheckConstraint(
            "cost_per_minute_e4 BETWEEN 0 AND 999999999999", name="ck_rate_versions_cost_per_minute"
        ),
        sa.CheckConstraint("length(prefix) <= 32", name="ck_rate_versions_prefix"),
        sa.CheckConstraint("minimum_seconds >= 0", name="ck_rate_versions_minimum_seconds"),
        sa.PrimaryKeyConstraint("version_id", name="pk_rate_versions"),
    )
    op.create_index(
        "ix_rate_versions_retired",
        "rate_versions",
        ["tenant_id", "retired_revision"],
        **_where("retired_revision IS NOT NULL"),
    )
    op.create_index(
        "uq_rate_versions_present",
        "rate_versions",
        ["tenant_id", "prefix", "effective_from_s", "effective_from_nanos"],
        unique=True,
        **_where("retired_revision IS NULL"),
    )
    op.create_index(
        "uq_rate_versions_rate",
        "rate_versions",
        ["rate_id"],
        unique=True,
        **_where("retired_revision IS NULL AND rate_id <> version_id"),
    )


def _create_rate_changes() -> None:
    op.create_table(
        "rate_changes",
        sa.Column("tenant_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_version_id", sa.BigInteger(), nullable=False),
        sa.Column("last_version_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "revision", name="pk_rate_changes"),
    )


def _create_uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("committed_offset", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), nullable=False),
        sa.Column("conflicts", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("unrated", sa.BigInteger(), nullable=False),
        sa.Column("duration_seconds", sa.BigInteger(), nullable=False),
        sa.Column("stated_calls", sa.BigInteger(), nullable=True),
        sa.Column("stated_duration_seconds", sa.BigInteger(), nullable=True),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("reversed_at_ns", sa.BigInteger(), nullable=True),
        sa.Column("scope_tenant_ids", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
    )
    op.create_index(
        "ix_uploads_scope",
        "uploads",
        ["scope_tenant_ids", "id"],
        sqlite_where=sa.text("length(scope_tenant_ids) <= 100"),
        postgresql_where=sa.text("length(scope_tenant_ids) <= 100"),
    )
    op.create_table(
        "upload_chunks",
        sa.Column("upload_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("conflicts", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("unrated", sa.Integer(), nullable=False),
        sa.Column("first_cdr_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name="fk_upload_chunks_upload_id"),
        sa.PrimaryKeyConstraint("upload_id", "first_index", name="pk_upload_chunks"),
    )


def _create_upload_failures() -> None:
    op.create_table(
        "upload_failures",
        sa.Column("upload_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("record_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name="fk_upload_failures_upload_id"),
        sa.PrimaryKeyConstraint("upload_id", "record_index", name="pk_upload_failures"),
    )
    op.create_index("ix_upload_failures_created_at_ns", "upload_failures", ["created_at_ns"])


def _create_cdrs() -> None:
    op.create_table(
        "cdrs",
        sa.Column("id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("started_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("rate_revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("extension_id", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_ns", sa.BigInteger(), nullable=True),
        sa.Column("bill_seconds", sa.BigInteger(), nullable=True),
        sa.Column("cost_units", sa.BigInteger(), nullable=True),
        sa.Column("rate_version_id", sa.BigInteger(), nullable=True),
        sa.Column("upload_id", sa.BigInteger(), nullable=True),
        sa.Column("duration_seconds", sa.Integer(), nullable=False),
        sa.Column("direction", sa.SmallInteger(), nullable=False),
        sa.Column("disposition", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("unrated_reason", sa.SmallInteger(), nullable=True),
        sa.Column("cost_fraction_e4", sa.SmallInteger(), nullable=True),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("caller_number", sa.Text(), nullable=False),
        sa.Column("destination_number", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(status = 1) = (rate_version_id IS NOT NULL)", name="ck_cdrs_rated_has_a_rate"
        ),
        sa.CheckConstraint(
            "(status = 3) = (unrated_reason IS NOT NULL)"
            " AND (status = 3) = (bill_seconds IS NULL)"
            " AND (status = 3) = (cost_units IS NULL)"
            " AND (status = 3) = (cost_fraction_e4 IS NULL)",
            name="ck_cdrs_unrated_has_no_cost",
        ),
        sa.CheckConstraint(
            "cost_units >= 0 AND cost_fraction_e4 BETWEEN 0 AND 9999", name="ck_cdrs_cost"
        ),
        sa.CheckConstraint("direction BETWEEN 1 AND 3", name="ck_cdrs_direction"),
        sa.CheckConstraint("disposition BETWEEN 1 AND 6", name="ck_cdrs_disposition"),
        sa.CheckConstraint("duration_seconds >= 0", name="ck_cdrs_duration_seconds"),
        sa.CheckConstraint(
            "status <> 2 OR (bill_seconds = 0 AND cost_units = 0 AND cost_fraction_e4 = 0)",
            name="ck_cdrs_not_billable_costs_nothing",
        ),
        sa.CheckConstraint("status BETWEEN 1 AND 3", name="ck_cdrs_status"),
        sa.CheckConstraint("unrated_reason BETWEEN 1 AND 3", name="ck_cdrs_unrated_reason"),
        sa.PrimaryKeyConstraint("id", name="pk_cdrs"),
    )
    op.create_index(
        "ix_cdrs_extension_started",
        "cdrs",
        ["extension_id", "started_at_ns", "id"],
        **_where("extension_id IS NOT NULL"),
    )
    op.create_index("ix_cdrs_started", "cdrs", ["started_at_ns", "id"])
    op.create_index("ix_cdrs_tenant_started", "cdrs", ["tenant_id", "started_at_ns", "id"])
    op.create_index(
        "ix_cdrs_unrated", "cdrs", ["tenant_id", "started_at_ns", "id"], **_where("status = 3")
    )
    op.create_index("uq_cdrs_call", "cdrs", ["tenant_id", "call_id"], unique=True)


def _create_cdr_pricings() -> None:
    op.create_table(
        "cdr_pricings",
        sa.Column("id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("cdr_id", sa.BigInteger(), nullable=False),
        sa.Column("unrated_reason", sa.SmallInteger(), nullable=False),
        sa.Column("rate_revision", sa.BigInteger(), nullable=False),
        sa.Column("priced_at_ns", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("unrated_reason BETWEEN 1 AND 3", name="ck_cdr_pricings_unrated_reason"),
        sa.PrimaryKeyConstraint("id", name="pk_cdr_pricings"),
    )
    op.create_index("uq_cdr_pricings_cdr", "cdr_pricings", ["cdr_id"], unique=True)


def _create_ledger() -> None:
    op.create_table(
        "ledger_entries",
        sa.Column("chain", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("first_id", sa.BigInteger(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind BETWEEN 1 AND 3", name="ck_ledger_entries_kind"),
        sa.CheckConstraint(
            "length(digest) = 32 AND length(hash) = 32", name="ck_ledger_entries_sizes"
        ),
        sa.CheckConstraint("row_count > 0", name="ck_ledger_entries_row_count"),
        sa.PrimaryKeyConstraint("chain", "seq", name="pk_ledger_entries"),
    )
    op.create_index("uq_ledger_entries_rows", "ledger_entries", ["kind", "first_id"], unique=True)
    heads = op.create_table(
        "ledger_heads",
        sa.Column("chain", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", name="pk_ledger_heads"),
    )
    chains = range(_LEDGER_CHAINS[op.get_bind().dialect.name])
    op.bulk_insert(heads, [{"chain": chain, "length": 0, "hash": bytes(32)} for chain in chains])


def _create_reversals() -> None:
    op.create_table(
        "cdr_reversals",
        sa.Column("id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("cdr_id", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("started_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("cost_units", sa.BigInteger(), nullable=True),
        sa.Column("cost_fraction_e4", sa.SmallInteger(), nullable=True),
        sa.Column("upload_id", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(cost_units IS NULL) = (cost_fraction_e4 IS NULL)",
            name="ck_cdr_reversals_cost_is_whole",
        ),
        sa.CheckConstraint(
            "cost_units <= 0 AND cost_fraction_e4 BETWEEN -9999 AND 0",
            name="ck_cdr_reversals_cost",
        ),
        sa.CheckConstraint("length(reason) BETWEEN 1 AND 1000", name="ck_cdr_reversals_reason"),
        sa.CheckConstraint(
            "length(requested_by) BETWEEN 1 AND 200", name="ck_cdr_reversals_requested_by"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_cdr_reversals"),
        sa.UniqueConstraint("cdr_id", name="uq_cdr_reversals_cdr_id"),
    )
    op.create_index("ix_cdr_reversals_created", "cdr_reversals", ["created_at_ns", "id"])
    op.create_index(
        "ix_cdr_reversals_tenant_created", "cdr_reversals", ["tenant_id", "created_at_ns", "id"]
    )
    op.create_index(
        "ix_cdr_reversals_tenant_started", "cdr_reversals", ["tenant_id", "started_at_ns"]
    )
    op.create_index(
        "ix_cdr_reversals_upload_created",
        "cdr_reversals",
        ["upload_id", "created_at_ns", "id"],
        **_where("upload_id IS NOT NULL"),
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("tenant_ids", sa.Text(), nullable=True),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("certificate_identity", sa.Text(), nullable=True),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at_ns", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_ns", sa.BigInteger(), nullable=True),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id > 0", name="ck_tokens_id"),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 200", name="ck_tokens_name"),
        sa.CheckConstraint("length(secret_sha256) = 32", name="ck_tokens_secret_sha256"),
        sa.CheckConstraint(
            "role IN ('rater', 'ingest', 'reader', 'operator', 'admin')", name="ck_tokens_role"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
    )
    op.create_index("ix_tokens_change_seq", "tokens", ["change_seq"])
    op.create_index(
        "uq_tokens_certificate_identity",
        "tokens",
        ["certificate_identity"],
        unique=True,
        **_where("revoked_at_ns IS NULL"),
    )
    clock = op.create_table(
        "token_clock",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_token_clock_one_row"),
        sa.PrimaryKeyConstraint("id", name="pk_token_clock"),
    )
    op.bulk_insert(clock, [{"id": 1, "change_seq": 0}])


def _create_audit_entries() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("token_id", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
    )
    op.create_index("ix_audit_entries_tenant_id_id", "audit_entries", ["tenant_id", "id"])
