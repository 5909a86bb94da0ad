"""Usage summaries against an independent summation: call by call, with zoneinfo and Fraction."""

from __future__ import annotations

import random
import zoneinfo
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.world import NOON_NS, SECOND_NS, World, at_once, call, calls, in_parts
from tollwire.service.domain.errors import InvalidInput, NotFound
from tollwire.service.domain.model import (
    MAX_COST_E8,
    MAX_STARTED_AT_NS,
    Call,
    Cdr,
    CdrFilter,
    Direction,
    Disposition,
    RatingStatus,
    ReversalRequest,
    UsageDimension,
    UsageQuery,
    UsageRow,
    UsageTotals,
)

TENANT = UsageDimension.TENANT
EXTENSION = UsageDimension.EXTENSION
DESTINATION = UsageDimension.DESTINATION
DIRECTION = UsageDimension.DIRECTION
DISPOSITION = UsageDimension.DISPOSITION
DAY = UsageDimension.DAY
HOUR = UsageDimension.HOUR
MONTH = UsageDimension.MONTH


@pytest.fixture
def payer(world: World) -> int:
    return payer_of(world)


def payer_of(world: World, **fields: Any) -> int:
    tenant_id = world.tenant(**fields)
    world.rate(tenant_id, "44", 217, 6, destination="UK")
    world.rate(tenant_id, "447", 1533, 1, destination="UK mobile")
    world.rate(tenant_id, "4479", 99_999_999_9999, 60, destination="UK mobile")
    return tenant_id


def local(cdr: Cdr, zone: str) -> datetime:
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        seconds=cdr.call.started_at_ns // SECOND_NS
    )
    return start.astimezone(ZoneInfo(zone or "UTC"))


def key_of(cdr: Cdr, dimension: UsageDimension, zone: str) -> str:
    if dimension == TENANT:
        return str(cdr.call.tenant_id)
    if dimension == EXTENSION:
        return str(cdr.call.extension_id) if cdr.call.extension_id else ""
    if dimension == DESTINATION:
        return cdr.rate.destination if cdr.rate else ""
    if dimension == DIRECTION:
        return cdr.call.direction.name
    if dimension == DISPOSITION:
        return cdr.call.disposition.name
    if dimension == UsageDimension.UNRATED_REASON:
        return cdr.unrated_reason.name if cdr.unrated_reason else ""
    formats = {DAY: "%Y-%m-%d", MONTH: "%Y-%m", HOUR: "%Y-%m-%dT%H:00"}
    start = local(cdr, zone)
    text = start.strftime(formats[dimension])
    if dimension == HOUR:
        text += start.isoformat()[len("2026-10-25T02:00:00") :]
    return text


def sums(cdrs: Iterable[Cdr], group_by: Sequence[UsageDimension], zone: str) -> list[UsageRow]:
    groups: dict[tuple[tuple[str, ...], str], list[Cdr]] = defaultdict(list)
    for cdr in cdrs:
        keys = tuple(key_of(cdr, dimension, zone) for dimension in group_by)
        groups[keys, cdr.tenant.currency].append(cdr)
    return [
        UsageRow(
            keys=keys,
            currency=currency,
            billed=totals(members),
            corrected=totals([cdr for cdr in members if cdr.reversal is None]),
        )
        for (keys, currency), members in sorted(groups.items())
    ]


def totals(cdrs: Sequence[Cdr]) -> UsageTotals:
    cost = sum((Fraction(cdr.cost_e8 or 0, 10**8) for cdr in cdrs), Fraction(0))
    return UsageTotals(
        calls=len(cdrs),
        answered=sum(cdr.call.disposition.name == "ANSWERED" for cdr in cdrs),
        duration_seconds=sum(cdr.call.duration_seconds for cdr in cdrs),
        bill_seconds=sum(cdr.bill_seconds or 0 for cdr in cdrs),
        cost_e8=int(cost * 10**8),
        unrated=sum(cdr.status == RatingStatus.UNRATED for cdr in cdrs),
    )


def everything(world: World) -> list[Cdr]:
    return [cdr for part in world.cdrs.export(CdrFilter()) for cdr in part]


def upload_at(
    world: World, tenant_id: int, starts_ns: Iterable[int], extensions: Sequence[int] = (0,)
) -> None:
    """Calls of all kinds that start then."""
    for part in in_parts(random_calls(tenant_id, starts_ns, extensions), 10_000):
        assert world.commit(0, 0, part).created == len(part)


