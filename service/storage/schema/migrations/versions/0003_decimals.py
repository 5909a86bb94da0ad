"""Prices with 8 decimals, costs with 4 to 8, generations of calls, formats of ledger entries.

Prices and the rest of a cost behind its whole units are scaled by 10^8 from here on, so each is
multiplied by 10^4: no price and no cost changes. What the ledger has is of format 1, whose digests
are computed from the same values divided by 10^4.

PostgreSQL changes the tables in place; SQLite cannot, so there each is written anew, once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# SQLite gives ids by itself only to a column of the exact type INTEGER.
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OLD = "_of_0002"
_PART_ROWS = 1_000


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_all()
    else:
        _alter_all()
    _scale_intervals()


def _scale_intervals() -> None:
    """Intervals are JSON: [[start_seconds, cost_per_minute, billing_increment], ...]. Anything else
    stays as it is: verification reports it, as before."""
    connection = op.get_bind()
    query = sa.text(
        "SELECT version_id, intervals FROM rate_versions"
        " WHERE intervals IS NOT NULL AND version_id > :after ORDER BY version_id LIMIT :limit"
    )
    change = sa.text("UPDATE rate_versions SET intervals = :scaled WHERE version_id = :version_id")
    after = -1
    while rows := connection.execute(query, {"after": after, "limit": _PART_ROWS}).all():
        scaled = [{"version_id": row.version_id, "scaled": _scaled(row.intervals)} for row in rows]
        connection.execute(change, scaled)
        after = rows[-1].version_id


def _scaled(intervals: Any) -> Any:
    try:
        parts = [[start, int(price) * 10_000, step] for start, price, step in json.loads(intervals)]
    except (TypeError, ValueError):
        return intervals
    return json.dumps(parts, separators=(",", ":"))


# --- PostgreSQL -----------------------------------------------------------------------------------


def _alter_all() -> None:
    for table in ("tenants", "tenant_versions"):
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN cost_decimals SMALLINT DEFAULT 4 NOT NULL,"
            f" ADD CONSTRAINT ck_{table}_cost_decimals CHECK (cost_decimals BETWEEN 4 AND 8)"
        )
    op.execute(
        "ALTER TABLE rate_versions"
        " DROP CONSTRAINT ck_rate_versions_cost_per_minute,"
        " DROP CONSTRAINT ck_rate_versions_connect_fee,"
        " ALTER COLUMN cost_per_minute_e4 TYPE BIGINT USING cost_per_minute_e4 * 10000,"
        " ALTER COLUMN connect_fee_e4 TYPE BIGINT USING connect_fee_e4 * 10000"
    )
    for column in ("cost_per_minute", "connect_fee"):
        op.execute(f"ALTER TABLE rate_versions RENAME COLUMN {column}_e4 TO {column}_e8")
        op.execute(
            f"ALTER TABLE rate_versions ADD CONSTRAINT ck_rate_versions_{column}"
            f" CHECK ({column}_e8 BETWEEN 0 AND 9999999999999999)"
        )
    _rename_not_null_constraints()
    op.drop_index("uq_cdrs_call", "cdrs")
    op.execute(
        "ALTER TABLE cdrs"
        " DROP CONSTRAINT ck_cdrs_unrated_has_no_cost,"
        " DROP CONSTRAINT ck_cdrs_not_billable_costs_nothing,"
        " DROP CONSTRAINT ck_cdrs_cost,"
        " ALTER COLUMN cost_fraction_e4 TYPE INTEGER USING cost_fraction_e4 * 10000,"
        " ADD COLUMN generation SMALLINT DEFAULT 0 NOT NULL"
    )
    op.execute("ALTER TABLE cdrs RENAME COLUMN cost_fraction_e4 TO cost_fraction_e8")
    op.execute(
        "ALTER TABLE cdrs"
        " ADD CONSTRAINT ck_cdrs_unrated_has_no_cost CHECK ("
        " (status = 3) = (unrated_reason IS NOT NULL)"
        " AND (status = 3) = (bill_seconds IS NULL)"
        " AND (status = 3) = (cost_units IS NULL)"
        " AND (status = 3) = (cost_fraction_e8 IS NULL)),"
        " ADD CONSTRAINT ck_cdrs_not_billable_costs_nothing CHECK ("
        " status <> 2 OR (bill_seconds = 0 AND cost_units = 0 AND cost_fraction_e8 = 0)),"
        " ADD CONSTRAINT ck_cdrs_cost CHECK ("
        " cost_units >= 0 AND cost_fraction_e8 BETWEEN 0 AND 99999999),"
        " ADD CONSTRAINT ck_cdrs_generation CHECK (generation >= 0)"
    )
    op.create_index("uq_cdrs_call", "cdrs", ["tenant_id", "call_id", "generation"], unique=True)
    op.execute(
        "ALTER TABLE cdr_reversals"
        " DROP CONSTRAINT ck_cdr_reversals_cost_is_whole,"
        " DROP CONSTRAINT ck_cdr_reversals_cost,"
        " ALTER COLUMN cost_fraction_e4 TYPE INTEGER USING cost_fraction_e4 * 10000"
    )
    op.execute("ALTER TABLE cdr_reversals RENAME COLUMN cost_fraction_e4 TO cost_fraction_e8")
    op.execute(
        "ALTER TABLE cdr_reversals"
        " ADD CONSTRAINT ck_cdr_reversals_cost_is_whole CHECK ("
        " (cost_units IS NULL) = (cost_fraction_e8 IS NULL)),"
        " ADD CONSTRAINT ck_cdr_reversals_cost CHECK ("
        " cost_units <= 0 AND cost_fraction_e8 BETWEEN -99999999 AND 0)"
    )
    op.execute(
        "ALTER TABLE ledger_entries ADD COLUMN format SMALLINT DEFAULT 1 NOT NULL,"
        " ADD CONSTRAINT ck_ledger_entries_format CHECK (format > 0)"
    )


def _rename_not_null_constraints() -> None:
    """Since version 18 PostgreSQL names them after their columns."""
    query = sa.text(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'rate_versions'::regclass"
        " AND conname LIKE '%\\_e4\\_not\\_null'"
    )
    for (name,) in op.get_bind().execute(query).all():
        renamed = name.replace("_e4_", "_e8_")
        op.execute(f"ALTER TABLE rate_versions RENAME CONSTRAINT {name} TO {renamed}")


# --- SQLite ---------------------------------------------------------------------------------------


def _rebuild_all() -> None:
    # Those that refer to others come later and go first.
    for table in ("tenants", "extensions"):
        _set_aside(table)
    _take_over("tenants", _create_tenants)
    _take_over("extensions", _create_extensions)
    for table in ("extensions", "tenants"):
        op.drop_table(f"{table}{_OLD}")
    prices = {
        "cost_per_minute_e8": "cost_per_minute_e4 * 10000",
        "connect_fee_e8": "connect_fee_e4 * 10000",
    }
    cost = {"cost_fraction_e8": "cost_fraction_e4 * 10000"}
    for table, create, changed in (
        ("tenant_versions", _create_tenant_versions, {}),
        ("rate_versions", _create_rate_versions, prices),
        ("cdrs", _create_cdrs, cost),
        ("cdr_reversals", _create_reversals, cost),
        ("ledger_entries", _create_ledger_entries, {}),
    ):
        _set_aside(table)
        _take_over(table, create, changed)
        op.drop_table(f"{table}{_OLD}")


def _set_aside(table: str) -> None:
    """Its indexes go at once: their names are those of the new table's."""
    op.rename_table(table, f"{table}{_OLD}")
    query = sa.text(
        "SELECT name FROM sqlite_master"
        " WHERE type = 'index' AND tbl_name = :table AND sql IS NOT NULL"
    )
    for (name,) in op.get_bind().execute(query, {"table": f"{table}{_OLD}"}).all():
        op.execute(f"DROP INDEX {name}")


