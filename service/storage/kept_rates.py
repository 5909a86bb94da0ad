"""The versions of rates and tenants from which CDRs are recomputed.

Rows are returned with the values that they have, also with values that no release ever wrote: the
verification reports them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, select

from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.rates import TERMS, from_ns, intervals_from_text, to_ns
from tollwire.service.storage.schema.tenant_tables import DeckRow, RateVersionRow, TenantVersionRow

_TABLE = RateVersionRow.__table__
# The identity and the name of a rate are not part of a recomputation.
_PRICING_TERMS = tuple(
    column for column in TERMS if column.key not in ("version_id", "rate_id", "destination")
)
_VERSION = (
    _TABLE.c.version_id,
    _TABLE.c.tenant_id,
    _TABLE.c.created_revision,
    _TABLE.c.retired_revision,
    *_PRICING_TERMS,
)
_INTERVALS = _VERSION.index(_TABLE.c.intervals)
_AFTER_WINDOW = _INTERVALS + 5
_RULES = (
    TenantVersionRow.revision,
    TenantVersionRow.rounding,
    TenantVersionRow.country_code,
    TenantVersionRow.national_prefix,
    TenantVersionRow.international_prefix,
    TenantVersionRow.cost_decimals,
)


def versions(connection: Connection, version_ids: Collection[int]) -> Iterator[tuple[Any, ...]]:
    """The versions that exist, as the arguments of ratingcore's ``KeptRates``: version_id,
    tenant_id, created_revision, retired_revision, prefix, cost_per_minute_e8 and the fields after
    it in ``ratingcore.RateInfo``. Intervals that cannot be read are None, and such bounds are
    text."""
    if not version_ids:
        return
    query = select(*_VERSION).where(dialect_of(connection).among(_TABLE.c.version_id, version_ids))
    for row in connection.execute(query).all():
        intervals, from_s, from_nanos, to_s, to_nanos = row[_INTERVALS:_AFTER_WINDOW]
        yield (
            *row[:_INTERVALS],
            _intervals(intervals),
            _bound(from_ns, from_s, from_nanos),
            _bound(to_ns, to_s, to_nanos),
            *row[_AFTER_WINDOW:],
        )


def _bound(join: Callable[[int, int], int | None], seconds: Any, nanos: Any) -> Any:
    """Text if a part is no integer: SQLite stores any type in any column."""
    whole = isinstance(seconds, int) and isinstance(nanos, int)
    return join(seconds, nanos) if whole else f"{seconds} {nanos}"


def _intervals(text: Any) -> list[tuple[int, int, int]] | None:
    try:
        return intervals_from_text(text)
    except (ValueError, TypeError):
        return None


def revisions(connection: Connection, tenant_ids: Collection[int]) -> dict[int, int]:
    """The committed revisions of the tenants' decks."""
    column = DeckRow.__table__.c.tenant_id
    query = select(DeckRow.tenant_id, DeckRow.revision).where(
        dialect_of(connection).among(column, tenant_ids)
    )
    found = connection.execute(query)
    return {tenant_id: revision for tenant_id, revision in found if isinstance(revision, int)}


def rules(connection: Connection, tenant_ids: Collection[int]) -> dict[int, list[tuple[Any, ...]]]:
    """The history of the tenants: for each revision at which a tenant changed, the revision,
    rounding, country_code, national_prefix, international_prefix and cost_decimals, by rising
    revision."""
    if not tenant_ids:
        return {}
    column = TenantVersionRow.__table__.c.tenant_id
    query = (
        select(TenantVersionRow.tenant_id, *_RULES)
        .where(dialect_of(connection).among(column, tenant_ids))
        .order_by(TenantVersionRow.tenant_id, TenantVersionRow.revision)
    )
    rows = map(tuple, connection.execute(query))
    return {
        tenant_id: [row[1:] for row in history]
        for tenant_id, history in groupby(rows, key=lambda row: row[0])
    }
