"""The changes of CDRs that were recorded UNRATED, a row each: a price, or another reason. A row has
the values that the CDR had before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from tollwire.service.storage import ids
from tollwire.service.storage.schema.record_tables import CdrPricingRow


class Pricing(NamedTuple):
    """A CDR that was priced, or got ``new_unrated_reason`` at ``new_rate_revision`` (None: it was
    priced), with the reason and the revision that it had before."""

    cdr_id: int
    unrated_reason: int
    rate_revision: int
    new_unrated_reason: int | None = None
    new_rate_revision: int | None = None


def add(connection: Connection, pricings: Sequence[Pricing], now_ns: int) -> int:
    """Store at least one pricing; they have consecutive ids from the returned one on.

    The caller has locked the rows of the CDRs, so the rows of one CDR have rising ids."""
    first_id = ids.take_rows(connection, CdrPricingRow.__tablename__, len(pricings))
    rows = [
        {"id": row_id, **pricing._asdict(), "priced_at_ns": now_ns}
        for row_id, pricing in enumerate(pricings, first_id)
    ]
    connection.execute(insert(CdrPricingRow), rows)
    return first_id


def of_cdr(connection: Connection, cdr_id: int) -> Sequence[Any]:
    """The pricings of a CDR, the oldest first."""
    table = CdrPricingRow.__table__
    query = select(table).where(table.c.cdr_id == cdr_id).order_by(table.c.id)
    return connection.execute(query).all()