def random_calls(
    tenant_id: int, starts_ns: Iterable[int], extensions: Sequence[int], call_ids: str = ""
) -> list[Call]:
    draw = random.Random(7)
    return [
        call(
            tenant_id,
            draw.choice(["4420", "447811", "447911", "33", "anonymous"]),
            draw.choice([0, 1, 59, 60, 3600, 600_000_000]),
            direction=draw.choice([Direction.OUTBOUND, *Direction]),
            disposition=draw.choice([Disposition.ANSWERED, *Disposition]),
            started_at_ns=start_ns,
            extension_id=draw.choice(extensions),
            call_id=f"{call_ids}{index}",
        )
        for index, start_ns in enumerate(starts_ns)
    ]


# Instants around difficult changes of each zone.
ZONES = {
    "": "2026-03-01T00:00:00+00:00",
    "UTC": "2026-03-01T00:00:00+00:00",
    "Europe/Berlin": "2026-03-29T01:00:00+00:00",  # the hour that does not exist
    "Europe/Berlin ": "2026-10-25T01:00:00+00:00",  # the hour that occurs twice
    "Asia/Kathmandu": "2026-03-01T18:15:00+00:00",  # +05:45
    "Asia/Kathmandu ": "1985-12-31T18:30:00+00:00",  # when +05:30 became +05:45
    "America/St_Johns": "2006-10-29T02:31:00+00:00",  # clocks went back at one past midnight
    "Australia/Lord_Howe": "2026-04-04T15:00:00+00:00",  # half an hour of summer time
    "Pacific/Apia": "2011-12-30T10:00:00+00:00",  # the day that does not exist
    "America/Sao_Paulo": "2018-11-04T03:00:00+00:00",  # a day without a midnight
    "Africa/Monrovia": "1972-01-07T00:44:30+00:00",  # the offset was -00:44:30 until then
    "America/Recife": "2000-10-11T00:00:00+00:00",  # a summer time of one week
}


@pytest.mark.parametrize("zone", list(ZONES))
def test_local_days_hours_and_months(world: World, payer: int, zone: str) -> None:
    centre = int(datetime.fromisoformat(ZONES[zone]).timestamp())
    starts = [centre + step * 1800 for step in range(-60, 60)]
    starts += [centre + second for second in (1, -30, 30, 29, 31, 1799, -1801)]
    starts_ns = [start * SECOND_NS for start in starts]
    starts_ns += [centre * SECOND_NS + 1, centre * SECOND_NS - 1, (centre - 1) * SECOND_NS]
    upload_at(world, payer, starts_ns)
    cdrs = everything(world)
    for group_by in ([DAY], [HOUR], [MONTH], [MONTH, DAY, HOUR], [HOUR, DIRECTION]):
        query = UsageQuery(payer, group_by=tuple(group_by), time_zone=zone.strip())
        assert world.usage.summarize(query) == sums(cdrs, group_by, zone.strip()), group_by


@pytest.mark.parametrize("zone", ["Europe/London", "Africa/Monrovia"])
def test_the_first_and_the_last_moment_and_decades_between(
    world: World, payer: int, zone: str
) -> None:
    draw = random.Random(3)
    starts_ns = [0, 1, MAX_STARTED_AT_NS] + [draw.randrange(2**61) for _ in range(150)]
    upload_at(world, payer, starts_ns)
    cdrs = everything(world)
    for group_by in ([DAY], [HOUR], [MONTH]):
        query = UsageQuery(0, group_by=tuple(group_by), time_zone=zone)
        assert world.usage.summarize(query) == sums(cdrs, group_by, zone)


def test_no_zone_changes_twice_between_two_checks() -> None:
    """Usage checks the offset day by day. The zones' own lists of changes come from the
    interpreter's Python version of zoneinfo."""
    from zoneinfo import _zoneinfo  # type: ignore[attr-defined]

    for name in zoneinfo.available_timezones():
        zone = _zoneinfo.ZoneInfo(name)
        changes = [second for second in zone._trans_utc if second > -366 * 86_400]
        offsets = [info.utcoff for info in zone._ttinfos][-len(changes) :] if changes else []
        moved = [
            second
            for second, before, after in zip(changes[1:], offsets, offsets[1:], strict=False)
            if before != after
        ]
        gaps = [after - before for before, after in pairwise(moved)]
        assert min(gaps, default=10**9) > 6 * 86_400, name


