"""Usage summaries: the sums over groups of CDRs.

Days, hours and months are those of a time zone: a day begins at local midnight and has 23 or 25
hours when clocks change. The database adds up; this module reads the offsets from UTC from the time
zone data, so that all databases give the same result.

The billed sums count every CDR, the corrected sums only CDRs that are not reversed. There are few
reversals, so the reversed CDRs are added up a second time and subtracted; no query checks each CDR
for a reversal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from tollwire.service.accounts.tenants import require_tenant
from tollwire.service.domain import scopes
from tollwire.service.domain.checks import check_id, check_period, refuse
from tollwire.service.domain.errors import FieldViolation
from tollwire.service.domain.model import (
    MIN_COST_DECIMALS,
    Direction,
    Disposition,
    UnratedReason,
    UsageDimension,
    UsageQuery,
    UsageRow,
    UsageTotals,
)
from tollwire.service.domain.money import decimals_of
from tollwire.service.domain.thread_context import Work
from tollwire.service.storage import usage
from tollwire.service.storage.engine import Database
from tollwire.service.storage.usage import DAY_SECONDS, HOUR_SECONDS, Group, OffsetFrom

_NS = 10**9
_EPOCH = date(1970, 1, 1)
_NOTHING = UsageTotals()
_GroupKey = tuple[tuple[str, ...], str]  # keys, currency
_NO_ZONES = {"localtime", "posixrules", "Factory"}
_TIMES = {UsageDimension.DAY, UsageDimension.HOUR, UsageDimension.MONTH}


class Usage:
    """Adds up recorded CDRs. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def summarize(self, query: UsageQuery) -> list[UsageRow]:
        """One row for each group with calls and each currency, ordered by the text of the keys,
        then by currency. Without ``group_by`` there is always at least one row. NotFound
        TENANT_NOT_FOUND."""
        _check(query)
        chosen = (query.tenant_id, query.started_after_ns, query.started_before_ns)
        within = scopes.within()
        with self._database.snapshot(work=Work.LONG) as connection:
            require_tenant(connection, query.tenant_id)
            offsets = [OffsetFrom(0, 0)]
            if query.time_zone and _TIMES & set(query.group_by):
                span = usage.first_and_last_start_ns(connection, *chosen, within)
                if span is None:
                    return []
                offsets = _offsets(ZoneInfo(query.time_zone), span[0] // _NS, span[1] // _NS)
            arguments = (connection, *chosen, query.group_by, offsets, within)
            groups = usage.add_up(*arguments)
            reversed_groups = usage.add_up(*arguments, only_reversed=True)
            if not groups and not query.group_by:
                currency = usage.currency(connection, query.tenant_id, within)
                name, decimals = currency or ("", MIN_COST_DECIMALS)
                groups = [Group({}, name, UsageTotals(), decimals)]
        billed = _merged(query.group_by, groups)
        reversed_ = _merged(query.group_by, reversed_groups)
        return [
            _row(key, billed[key], reversed_.get(key, (_NOTHING, 0))[0]) for key in sorted(billed)
        ]


def _row(key: _GroupKey, billed: tuple[UsageTotals, int], reversed_: UsageTotals) -> UsageRow:
    """One row. Its costs have the largest current cost_decimals of the tenants, or more if the
    exact sum needs more."""
    sums, decimals = billed
    corrected = sums.minus(reversed_)
    needed = max(decimals_of(sums.cost_e8), decimals_of(corrected.cost_e8))
    return UsageRow(*key, sums, corrected, max(decimals, needed))


def _check(query: UsageQuery) -> None:
    violations = [
        *check_id("tenant_id", query.tenant_id, required=False),
        *check_period(query.started_after_ns, query.started_before_ns),
    ]
    twice = {name for name in query.group_by if query.group_by.count(name) > 1}
    violations += [
        FieldViolation("group_by", f"has {dimension.name} more than once")
        for dimension in sorted(twice)
    ]
    if query.time_zone and query.time_zone not in _zone_names():
        expected = 'must be an IANA name such as "Europe/Berlin"'
        violations.append(FieldViolation("time_zone", f"{expected}, got {query.time_zone[:64]!r}"))
    refuse(violations)


@cache
def _zone_names() -> frozenset[str]:
    """The names of the IANA database, without "localtime" and the placeholder for "not set": these
    differ from server to server."""
    return frozenset(available_timezones() - _NO_ZONES)


def _offsets(zone: ZoneInfo, first: int, last: int) -> list[OffsetFrom]:
    """The zone's offsets from UTC from the second ``first`` to the second ``last``.

    Changes are searched in steps of one day. This is safe: since 1970 no zone has changed twice
    within six days (a test checks this with the zone data).
    """
    offsets = [OffsetFrom(first, _offset_at(zone, first))]
    for day in range(first, last + DAY_SECONDS, DAY_SECONDS):
        before, after = day, day + DAY_SECONDS
        if _offset_at(zone, after) == offsets[-1].offset_seconds:
            continue
        while after - before > 1:
            middle = (before + after) // 2
            if _offset_at(zone, middle) == offsets[-1].offset_seconds:
                before = middle
            else:
                after = middle
        offsets.append(OffsetFrom(after, _offset_at(zone, after)))
    return offsets


def _offset_at(zone: ZoneInfo, seconds: int) -> int:
    offset = datetime.fromtimestamp(seconds, zone).utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def _merged(
    dimensions: Sequence[UsageDimension], groups: Sequence[Group]
) -> dict[_GroupKey, tuple[UsageTotals, int]]:
    """The sums by keys and currency, and the largest cost_decimals of their tenants. Groups with
    equal keys, such as the days of one month, are merged."""
    totals: dict[_GroupKey, tuple[UsageTotals, int]] = {}
    for group in groups:
        key = (tuple(_key(dimension, group.shared) for dimension in dimensions), group.currency)
        sums, decimals = totals.get(key, (_NOTHING, MIN_COST_DECIMALS))
        totals[key] = (sums.plus(group.sums), max(decimals, group.cost_decimals))
    return totals


def _key(dimension: UsageDimension, shared: Mapping[str, Any]) -> str:
    """The key of a group in one dimension."""
    match dimension:
        case UsageDimension.TENANT:
            return str(shared["tenant_id"])
        case UsageDimension.EXTENSION:
            return str(shared["extension_id"] or "")
        case UsageDimension.DESTINATION:
            return str(shared["destination"])
        case UsageDimension.DIRECTION:
            return Direction(shared["direction"]).name
        case UsageDimension.DISPOSITION:
            return Disposition(shared["disposition"]).name
        case UsageDimension.UNRATED_REASON:
            reason = shared["unrated_reason"]
            return UnratedReason(reason).name if reason else ""
        case UsageDimension.DAY:
            return _day(shared).isoformat()
        case UsageDimension.HOUR:
            return _hour(shared["hour"], shared["offset_seconds"])
        case UsageDimension.MONTH:
            return f"{_day(shared):%Y-%m}"


def _day(shared: Mapping[str, Any]) -> date:
    days = shared["hour"] // 24 if "hour" in shared else shared["day"]
    return _EPOCH + timedelta(days=days)


def _hour(hours: int, offset_seconds: int) -> str:
    """A local hour, given in hours of local time since 1970, with its offset from UTC. The offset
    distinguishes the two hours with the same name when clocks are set back."""
    zone = timezone(timedelta(seconds=offset_seconds))
    began = datetime.fromtimestamp(hours * HOUR_SECONDS - offset_seconds, zone)
    return began.isoformat(timespec="minutes")
