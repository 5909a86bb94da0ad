"""Reads the rows that the entries of the ledger cover, by their ids in bounded parts. (CDRs:
tollwire.service.storage.stored_rows.)

Rows are read as they are stored, also with values that the service never writes; the verification
compares them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, TextClause, text

from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.pricings import Pricing
from tollwire.service.storage.reversals import ROW_FIELDS as REVERSAL_FIELDS

# A pricing with the present outcome of its CDR, and with the outcome before the next pricing of
# this CDR.
_PRICINGS = (
    "SELECT p.id, p.cdr_id, p.unrated_reason, p.rate_revision, p.priced_at_ns, c.status,"
    " c.bill_seconds, c.cost_units, c.cost_fraction_e8, c.rate_version_id, c.rate_revision,"
    " c.unrated_reason, p.new_unrated_reason, p.new_rate_revision, n.id, n.unrated_reason,"
    " n.rate_revision"
    " FROM cdr_pricings p LEFT JOIN cdrs c ON c.id = p.cdr_id"
    " LEFT JOIN cdr_pricings n ON n.id ="
    " (SELECT min(f.id) FROM cdr_pricings f WHERE f.cdr_id = p.cdr_id AND f.id > p.id)"
)
_REVERSALS = f"SELECT {', '.join(REVERSAL_FIELDS)} FROM cdr_reversals"


def newest_id(connection: Connection, table: str) -> int:
    """The highest id in a table; 0 if it is empty."""
    return connection.exec_driver_sql(f"SELECT max(id) FROM {table}").scalar() or 0


def pricings_of_cdrs(connection: Connection, begin_id: int, end_id: int) -> list[Pricing]:
    """The pricings of the CDRs with ids from ``begin_id`` on and before ``end_id``, those of one
    CDR in their order."""
    query = text(
        "SELECT cdr_id, unrated_reason, rate_revision, new_unrated_reason, new_rate_revision"
        " FROM cdr_pricings WHERE cdr_id >= :begin AND cdr_id <= :last ORDER BY cdr_id, id"
    )
    rows = connection.execute(query, {"begin": begin_id, "last": end_id - 1})
    return [Pricing(*row) for row in rows]


def pricings(connection: Connection, begin_id: int, end_id: int, limit: int) -> list[Any]:
    """The first ``limit`` pricings with ids from ``begin_id`` on and before ``end_id``, by id, each
    with the outcome that it gave to its CDR; NULLs if the CDR or the next pricing is missing."""
    query = text(f"{_PRICINGS} WHERE p.id >= :begin AND p.id <= :last ORDER BY p.id LIMIT :limit")
    return _rows(connection, query, begin_id, end_id, limit)


def reversals(connection: Connection, begin_id: int, end_id: int, limit: int) -> list[Any]:
    """The same for reversals, with REVERSAL_FIELDS."""
    query = text(f"{_REVERSALS} WHERE id >= :begin AND id <= :last ORDER BY id LIMIT :limit")
    return _rows(connection, query, begin_id, end_id, limit)


def _rows(
    connection: Connection, query: TextClause, begin_id: int, end_id: int, limit: int
) -> list[Any]:
    values = {"begin": begin_id, "last": end_id - 1, "limit": limit}
    with dialect_of(connection).undecodable_texts(connection):
        return list(connection.execute(query, values))