def test_every_dimension_and_every_pair(world: World) -> None:
    payers = [payer_of(world), payer_of(world, currency="EUR"), payer_of(world)]
    for place, tenant_id in enumerate(payers):
        extensions = (0, world.extension(tenant_id, "1"), world.extension(tenant_id, "2"))
        starts_ns = [NOON_NS + place + step * 30_011 * SECOND_NS for step in range(70)]
        upload_at(world, tenant_id, starts_ns, extensions)
    cdrs = everything(world)
    wanted: list[Sequence[UsageDimension]] = [(), *((one,) for one in UsageDimension)]
    wanted += [*combinations(UsageDimension, 2), *list(combinations(UsageDimension, 3))[::7]]
    wanted += [tuple(UsageDimension), tuple(reversed(UsageDimension))]
    for group_by in wanted:
        query = UsageQuery(group_by=tuple(group_by), time_zone="America/St_Johns")
        expected = sums(cdrs, group_by, "America/St_Johns")
        assert world.usage.summarize(query) == expected, group_by
    mine = [cdr for cdr in cdrs if cdr.call.tenant_id == payers[1]]
    query = UsageQuery(payers[1], group_by=(DAY, DESTINATION), time_zone="Asia/Tokyo")
    assert world.usage.summarize(query) == sums(mine, (DAY, DESTINATION), "Asia/Tokyo")


def test_random_corrections(world: World) -> None:
    """Calls of several tenants and currencies, some reversed (twice, concurrently, one by one and
    by upload), some priced late: the billed and the corrected sums equal those that Python
    computes."""
    draw = random.Random(11)
    payers = [payer_of(world), payer_of(world, currency="EUR"), payer_of(world, currency="JPY")]
    uploads = []
    for place, tenant_id in enumerate([*payers, *payers]):
        extensions = (0, *(world.extension(tenant_id, str(number)) for number in range(2)))
        starts_ns = [NOON_NS + place + step * 40_009 * SECOND_NS for step in range(40)]
        before = len(world.rows())
        records = random_calls(tenant_id, starts_ns, extensions, f"u{place}-")
        uploads.append(world.commit(0, 0, records).upload_id)
        assert len(world.rows()) == before + 40
    # A day, and a destination of a tenant, with all CDRs reversed.
    alone = world.cdrs.create(
        call(payers[1], "447911", 60, call_id="alone", started_at_ns=NOON_NS - 10**16)
    )
    why = ReversalRequest("drawn", "the test")
    for number in range(6):
        if number == 2:
            world.rate(payers[0], "33", 77, 7, destination="France")
        if number in (2, 4):
            world.cdrs.rate_unrated(0, None, None)
        if number == 3:
            at_once(*[lambda: world.reversals.reverse_upload(uploads[4], why)] * 2)
        chosen = [*draw.sample([row.id for row in world.rows()], 12), alone.id]
        outcomes = at_once(
            *(
                lambda cdr_id=cdr_id: world.reversals.reverse_cdr(cdr_id, why)
                for cdr_id in [*chosen, *chosen[:3]]
            )
        )
        assert not [one for one in outcomes if isinstance(one, Exception)], outcomes
        billed_and_corrected_are_what_they_should_be(world, payers, draw)
    assert sum(row.status == RatingStatus.UNRATED for row in world.rows()) > 0