def _take_over(
    table: str, create: Callable[[], Iterator[None]], changed: Mapping[str, str] | None = None
) -> None:
    """Create the table, fill it from the one set aside, then create its indexes."""
    steps = create()
    next(steps)
    inspector = sa.inspect(op.get_bind())
    kept = {column["name"] for column in inspector.get_columns(f"{table}{_OLD}")}
    values = {
        column["name"]: (changed or {}).get(column["name"], column["name"])
        for column in inspector.get_columns(table)
        if column["name"] in kept or column["name"] in (changed or {})
    }
    op.execute(
        f"INSERT INTO {table} ({', '.join(values)})"
        f" SELECT {', '.join(values.values())} FROM {table}{_OLD}"
    )
    for _ in steps:
        pass


def _where(condition: str) -> dict[str, Any]:
    """The condition of a partial index."""
    return {"sqlite_where": sa.text(condition)}


def _create_tenants() -> Iterator[None]:
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
        sa.Column("cost_decimals", sa.SmallInteger(), server_default=sa.text("4"), nullable=False),
        sa.CheckConstraint("cost_decimals BETWEEN 4 AND 8", name="ck_tenants_cost_decimals"),
        sa.CheckConstraint("id > 0", name="ck_tenants_id"),
        sa.CheckConstraint("length(currency) = 3", name="ck_tenants_currency"),
        sa.CheckConstraint("rounding BETWEEN 1 AND 4", name="ck_tenants_rounding"),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    yield


def _create_tenant_versions() -> Iterator[None]:
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
        sa.Column("cost_decimals", sa.SmallInteger(), server_default=sa.text("4"), nullable=False),
        sa.CheckConstraint(
            "cost_decimals BETWEEN 4 AND 8", name="ck_tenant_versions_cost_decimals"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "revision", name="pk_tenant_versions"),
    )
    yield


def _create_extensions() -> Iterator[None]:
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
    yield
    op.create_index("ix_extensions_tenant_id", "extensions", ["tenant_id"])


