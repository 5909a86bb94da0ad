"""What happened to CDRs that were recorded UNRATED, a row each: a price, or another reason. A row
has what stood in the CDR before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from tollwire.service.storage import ids
from tollwire.service.storage.schema.record_tables import CdrPricingRow


class Pricing(NamedTuple):
    """A CDR that was priced, or got ``new_unrated_reason`` by the rates of ``new_rate_revision``
    (None: it was priced), with the reason and the revision that it had before."""

    cdr_id: int
    unrated_reason: int
    rate_revision: int
    new_unrated_reason: int | None = None
    new_rate_revision: int | None = None


def add(connection: Connection, pricings: Sequence[Pricing], now_ns: int) -> int:
    """Write them down; they have the ids from the returned one on. At least one.

    The caller holds the CDRs' rows: so of one CDR a later row has a higher id."""
    first_id = ids.take_rows(connection, CdrPricingRow.__tablename__, len(pricings))
    rows = [
        {"id": row_id, **pricing._asdict(), "priced_at_ns": now_ns}
        for row_id, pricing in enumerate(pricings, first_id)
    ]
    connection.execute(insert(CdrPricingRow), rows)
    return first_id


def of_cdr(connection: Connection, cdr_id: int) -> Sequence[Any]:
    """The rows of a CDR, the oldest first."""
    table = CdrPricingRow.__table__
    query = select(table).where(table.c.cdr_id == cdr_id).order_by(table.c.id)
    return connection.execute(query).all()
