"""The rows that the ledger's entries are about, read by their ids in bounded parts.

Everything is read as it is stored, whatever somebody may have put there; what it ought to be is not
decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from sqlalchemy import Connection, TextClause, text

from service.storage.cdrs import ROW_FIELDS
from service.storage.pricings import Pricing
from service.storage.reversals import ROW_FIELDS as REVERSAL_FIELDS

_CDRS = f"SELECT id, {', '.join(ROW_FIELDS)} FROM cdrs"
_PRICINGS = (
    "SELECT p.id, p.cdr_id, p.unrated_reason, p.rate_revision, p.priced_at_ns, c.status,"
    " c.bill_seconds, c.cost_units, c.cost_fraction_e4, c.rate_version_id, c.rate_revision"
    " FROM cdr_pricings p LEFT JOIN cdrs c ON c.id = p.cdr_id"
)
_REVERSALS = f"SELECT {', '.join(REVERSAL_FIELDS)} FROM cdr_reversals"


def newest_id(connection: Connection, table: str) -> int:
    """The highest id in a table; 0 where it is empty."""
    return connection.exec_driver_sql(f"SELECT max(id) FROM {table}").scalar() or 0


def cdrs(
    connection: Connection, begin_id: int, end_id: int, limit: int
) -> bytes | Iterable[tuple[Any, ...]]:
    """The first ``limit`` CDRs from ``begin_id`` until before ``end_id``, by id: the id and
    ROW_FIELDS, as PostgreSQL's binary COPY data or as tuples that are read as they are taken."""
    query = (
        f"{_CDRS} WHERE id >= CAST('{begin_id:d}' AS BIGINT)"
        f" AND id <= CAST('{end_id - 1:d}' AS BIGINT) ORDER BY id LIMIT {limit:d}"
    )
    if connection.dialect.name == "sqlite":
        cursor: Iterable[tuple[Any, ...]] = connection.connection.cursor().execute(query)
        return cursor
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with (
        driver.cursor() as copying,
        copying.copy(f"COPY ({query}) TO STDOUT (FORMAT BINARY)") as copy,
    ):
        return b"".join(copy)


def pricings_of_cdrs(connection: Connection, begin_id: int, end_id: int) -> list[Pricing]:
    """The pricings of the CDRs with ids from ``begin_id`` until before ``end_id``."""
    query = text(
        "SELECT cdr_id, unrated_reason, rate_revision FROM cdr_pricings"
        " WHERE cdr_id >= :begin AND cdr_id <= :last"
    )
    rows = connection.execute(query, {"begin": begin_id, "last": end_id - 1})
    return [Pricing(*row) for row in rows]


def pricings(connection: Connection, begin_id: int, end_id: int, limit: int) -> list[Any]:
    """The first ``limit`` pricings with ids from ``begin_id`` until before ``end_id``, by id, each
    with what it made of its CDR; NULLs where that is not there."""
    query = text(f"{_PRICINGS} WHERE p.id >= :begin AND p.id <= :last ORDER BY p.id LIMIT :limit")
    return _rows(connection, query, begin_id, end_id, limit)


def reversals(connection: Connection, begin_id: int, end_id: int, limit: int) -> list[Any]:
    """The same of reversals, with REVERSAL_FIELDS."""
    query = text(f"{_REVERSALS} WHERE id >= :begin AND id <= :last ORDER BY id LIMIT :limit")
    return _rows(connection, query, begin_id, end_id, limit)


def _rows(
    connection: Connection, query: TextClause, begin_id: int, end_id: int, limit: int
) -> list[Any]:
    values = {"begin": begin_id, "last": end_id - 1, "limit": limit}
    return list(connection.execute(query, values))
