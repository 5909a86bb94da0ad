"""The tables of tenants, their rates and decks, and the conventions of all tables. (CDRs:
``record_tables``. Tokens: ``access_tables``. All tables: ``all_tables``.)

Conventions: times are BIGINT nanoseconds since the Unix epoch (both databases store them exactly;
PostgreSQL's timestamp type drops the last three digits); money is integers scaled by 10**8; enums
are the numbers of the wire. NOT NULL unless NULL has a meaning.

Rules that only triggers can enforce (a priced CDR never changes, history is never deleted) are in
``triggers``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite assigns ids only to a column of the exact type INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")

# Stand for a missing effective_from or effective_to: one second outside the range of
# google.protobuf.Timestamp. Unlike NULLs they need no special case in unique keys and orders.
OPEN_FROM_S = -62_135_596_801
OPEN_TO_S = 253_402_300_800


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def partial_index(
    name: str, *columns: Any, where: ColumnElement[bool], unique: bool = False
) -> None:
    """Declare an index of the rows with ``where``. The databases use it only for queries with the
    same condition: a query takes it from here."""
    Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


class IdCounter(Base):
    """The next id of a kind of resource. Ids are never used twice, not even after a deletion."""

    __tablename__ = "id_counters"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    next_id: Mapped[int] = mapped_column(BigInteger)


class TenantRow(Base):
    """A tenant as it is now."""

    __tablename__ = "tenants"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)
    currency: Mapped[str] = mapped_column(Text)
    rounding: Mapped[int] = mapped_column(SmallInteger)
    country_code: Mapped[str] = mapped_column(Text)
    national_prefix: Mapped[str] = mapped_column(Text)
    international_prefix: Mapped[str] = mapped_column(Text)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    cost_decimals: Mapped[int] = mapped_column(SmallInteger, server_default=text("4"))

    __table_args__ = (
        CheckConstraint("id > 0", name="id"),
        CheckConstraint("rounding BETWEEN 1 AND 4", name="rounding"),
        CheckConstraint("cost_decimals BETWEEN 4 AND 8", name="cost_decimals"),
        CheckConstraint("length(currency) = 3", name="currency"),
    )


class TenantVersionRow(Base):
    """A tenant as it was from ``revision`` of its deck on: what a CDR of that time was rated under.

    No foreign key: the history outlives the tenant.
    """

    __tablename__ = "tenant_versions"

    tenant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)
    currency: Mapped[str] = mapped_column(Text)
    rounding: Mapped[int] = mapped_column(SmallInteger)
    country_code: Mapped[str] = mapped_column(Text)
    national_prefix: Mapped[str] = mapped_column(Text)
    international_prefix: Mapped[str] = mapped_column(Text)
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    cost_decimals: Mapped[int] = mapped_column(SmallInteger, server_default=text("4"))

    __table_args__ = (CheckConstraint("cost_decimals BETWEEN 4 AND 8", name="cost_decimals"),)


class DeckRow(Base):
    """The revision of each tenant's deck. ``revision`` counts the committed changes of the tenant's
    rates and rules; it continues if a tenant is deleted and created again. ``change_seq`` orders
    the changes of all tenants: workers follow it."""

    __tablename__ = "decks"

    tenant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger)
    change_seq: Mapped[int] = mapped_column(BigInteger, index=True)


class DeckClockRow(Base):
    """One row that counts changes of decks. A transaction raises it last, so that the order of
    ``change_seq`` is the order of the commits and the lock is short."""

    __tablename__ = "deck_clock"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    change_seq: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class ExtensionRow(Base):
    __tablename__ = "extensions"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tenant_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("tenants.id", ondelete="CASCADE"), index=True
    )
    number: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)

    __table_args__ = (CheckConstraint("id > 0", name="id"),)


class RateVersionRow(Base):
    """All states of all rates. The present state of a rate is its row without ``retired_revision``;
    a change retires this row and adds one; a deletion only retires it.

    A row is written once; the only update retires it. CDRs refer to ``version_id``.
    """

    __tablename__ = "rate_versions"

    version_id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    # The version_id of the rate's first version.
    rate_id: Mapped[int] = mapped_column(BigInteger)
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    created_revision: Mapped[int] = mapped_column(BigInteger)
    retired_revision: Mapped[int | None] = mapped_column(BigInteger)
    prefix: Mapped[str] = mapped_column(Text)
    destination: Mapped[str] = mapped_column(Text)
    cost_per_minute_e8: Mapped[int] = mapped_column(BigInteger)
    billing_increment: Mapped[int] = mapped_column(Integer)
    connect_fee_e8: Mapped[int] = mapped_column(BigInteger)
    minimum_seconds: Mapped[int] = mapped_column(Integer)
    # JSON [[start_seconds, cost_per_minute_e8, billing_increment], ...]; NULL for none.
    intervals: Mapped[str | None] = mapped_column(Text)
    effective_from_s: Mapped[int] = mapped_column(BigInteger)
    effective_from_nanos: Mapped[int] = mapped_column(Integer)
    effective_to_s: Mapped[int] = mapped_column(BigInteger)
    effective_to_nanos: Mapped[int] = mapped_column(Integer)
    blocked: Mapped[bool]
    created_at_ns: Mapped[int] = mapped_column(BigInteger)
    updated_at_ns: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint(
            "cost_per_minute_e8 BETWEEN 0 AND 9999999999999999", name="cost_per_minute"
        ),
        CheckConstraint("connect_fee_e8 BETWEEN 0 AND 9999999999999999", name="connect_fee"),
        CheckConstraint("billing_increment BETWEEN 1 AND 86400", name="billing_increment"),
        CheckConstraint("minimum_seconds >= 0", name="minimum_seconds"),
        CheckConstraint("length(prefix) <= 32", name="prefix"),
    )


IS_PRESENT = RateVersionRow.retired_revision.is_(None)
# One present rate for each prefix and start; also the order in which decks are listed.
partial_index(
    "uq_rate_versions_present",
    RateVersionRow.tenant_id,
    RateVersionRow.prefix,
    RateVersionRow.effective_from_s,
    RateVersionRow.effective_from_nanos,
    where=IS_PRESENT,
    unique=True,
)
# Most rates keep their first version, which has the id of the rate and needs no index: a new deck
# adds nothing to this one. (<> and not !=: SQLite keeps the text, and the migrations wrote <>.)
IS_LATER_VERSION = RateVersionRow.rate_id.op("<>", precedence=5, is_comparison=True)(
    RateVersionRow.version_id
)
partial_index(
    "uq_rate_versions_rate",
    RateVersionRow.rate_id,
    where=IS_PRESENT & IS_LATER_VERSION,
    unique=True,
)
# The rates that were retired after the revision that a worker has; see also RateChangeRow.
partial_index(
    "ix_rate_versions_retired",
    RateVersionRow.tenant_id,
    RateVersionRow.retired_revision,
    where=RateVersionRow.retired_revision.is_not(None),
)


class RateChangeRow(Base):
    """The versions of rates that a revision of a deck added: from the first to the last of these
    ids. One row for each change that adds versions, of one rate or of a whole deck; an index of
    rate_versions would need an entry for each version."""

    __tablename__ = "rate_changes"

    tenant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_version_id: Mapped[int] = mapped_column(BigInteger)
    last_version_id: Mapped[int] = mapped_column(BigInteger)
