"""The ledger covers tenants, rates, uploads and the audit log; its entries may be signed.

Rows that exist already get their entries now. These show every change from this migration on, and
nothing about the time before it.
"""

from __future__ import annotations

import logging
import time

import sqlalchemy as sa
from alembic import op

from tollwire.service.storage import covered_rows

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LOG = logging.getLogger("tollwire.database")
_COLUMNS = "chain, seq, kind, first_id, row_count, digest, hash, created_at_ns, format"
_CHECKS = {
    "ck_ledger_entries_format": "format > 0",
    "ck_ledger_entries_kind": "kind BETWEEN 1 AND 8",
    "ck_ledger_entries_row_count": "row_count > 0",
    "ck_ledger_entries_sizes": "length(digest) = 32 AND length(hash) = 32",
    "ck_ledger_entries_signature": "length(signature) = 64",
}


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.add_column(
        "uploads",
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("uploads", sa.Column("chunks_hash", sa.LargeBinary(), nullable=True))
    op.drop_index("uq_ledger_entries_rows", "ledger_entries")
    if is_sqlite:
        # SQLite cannot change a constraint.
        op.rename_table("ledger_entries", "ledger_entries_before")
        _create()
        op.execute(
            f"INSERT INTO ledger_entries ({_COLUMNS}) SELECT {_COLUMNS} FROM ledger_entries_before"
            " ORDER BY chain, seq"
        )
        op.drop_table("ledger_entries_before")
    else:
        op.drop_constraint("ck_ledger_entries_kind", "ledger_entries")
        op.add_column(
            "ledger_entries",
            sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        )
        op.add_column("ledger_entries", sa.Column("signature", sa.LargeBinary(), nullable=True))
        for name in ("ck_ledger_entries_kind", "ck_ledger_entries_signature"):
            op.create_check_constraint(name, "ledger_entries", _CHECKS[name])
    op.create_index(
        "uq_ledger_entries_rows", "ledger_entries", ["kind", "first_id", "revision"], unique=True
    )
    chains = [1] if is_sqlite else range(16, 32)
    heads = sa.table(
        "ledger_heads", sa.column("chain"), sa.column("length"), sa.column("hash", sa.LargeBinary)
    )
    op.bulk_insert(heads, [{"chain": chain, "length": 0, "hash": bytes(32)} for chain in chains])
    # The columns and the digests of this step are of the format 2, which never changes.
    entered = covered_rows.enter_all(op.get_bind(), time.time_ns())
    if entered:
        _LOG.warning(
            "the ledger covers tenants, rates, uploads and the audit log from now on: %d entries"
            " for what the database had; they show no change that was made before",
            entered,
        )


def _create() -> None:
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
        sa.Column("format", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        *(sa.CheckConstraint(condition, name=name) for name, condition in _CHECKS.items()),
        sa.PrimaryKeyConstraint("chain", "seq", name="pk_ledger_entries"),
    )
