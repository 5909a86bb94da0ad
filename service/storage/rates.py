"""Rates as rows. A rate's present state is its row without ``retired_revision``.

The columns of a rate are declared once, in ``RateVersionRow``. The lists of columns of this module,
``decks``, ``deck_import`` and ``kept_rates`` are derived from them.

The window of a rate is stored as whole seconds and nanoseconds, because years 1 to 9999 do not fit
64 bits of nanoseconds; its open ends are sentinels outside the range, so that ordering and
uniqueness need no special case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select, tuple_, update

from tollwire.service.domain.model import Interval, Rate
from tollwire.service.storage import covered_rows
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.owners import Within, of_tenants
from tollwire.service.storage.schema.tenant_tables import (
    IS_LATER_VERSION,
    IS_PRESENT,
    OPEN_FROM_S,
    OPEN_TO_S,
    RateChangeRow,
    RateVersionRow,
)

# The key by which lists of rates are sorted: tenant_id, prefix, effective_from_s,
# effective_from_nanos.
Position = Sequence[int | str]
# A rate in the order of the fields of ratingcore.RateInfo, which are the arguments of
# ratingcore.DeckBuilder.put: the columns TERMS, with each end of the window as one number.
RateArguments = tuple[Any, ...]

_NS = 10**9
_TABLE = RateVersionRow.__table__
_POSITION = (
    RateVersionRow.tenant_id,
    RateVersionRow.prefix,
    RateVersionRow.effective_from_s,
    RateVersionRow.effective_from_nanos,
)

# The tenant and the lifetime of a version. All other columns are the rate itself.
HISTORY = ("tenant_id", "created_revision", "retired_revision", "created_at_ns", "updated_at_ns")
TERMS = tuple(column for column in _TABLE.columns if column.key not in HISTORY)
_INTERVALS = TERMS.index(_TABLE.c.intervals)
_WINDOW = _INTERVALS + 1
_UNLIMITED = (None, OPEN_FROM_S, 0, OPEN_TO_S, 0)  # no intervals and an open window
# The columns that are a field of Rate, with the same name and value.
_SAME = tuple(
    field.name
    for field in fields(Rate)
    if field.name in _TABLE.columns and field.name != "intervals"
)


def rate_from_row(row: Any) -> Rate:
    return Rate(
        id=row.rate_id,
        intervals=tuple(Interval(*part) for part in intervals_from_text(row.intervals)),
        effective_from_ns=from_ns(row.effective_from_s, row.effective_from_nanos),
        effective_to_ns=to_ns(row.effective_to_s, row.effective_to_nanos),
        rate_revision=row.created_revision,
        **{name: getattr(row, name) for name in _SAME},
    )


def from_arguments(rate: RateArguments) -> tuple[Any, ...]:
    """The values of TERMS."""
    if not rate[_INTERVALS] and rate[_WINDOW] is None and rate[_WINDOW + 1] is None:
        return rate[:_INTERVALS] + _UNLIMITED + rate[_WINDOW + 2 :]
    return (
        *rate[:_INTERVALS],
        intervals_to_text(rate[_INTERVALS]),
        *from_pair(rate[_WINDOW]),
        *to_pair(rate[_WINDOW + 1]),
        *rate[_WINDOW + 2 :],
    )


def intervals_from_text(text: str | None) -> list[tuple[int, int, int]]:
    """start_seconds, cost_per_minute_e8, billing_increment of each interval."""
    if text is None:
        return []
    return [(start, cost, increment) for start, cost, increment in json.loads(text)]


def intervals_to_text(intervals: Sequence[tuple[int, int, int]]) -> str | None:
    """The inverse of ``intervals_from_text``."""
    return json.dumps(intervals, separators=(",", ":")) if intervals else None


def from_ns(seconds: int, nanos: int) -> int | None:
    return None if seconds == OPEN_FROM_S else seconds * _NS + nanos


def to_ns(seconds: int, nanos: int) -> int | None:
    return None if seconds == OPEN_TO_S else seconds * _NS + nanos


def from_pair(effective_from_ns: int | None) -> tuple[int, int]:
    return (OPEN_FROM_S, 0) if effective_from_ns is None else divmod(effective_from_ns, _NS)


def to_pair(effective_to_ns: int | None) -> tuple[int, int]:
    return (OPEN_TO_S, 0) if effective_to_ns is None else divmod(effective_to_ns, _NS)


def position(rate: Rate) -> Position:
    return (rate.tenant_id, rate.prefix, *from_pair(rate.effective_from_ns))


def get(connection: Connection, rate_id: int) -> Rate | None:
    """The present state of a rate: its first version, or a later one, which has an index."""
    is_of_rate = RateVersionRow.rate_id == rate_id
    return _one(connection, RateVersionRow.version_id == rate_id, is_of_rate, IS_PRESENT) or _one(
        connection, is_of_rate, IS_LATER_VERSION, IS_PRESENT
    )


def at_position(connection: Connection, where: Position) -> Rate | None:
    """The tenant's present rate with that prefix and effective_from."""
    keys = [column == value for column, value in zip(_POSITION, where, strict=True)]
    return _one(connection, *keys, IS_PRESENT)


def count_of_prefix(connection: Connection, tenant_id: int, prefix: str) -> int:
    """How many present rates of the tenant have exactly this prefix."""
    query = select(func.count()).where(
        RateVersionRow.tenant_id == tenant_id, RateVersionRow.prefix == prefix, IS_PRESENT
    )
    return connection.execute(query).scalar_one()


