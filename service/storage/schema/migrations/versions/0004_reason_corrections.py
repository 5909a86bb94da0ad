"""A CDR that stays UNRATED may get another reason: several rows of cdr_pricings for one CDR.

A row with ``new_unrated_reason`` corrects the reason; one without it gives the CDR its price, and a
CDR has at most one of these, as before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_COLUMNS = "id, cdr_id, unrated_reason, rate_revision, priced_at_ns"
_CHECKS = {
    "ck_cdr_pricings_new_unrated_reason": "new_unrated_reason BETWEEN 1 AND 3",
    "ck_cdr_pricings_correction": (
        "(new_unrated_reason IS NULL) = (new_rate_revision IS NULL)"
        " AND (new_unrated_reason IS NULL OR new_unrated_reason <> unrated_reason)"
    ),
}


def upgrade() -> None:
    op.drop_index("uq_cdr_pricings_cdr", "cdr_pricings")
    if op.get_bind().dialect.name == "sqlite":
        # SQLite cannot add a constraint to a table.
        op.rename_table("cdr_pricings", "cdr_pricings_before")
        _create()
        op.execute(
            f"INSERT INTO cdr_pricings ({_COLUMNS}) SELECT {_COLUMNS} FROM cdr_pricings_before"
        )
        op.drop_table("cdr_pricings_before")
    else:
        op.add_column("cdr_pricings", sa.Column("new_unrated_reason", sa.SmallInteger()))
        op.add_column("cdr_pricings", sa.Column("new_rate_revision", sa.BigInteger()))
        for name, condition in _CHECKS.items():
            op.create_check_constraint(name, "cdr_pricings", condition)
    op.create_index("ix_cdr_pricings_cdr", "cdr_pricings", ["cdr_id", "id"])
    op.create_index(
        "uq_cdr_pricings_priced",
        "cdr_pricings",
        ["cdr_id"],
        unique=True,
        sqlite_where=sa.text("new_unrated_reason IS NULL"),
        postgresql_where=sa.text("new_unrated_reason IS NULL"),
    )


def _create() -> None:
    op.create_table(
        "cdr_pricings",
        sa.Column("id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("cdr_id", sa.BigInteger(), nullable=False),
        sa.Column("unrated_reason", sa.SmallInteger(), nullable=False),
        sa.Column("rate_revision", sa.BigInteger(), nullable=False),
        sa.Column("priced_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("new_unrated_reason", sa.SmallInteger(), nullable=True),
        sa.Column("new_rate_revision", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("unrated_reason BETWEEN 1 AND 3", name="ck_cdr_pricings_unrated_reason"),
        *(sa.CheckConstraint(condition, name=name) for name, condition in _CHECKS.items()),
        sa.PrimaryKeyConstraint("id", name="pk_cdr_pricings"),
    )