def billed_and_corrected_are_what_they_should_be(
    world: World, payers: Sequence[int], draw: random.Random
) -> None:
    cdrs = everything(world)
    wanted: list[Sequence[UsageDimension]] = [(), *((one,) for one in UsageDimension)]
    wanted += draw.sample(list(combinations(UsageDimension, 3)), 4)
    for group_by in wanted:
        zone = draw.choice(["", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"])
        after_ns = draw.choice([None, NOON_NS + draw.randrange(10**15)])
        before_ns = draw.choice([None, NOON_NS + 10**15 + draw.randrange(10**15)])
        tenant_id = draw.choice([0, 0, *payers])
        found = world.usage.summarize(
            UsageQuery(tenant_id, after_ns, before_ns, tuple(group_by), zone)
        )
        counted = [
            cdr
            for cdr in cdrs
            if tenant_id in (0, cdr.call.tenant_id)
            and (after_ns is None or cdr.call.started_at_ns >= after_ns)
            and (before_ns is None or cdr.call.started_at_ns < before_ns)
        ]
        assert found == sums(counted, group_by, zone), (group_by, tenant_id, zone)


def test_a_group_whose_only_cdrs_are_reversed(world: World, payer: int) -> None:
    records = calls(payer, 0, 3)
    cdrs = [world.cdrs.create(one) for one in records]
    for cdr in cdrs:
        world.reversals.reverse_cdr(cdr.id, ReversalRequest("r", "b"))
    for group_by in ((), (DAY,), (DESTINATION, HOUR)):
        query = UsageQuery(payer, group_by=group_by, time_zone="Europe/Berlin")
        [row] = world.usage.summarize(query)
        assert (row.billed.calls, row.currency) == (3, "USD")
        assert row.corrected == UsageTotals(0, 0, 0, 0, 0, 0)


def test_the_period_begins_with_its_start_and_ends_before_its_end(world: World, payer: int) -> None:
    world.commit(0, 0, calls(payer, 0, 10))
    for after, before, expected in [
        (NOON_NS + 2, NOON_NS + 5, 3),
        (NOON_NS + 9, None, 1),
        (None, NOON_NS + 1, 1),
        (-(10**20), 10**21, 10),
    ]:
        for zone in ("", "Europe/Berlin"):
            query = UsageQuery(payer, after, before, (DAY,), zone)
            [row] = world.usage.summarize(query)
            assert row.billed.calls == expected


def test_sums_beyond_64_bits_are_exact(world: World) -> None:
    tenant_id = world.tenant()
    world.rate(tenant_id, "4", 99_999_999_9999, 60, connect_fee_e8=999_9999_0000)
    records = calls(tenant_id, 0, 10_000, number="44", seconds=600_000_000)
    world.commit(0, 0, records)
    odd = call(tenant_id, "44", 1, call_id="odd")
    cost_e8 = world.cdrs.create(odd).cost_e8
    assert cost_e8 == 99_999_999_9999_0000 + 999_9999_0000
    for group_by in ((), (DESTINATION,), (DAY, TENANT)):
        [row] = world.usage.summarize(UsageQuery(group_by=group_by))
        assert row.billed.cost_e8 == 10_000 * MAX_COST_E8 + cost_e8
        assert row.billed.duration_seconds == 10_000 * 600_000_000 + 1
        assert row.billed.bill_seconds == 10_000 * 600_000_000 + 60


def test_no_calls_are_a_row_of_zeros_or_no_group(world: World) -> None:
    tenant_id = world.tenant(currency="EUR")
    nothing = UsageTotals(0, 0, 0, 0, 0, 0)
    with pytest.raises(NotFound, match=r"no tenant 1000000000$"):
        world.usage.summarize(UsageQuery(10**9))
    for asked, currency in ((tenant_id, "EUR"), (0, "")):
        [row] = world.usage.summarize(UsageQuery(asked))
        assert row == UsageRow((), currency, nothing, nothing)
        for zone in ("", "Europe/Berlin"):
            assert world.usage.summarize(UsageQuery(asked, group_by=(DAY,), time_zone=zone)) == []


def test_the_destination_is_that_of_the_rate_as_it_was(world: World) -> None:
    tenant_id = world.tenant()
    rate = world.rate(tenant_id, "44", destination="Old")
    world.cdrs.create(call(tenant_id, call_id="a"))
    world.rates.delete(rate.id, "")
    world.rate(tenant_id, "44", destination="New")
    world.cdrs.create(call(tenant_id, call_id="b"))
    world.cdrs.create(call(tenant_id, "33", call_id="c"))
    rows = world.usage.summarize(UsageQuery(group_by=(DESTINATION,)))
    assert [row.keys for row in rows] == [("",), ("New",), ("Old",)]
    assert [row.billed.calls for row in rows] == [1, 1, 1]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": -1}, "tenant_id"),
        ({"started_after_ns": 1, "started_before_ns": 0}, "started_before"),
        ({"group_by": (DAY, DAY)}, "group_by"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": "/etc/localtime"}, "time_zone"),
        ({"time_zone": "Europe"}, "time_zone"),
        ({"time_zone": "Europe/Berlin\0"}, "time_zone"),
        ({"time_zone": "é" * 5000}, "time_zone"),
    ],
)
def test_summaries_that_are_refused(world: World, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as failure:
        world.usage.summarize(UsageQuery(**fields))
    assert [wrong.field for wrong in failure.value.violations] == [field]