def add(connection: Connection, rate: Rate, revision: int) -> None:
    """Store a state of a rate that is present from ``revision`` of the tenant's deck on, and enter
    it in the ledger."""
    from_s, from_nanos = from_pair(rate.effective_from_ns)
    to_s, to_nanos = to_pair(rate.effective_to_ns)
    values = {
        "rate_id": rate.id,
        "created_revision": revision,
        "retired_revision": None,
        "intervals": intervals_to_text(
            [
                (part.start_seconds, part.cost_per_minute_e8, part.billing_increment)
                for part in rate.intervals
            ]
        ),
        "effective_from_s": from_s,
        "effective_from_nanos": from_nanos,
        "effective_to_s": to_s,
        "effective_to_nanos": to_nanos,
        **{name: getattr(rate, name) for name in _SAME},
    }
    connection.execute(insert(RateVersionRow).values(values))
    note_change(connection, rate.tenant_id, revision, rate.version_id, rate.version_id)
    covered_rows.enter_at_end(
        connection,
        covered_rows.RATES_ADDED,
        rate.updated_at_ns,
        rate.version_id,
        digest=covered_rows.digest_of_values(covered_rows.RATES_ADDED, values),
    )


def note_change(
    connection: Connection,
    tenant_id: int,
    revision: int,
    first_version_id: int,
    last_version_id: int,
) -> None:
    """Store which versions are new in ``revision`` of the tenant's deck."""
    connection.execute(
        insert(RateChangeRow).values(
            tenant_id=tenant_id,
            revision=revision,
            first_version_id=first_version_id,
            last_version_id=last_version_id,
        )
    )


def retire(
    connection: Connection, tenant_id: int, version_id: int, revision: int, now_ns: int
) -> None:
    """Let a state of a rate end with ``revision`` of the tenant's deck, and enter that in the
    ledger."""
    connection.execute(
        update(RateVersionRow)
        .where(RateVersionRow.version_id == version_id)
        .values(retired_revision=revision)
    )
    row = (version_id, tenant_id, revision)
    _enter_retired(
        connection,
        *(now_ns, tenant_id, revision, 1),
        covered_rows.digest_of_rows(covered_rows.RATES_RETIRED, [row]),
    )


def retire_all(connection: Connection, tenant_id: int, revision: int, now_ns: int) -> None:
    """The same for all present rates of the tenant."""
    retired = connection.execute(
        update(RateVersionRow)
        .where(RateVersionRow.tenant_id == tenant_id, IS_PRESENT)
        .values(retired_revision=revision)
    )
    _enter_retired(connection, now_ns, tenant_id, revision, retired.rowcount)


def _enter_retired(
    connection: Connection,
    now_ns: int,
    tenant_id: int,
    revision: int,
    count: int,
    digest: bytes | None = None,
) -> None:
    covered_rows.enter_at_end(
        connection, covered_rows.RATES_RETIRED, now_ns, tenant_id, count, revision, digest
    )


def page(
    connection: Connection,
    tenant_id: int,
    search: str,
    after: Position | None,
    size: int,
    within: Within = None,
) -> list[Rate]:
    """Present rates in the order of their positions. ``tenant_id`` 0: of all tenants ``within``."""
    owned = of_tenants(connection, _TABLE.c.tenant_id, tenant_id, within)
    query = select(_TABLE).where(IS_PRESENT, *owned)
    if search:
        dialect = dialect_of(connection)
        query = query.where(
            or_(
                dialect.contains(RateVersionRow.prefix, search),
                dialect.contains(RateVersionRow.destination, search),
            )
        )
    if after is not None:
        query = query.where(_is_after(tenant_id, after))
    rows = connection.execute(query.order_by(*_POSITION).limit(size))
    return [rate_from_row(row) for row in rows]


def page_at_revision(
    connection: Connection, tenant_id: int, revision: int, after: Position | None, size: int
) -> list[Rate]:
    """The rates at ``revision`` of the tenant's deck, in the order of their positions.

    One index finds the rates that are still present, another the few that were retired since.
    """
    parts = []
    for state in (IS_PRESENT, RateVersionRow.retired_revision > revision):
        query = select(_TABLE).where(
            RateVersionRow.tenant_id == tenant_id,
            RateVersionRow.created_revision <= revision,
            state,
        )
        if after is not None:
            query = query.where(_is_after(tenant_id, after))
        part = query.order_by(*_POSITION).limit(size).subquery()
        parts.append(select(part))
    both = parts[0].union_all(parts[1]).subquery()
    order = [both.c[column.key] for column in _POSITION]
    rows = connection.execute(select(both).order_by(*order).limit(size))
    return [rate_from_row(row) for row in rows]


def _is_after(tenant_id: int, after: Position) -> ColumnElement[bool]:
    """That a row comes after a position in the list of one tenant, or of all (``tenant_id`` 0). For
    one tenant the condition leaves out tenant_id: otherwise SQLite does not use the index."""
    first = 1 if tenant_id else 0
    return tuple_(*_POSITION[first:]) > tuple_(*after[first:])


def _one(connection: Connection, *conditions: ColumnElement[bool]) -> Rate | None:
    row = connection.execute(select(_TABLE).where(and_(*conditions))).first()
    return None if row is None else rate_from_row(row)