def _create_rate_versions() -> Iterator[None]:
    op.create_table(
        "rate_versions",
        sa.Column("version_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("rate_id", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("created_revision", sa.BigInteger(), nullable=False),
        sa.Column("retired_revision", sa.BigInteger(), nullable=True),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("cost_per_minute_e8", sa.BigInteger(), nullable=False),
        sa.Column("billing_increment", sa.Integer(), nullable=False),
        sa.Column("connect_fee_e8", sa.BigInteger(), nullable=False),
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
            "connect_fee_e8 BETWEEN 0 AND 9999999999999999", name="ck_rate_versions_connect_fee"
        ),
        sa.CheckConstraint(
            "cost_per_minute_e8 BETWEEN 0 AND 9999999999999999",
            name="ck_rate_versions_cost_per_minute",
        ),
        sa.CheckConstraint("length(prefix) <= 32", name="ck_rate_versions_prefix"),
        sa.CheckConstraint("minimum_seconds >= 0", name="ck_rate_versions_minimum_seconds"),
        sa.PrimaryKeyConstraint("version_id", name="pk_rate_versions"),
    )
    yield
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


def _create_cdrs() -> Iterator[None]:
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
        sa.Column("cost_fraction_e8", sa.Integer(), nullable=True),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("caller_number", sa.Text(), nullable=False),
        sa.Column("destination_number", sa.Text(), nullable=False),
        sa.Column("generation", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("generation >= 0", name="ck_cdrs_generation"),
        sa.CheckConstraint(
            "(status = 1) = (rate_version_id IS NOT NULL)", name="ck_cdrs_rated_has_a_rate"
        ),
        sa.CheckConstraint(
            "(status = 3) = (unrated_reason IS NOT NULL)"
            " AND (status = 3) = (bill_seconds IS NULL)"
            " AND (status = 3) = (cost_units IS NULL)"
            " AND (status = 3) = (cost_fraction_e8 IS NULL)",
            name="ck_cdrs_unrated_has_no_cost",
        ),
        sa.CheckConstraint(
            "cost_units >= 0 AND cost_fraction_e8 BETWEEN 0 AND 99999999", name="ck_cdrs_cost"
        ),
        sa.CheckConstraint("direction BETWEEN 1 AND 3", name="ck_cdrs_direction"),
        sa.CheckConstraint("disposition BETWEEN 1 AND 6", name="ck_cdrs_disposition"),
        sa.CheckConstraint("duration_seconds >= 0", name="ck_cdrs_duration_seconds"),
        sa.CheckConstraint(
            "status <> 2 OR (bill_seconds = 0 AND cost_units = 0 AND cost_fraction_e8 = 0)",
            name="ck_cdrs_not_billable_costs_nothing",
        ),
        sa.CheckConstraint("status BETWEEN 1 AND 3", name="ck_cdrs_status"),
        sa.CheckConstraint("unrated_reason BETWEEN 1 AND 3", name="ck_cdrs_unrated_reason"),
        sa.PrimaryKeyConstraint("id", name="pk_cdrs"),
    )
    yield
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
    op.create_index("uq_cdrs_call", "cdrs", ["tenant_id", "call_id", "generation"], unique=True)


def _create_reversals() -> Iterator[None]:
    op.create_table(
        "cdr_reversals",
        sa.Column("id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("cdr_id", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("started_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("cost_units", sa.BigInteger(), nullable=True),
        sa.Column("cost_fraction_e8", sa.Integer(), nullable=True),
        sa.Column("upload_id", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(cost_units IS NULL) = (cost_fraction_e8 IS NULL)",
            name="ck_cdr_reversals_cost_is_whole",
        ),
        sa.CheckConstraint(
            "cost_units <= 0 AND cost_fraction_e8 BETWEEN -99999999 AND 0",
            name="ck_cdr_reversals_cost",
        ),
        sa.CheckConstraint("length(reason) BETWEEN 1 AND 1000", name="ck_cdr_reversals_reason"),
        sa.CheckConstraint(
            "length(requested_by) BETWEEN 1 AND 200", name="ck_cdr_reversals_requested_by"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_cdr_reversals"),
        sa.UniqueConstraint("cdr_id", name="uq_cdr_reversals_cdr_id"),
    )
    yield
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


def _create_ledger_entries() -> Iterator[None]:
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
        sa.CheckConstraint("format > 0", name="ck_ledger_entries_format"),
        sa.CheckConstraint("kind BETWEEN 1 AND 3", name="ck_ledger_entries_kind"),
        sa.CheckConstraint(
            "length(digest) = 32 AND length(hash) = 32", name="ck_ledger_entries_sizes"
        ),
        sa.CheckConstraint("row_count > 0", name="ck_ledger_entries_row_count"),
        sa.PrimaryKeyConstraint("chain", "seq", name="pk_ledger_entries"),
    )
    yield
    op.create_index("uq_ledger_entries_rows", "ledger_entries", ["kind", "first_id"], unique=True)
