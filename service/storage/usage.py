"""Sums over CDRs.

The database adds integers that cannot overflow. It gets the offsets from UTC with the time at which
each begins, because it has no time zones. Costs are summed in three parts: ten thousand costs of 15
digits before the point exceed 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    Subquery,
    case,
    func,
    literal_column,
    select,
)

from tollwire.service.domain.model import (
    MIN_COST_DECIMALS,
    Disposition,
    RatingStatus,
    UsageDimension,
    UsageTotals,
)
from tollwire.service.storage.conditions import in_period
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.owners import Within, of_tenants
from tollwire.service.storage.schema.record_tables import CdrReversalRow, CdrRow
from tollwire.service.storage.schema.tenant_tables import RateVersionRow, TenantRow

_NS = 10**9
DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600
_COST_SPLIT = 10**6
_E8 = 10**8

_BY = "by_"  # prefix of the names of the columns to group by
_DAYS = {UsageDimension.DAY, UsageDimension.MONTH}
_SUMS = (
    "calls",
    "answered",
    "duration_seconds",
    "bill_seconds",
    "cost_high",
    "cost_low",
    "cost_fraction_e8",
    "unrated",
)


class OffsetFrom(NamedTuple):
    """From ``start_seconds`` since the epoch on, local time is UTC plus ``offset_seconds``."""

    start_seconds: int
    offset_seconds: int


class Group(NamedTuple):
    """The values that CDRs share, and their sums.

    ``shared`` has the values of the dimensions: tenant_id, extension_id, destination, direction,
    disposition, unrated_reason (0 for none); day or hour (local, counted since 1970-01-01T00:00
    local time); with hour also offset_seconds.
    """

    shared: Mapping[str, Any]
    currency: str
    sums: UsageTotals
    cost_decimals: int  # the maximum of the tenants, as they are now


def first_and_last_start_ns(
    connection: Connection,
    tenant_id: int,
    after_ns: int | None,
    before_ns: int | None,
    within: Within = None,
) -> tuple[int, int] | None:
    """The least and the greatest started_at of the calls to add up; None if there are no calls.
    ``tenant_id`` 0: of all tenants ``within``."""
    # Two queries, because each reads the index alone.
    first, last = (
        connection.execute(_end(connection, end, tenant_id, after_ns, before_ns, within)).scalar()
        for end in (func.min, func.max)
    )
    return None if first is None or last is None else (first, last)


def _end(
    connection: Connection,
    end: Callable[[Any], Any],
    tenant_id: int,
    after_ns: int | None,
    before_ns: int | None,
    within: Within,
) -> Select[Any]:
    """The least or the greatest started_at. For several tenants it is computed from that of each:
    the index has it for each tenant, not for a set."""
    query = select(end(CdrRow.started_at_ns))
    if tenant_id or within is None or len(within) == 1:
        return query.where(*_conditions(connection, CdrRow, tenant_id, after_ns, before_ns, within))
    tenants = dialect_of(connection).listed(within)
    own = query.where(
        CdrRow.tenant_id == tenants.c.value,
        *in_period(CdrRow.started_at_ns, after_ns, before_ns),
    )
    return select(end(own.scalar_subquery())).select_from(tenants)


def currency(
    connection: Connection, tenant_id: int, within: Within = None
) -> tuple[str, int] | None:
    """The currency and the cost_decimals of the tenant; None if it does not exist ``within``."""
    if not tenant_id:
        return None
    is_it = of_tenants(connection, TenantRow.__table__.c.id, tenant_id, within)
    query = select(TenantRow.currency, TenantRow.cost_decimals).where(*is_it)
    row = connection.execute(query).first()
    return None if row is None else (row.currency, row.cost_decimals)


def add_up(
    connection: Connection,
    tenant_id: int,
    after_ns: int | None,
    before_ns: int | None,
    dimensions: Sequence[UsageDimension],
    offsets: Sequence[OffsetFrom],
    within: Within = None,
    *,
    only_reversed: bool = False,
) -> list[Group]:
    """The sums by these dimensions and by currency, in no order. ``tenant_id`` 0: all tenants
    ``within``.

    ``offsets``, by rising start, are those of the time zone over all of these calls. With
    ``only_reversed`` only the reversed calls are read.
    """
    source: type[CdrRow] | type[CdrReversalRow] = CdrReversalRow if only_reversed else CdrRow
    conditions = _conditions(connection, source, tenant_id, after_ns, before_ns, within)
    if only_reversed:
        conditions = [CdrRow.id.in_(select(CdrReversalRow.cdr_id).where(*conditions))]
    calls = _calls(conditions, dimensions, offsets)
    query = _by_currency(_by_tenant(calls), dimensions)
    return [_group(dict(row._mapping)) for row in connection.execute(query)]


def _group(values: dict[str, Any]) -> Group:
    summed = {name: int(values.pop(name)) for name in _SUMS}
    units = summed.pop("cost_high") * _COST_SPLIT + summed.pop("cost_low")
    cost_e8 = units * _E8 + summed.pop("cost_fraction_e8")
    currency, decimals = values.pop("currency"), values.pop("cost_decimals")
    return Group(values, currency, UsageTotals(cost_e8=cost_e8, **summed), decimals)


def _conditions(
    connection: Connection,
    source: type[CdrRow] | type[CdrReversalRow],
    tenant_id: int,
    after_ns: int | None,
    before_ns: int | None,
    within: Within,
) -> list[ColumnElement[bool]]:
    """The condition for the calls to add up, on columns that CDRs and reversals share."""
    return [
        *in_period(source.started_at_ns, after_ns, before_ns),
        *of_tenants(connection, source.__table__.c.tenant_id, tenant_id, within),
    ]


def _calls(
    conditions: Sequence[ColumnElement[bool]],
    dimensions: Collection[UsageDimension],
    offsets: Sequence[OffsetFrom],
) -> Subquery:
    """The calls with the columns to add up and the columns to group by."""
    call = CdrRow.__table__.c
    shared: dict[str, ColumnElement[Any]] = {"tenant_id": call.tenant_id}
    if UsageDimension.EXTENSION in dimensions:
        shared["extension_id"] = func.coalesce(call.extension_id, 0)
    if UsageDimension.DESTINATION in dimensions:
        shared["rate_version_id"] = call.rate_version_id
    if UsageDimension.DIRECTION in dimensions:
        shared["direction"] = call.direction
    if UsageDimension.DISPOSITION in dimensions:
        shared["disposition"] = call.disposition
    if UsageDimension.UNRATED_REASON in dimensions:
        shared["unrated_reason"] = func.coalesce(call.unrated_reason, 0)
    offset = _offset(offsets)
    local_seconds = call.started_at_ns // _integer(_NS) + offset
    if UsageDimension.HOUR in dimensions:
        shared["offset_seconds"] = offset
        shared["hour"] = _floor_divide(local_seconds, HOUR_SECONDS)
    elif _DAYS & set(dimensions):
        shared["day"] = _floor_divide(local_seconds, DAY_SECONDS)
    added_up = {
        "calls": _integer(1),
        "answered": case((call.disposition == int(Disposition.ANSWERED), 1), else_=0),
        "duration_seconds": call.duration_seconds,
        "bill_seconds": func.coalesce(call.bill_seconds, 0),
        "cost_high": func.coalesce(call.cost_units // _integer(_COST_SPLIT), 0),
        "cost_low": func.coalesce(call.cost_units % _integer(_COST_SPLIT), 0),
        "cost_fraction_e8": func.coalesce(call.cost_fraction_e8, 0),
        "unrated": case((call.status == int(RatingStatus.UNRATED), 1), else_=0),
    }
    columns = [column.label(f"{_BY}{name}") for name, column in shared.items()]
    columns += [column.label(name) for name, column in added_up.items()]
    return select(*columns).where(*conditions).subquery("calls")


def _by_tenant(calls: Subquery) -> Subquery:
    """The sums by all columns to group by, which include the tenant and the rate version."""
    shared = [column for column in calls.c if column.name.startswith(_BY)]
    sums = [func.sum(calls.c[name]).label(name) for name in _SUMS]
    return select(*shared, *sums).group_by(*shared).subquery("by_tenant")


def _by_currency(fine: Subquery, dimensions: Collection[UsageDimension]) -> Select[Any]:
    """The sums by the dimensions, and by currency."""
    shared: dict[str, ColumnElement[Any]] = {
        column.name.removeprefix(_BY): column for column in fine.c if column.name.startswith(_BY)
    }
    tenant_id = shared.pop("tenant_id")
    rate_version_id = shared.pop("rate_version_id", None)
    source = fine.outerjoin(TenantRow, TenantRow.id == tenant_id)
    if UsageDimension.TENANT in dimensions:
        shared["tenant_id"] = tenant_id
    if rate_version_id is not None:
        source = source.outerjoin(RateVersionRow, RateVersionRow.version_id == rate_version_id)
        shared["destination"] = func.coalesce(RateVersionRow.destination, literal_column("''"))
    shared["currency"] = func.coalesce(TenantRow.currency, literal_column("''"))
    sums = [func.sum(fine.c[name]).label(name) for name in _SUMS]
    decimals = func.max(func.coalesce(TenantRow.cost_decimals, _integer(MIN_COST_DECIMALS)))
    columns = [column.label(name) for name, column in shared.items()]
    return (
        select(*columns, decimals.label("cost_decimals"), *sums)
        .select_from(source)
        .group_by(*shared.values())
    )


def _offset(offsets: Sequence[OffsetFrom]) -> ColumnElement[int]:
    """The offset at started_at: a balanced tree of comparisons, because half a century has a
    hundred clock changes."""
    if len(offsets) == 1:
        return _integer(offsets[0].offset_seconds)
    middle = len(offsets) // 2
    return case(
        (
            CdrRow.started_at_ns < _integer(offsets[middle].start_seconds * _NS),
            _offset(offsets[:middle]),
        ),
        else_=_offset(offsets[middle:]),
    )


def _floor_divide(seconds: ColumnElement[int], unit_seconds: int) -> ColumnElement[int]:
    """Whole units since 1970, rounded down. The databases round towards zero, and west of UTC the
    first hours of 1970 are negative; no offset is longer than a day."""
    shifted = seconds + _integer(DAY_SECONDS)
    return shifted // _integer(unit_seconds) - _integer(DAY_SECONDS // unit_seconds)


def _integer(value: int) -> ColumnElement[int]:
    return literal_column(str(value), Integer)
