"""SummarizeUsage against an independent summation: call by call, with zoneinfo and Decimal."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.integration.client import (
    ANSWERED,
    INBOUND,
    NOON_SECONDS,
    OUTBOUND,
    SECOND_NS,
    UNRATED,
    Client,
    chunk,
    invalid,
    make_call,
    timestamp,
)
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

TENANT = types.USAGE_DIMENSION_TENANT
EXTENSION = types.USAGE_DIMENSION_EXTENSION
DESTINATION = types.USAGE_DIMENSION_DESTINATION
DIRECTION = types.USAGE_DIMENSION_DIRECTION
DISPOSITION = types.USAGE_DIMENSION_DISPOSITION
DAY = types.USAGE_DIMENSION_DAY
HOUR = types.USAGE_DIMENSION_HOUR
MONTH = types.USAGE_DIMENSION_MONTH
UNRATED_REASON = types.USAGE_DIMENSION_UNRATED_REASON
ALL = [TENANT, EXTENSION, DESTINATION, DIRECTION, DISPOSITION, DAY, HOUR, MONTH, UNRATED_REASON]

Row = tuple[tuple[str, ...], int, int, int, int, str, int, str]


def summarize(client: Client, **fields: Any) -> list[Row]:
    answer = client.cdrs.SummarizeUsage(cdr_pb.SummarizeUsageRequest(**fields))
    return [
        (
            tuple(row.keys),
            row.calls,
            row.answered,
            row.duration_seconds,
            row.bill_seconds,
            row.cost,
            row.unrated,
            row.currency,
        )
        for row in answer.rows
    ]


def key_of(cdr: types.Cdr, dimension: int, zone: str) -> str:
    utc = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=cdr.started_at.seconds)
    local = utc.astimezone(ZoneInfo(zone or "UTC"))
    if dimension == TENANT:
        return str(cdr.tenant_id)
    if dimension == EXTENSION:
        return str(cdr.extension_id) if cdr.extension_id else ""
    if dimension == DESTINATION:
        return cdr.rate.destination if cdr.HasField("rate") else ""
    if dimension == DIRECTION:
        return types.Direction.Name(cdr.direction).removeprefix("DIRECTION_")
    if dimension == DISPOSITION:
        return types.Disposition.Name(cdr.disposition).removeprefix("DISPOSITION_")
    if dimension == UNRATED_REASON:
        name = types.UnratedReason.Name(cdr.unrated_reason)
        return name.removeprefix("UNRATED_REASON_").replace("UNSPECIFIED", "")
    if dimension == DAY:
        return local.strftime("%Y-%m-%d")
    if dimension == MONTH:
        return local.strftime("%Y-%m")
    assert dimension == HOUR
    offset = local.isoformat()[len("2026-10-25T02:00:00") :]
    return f"{local:%Y-%m-%dT%H}:00{offset}"


def sums(cdrs: Iterable[types.Cdr], group_by: Sequence[int], zone: str) -> list[Row]:
    groups: dict[tuple[tuple[str, ...], str], list[types.Cdr]] = defaultdict(list)
    for cdr in cdrs:
        keys = tuple(key_of(cdr, dimension, zone) for dimension in group_by)
        groups[keys, cdr.tenant.currency].append(cdr)
    rows: list[Row] = []
    for (keys, currency), members in sorted(groups.items()):
        cost = sum((Decimal(cdr.cost) for cdr in members if cdr.HasField("cost")), Decimal(0))
        rows.append(
            (
                keys,
                len(members),
                sum(cdr.disposition == ANSWERED for cdr in members),
                sum(cdr.duration_seconds for cdr in members),
                sum(cdr.bill_seconds for cdr in members),
                f"{cost:.4f}",
                sum(cdr.status == UNRATED for cdr in members),
                currency,
            )
        )
    return rows


def seconds_of(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def upload_at(client: Client, tenant_id: int, starts: Iterable[int], **fields: Any) -> None:
    """Calls of all kinds at the given moments, in seconds."""
    random_of = random.Random(7)
    calls = []
    for index, start in enumerate(starts):
        calls.append(
            make_call(
                tenant_id,
                random_of.choice(["4420", "447911", "33", "anonymous"]),
                random_of.randrange(500),
                direction=random_of.choice([OUTBOUND, OUTBOUND, INBOUND]),
                disposition=random_of.choice([ANSWERED, ANSWERED, *types.Disposition.values()[1:]]),
                started_at=start * SECOND_NS + random_of.choice([0, 1, 999_999_999]),
                call_id=str(index),
                **fields,
            )
        )
    for at in range(0, len(calls), 10_000):
        [answer] = client.upload(chunk(calls[at : at + 10_000]))
        assert answer.created == len(calls[at : at + 10_000])


@pytest.fixture
def payer(client: Client, tenant: types.Tenant) -> int:
    client.new_rate(tenant.id, "44", "0.0217", 6, destination="UK")
    client.new_rate(tenant.id, "447", "0.1533", 1, destination="UK mobile")
    return tenant.id


# Instants around difficult changes of zones.
ZONES = {
    "": "2026-03-01T00:00:00+00:00",
    "UTC": "2026-03-01T00:00:00+00:00",
    "Europe/Berlin": "2026-03-29T01:00:00+00:00",  # the hour that does not exist
    "Europe/Berlin ": "2026-10-25T01:00:00+00:00",  # the hour that occurs twice
    "Asia/Kolkata": "2026-03-01T18:30:00+00:00",  # half an hour
    "Asia/Kathmandu": "2026-03-01T18:15:00+00:00",  # three quarters
    "America/St_Johns": "2026-03-08T05:30:00+00:00",
    "America/St_Johns ": "2026-11-01T04:30:00+00:00",
    "Australia/Lord_Howe": "2026-04-04T15:00:00+00:00",  # half an hour of summer time
    "Pacific/Apia": "2011-12-30T10:00:00+00:00",  # the day that does not exist
    "Pacific/Kiritimati": "2026-03-01T10:00:00+00:00",  # +14
    "America/Sao_Paulo": "2018-11-04T03:00:00+00:00",  # a day without a midnight
    "Africa/Monrovia": "1972-01-07T00:44:30+00:00",  # the offset was -00:44:30 until then
    "Europe/London": "1971-10-31T02:00:00+00:00",  # the end of British Standard Time
}


@pytest.mark.parametrize("zone", list(ZONES))
def test_local_days_hours_and_months(client: Client, payer: int, zone: str) -> None:
    centre = seconds_of(ZONES[zone])
    # Every 15 minutes over three days around the change, and the seconds on both sides of it.
    starts = [centre + step * 900 for step in range(-144, 144)]
    starts += [centre + second for second in (-1, 1, -30, 30, 29, 31, -1800, 1800, 1799, -1801)]
    starts += [centre + step * 3601 for step in range(-40, 40)]
    upload_at(client, payer, starts)
    cdrs = client.list_cdrs(tenant_id=payer, page_size=1000)
    assert len(cdrs) == len(starts)
    for group_by in ([DAY], [HOUR], [MONTH], [MONTH, DAY, HOUR], [HOUR, DIRECTION]):
        found = summarize(client, tenant_id=payer, group_by=group_by, time_zone=zone.strip())
        assert found == sums(cdrs, group_by, zone.strip())


def test_the_hour_that_occurs_twice_has_two_keys(client: Client, payer: int) -> None:
    start = seconds_of("2026-10-25T00:30:00+00:00")
    upload_at(client, payer, [start, start + 3600])
    rows = summarize(client, tenant_id=payer, group_by=[HOUR], time_zone="Europe/Berlin")
    assert [row[0] for row in rows] == [("2026-10-25T02:00+01:00",), ("2026-10-25T02:00+02:00",)]


def test_every_dimension_and_every_pair(client: Client, payer: int) -> None:
    extension = client.new_extension(payer)
    upload_at(client, payer, [NOON_SECONDS + step * 3001 for step in range(60)])
    again = [NOON_SECONDS + 5 + step * 3001 for step in range(60)]
    upload_at(client, client.new_tenant().id, again)
    calls = [
        make_call(
            payer,
            "4420",
            index,
            extension_id=extension.id,
            call_id=f"x{index}",
            started_at=(NOON_SECONDS + index) * SECOND_NS,
        )
        for index in range(20)
    ]
    client.upload(chunk(calls))
    cdrs = client.list_cdrs(tenant_id=payer, page_size=1000)
    assert len(cdrs) == 80
    wanted: list[list[int]] = [[one] for one in ALL]
    wanted += [list(pair) for pair in combinations(ALL, 2)]
    wanted += [[HOUR, TENANT], ALL, ALL[::-1], []]
    for group_by in wanted:
        found = summarize(client, tenant_id=payer, group_by=group_by, time_zone="America/St_Johns")
        assert found == sums(cdrs, group_by, "America/St_Johns"), group_by


def test_the_window_is_half_open(client: Client, payer: int) -> None:
    upload_at(client, payer, [NOON_SECONDS + step for step in range(10)])
    cdrs = client.list_cdrs(tenant_id=payer)
    times = sorted(cdr.started_at.ToNanoseconds() for cdr in cdrs)
    for after, before in [(times[2], times[7]), (times[2] + 1, times[7] + 1), (times[5], times[5])]:
        inside = [cdr for cdr in cdrs if after <= cdr.started_at.ToNanoseconds() < before]
        found = summarize(
            client,
            tenant_id=payer,
            started_after=timestamp(after),
            started_before=timestamp(before),
            group_by=[DISPOSITION],
        )
        assert found == sums(inside, [DISPOSITION], "")


def test_money_of_two_currencies_is_never_added(client: Client) -> None:
    euro, dollar, dollar_too = (client.new_tenant(currency=code) for code in ("EUR", "USD", "USD"))
    # A day of their own, so that a summary over all tenants has only these.
    start = seconds_of("2200-01-01T00:00:00+00:00") + dollar_too.id * 86_400
    for tenant, price in [(euro, "1"), (dollar, "2"), (dollar_too, "4")]:
        client.new_rate(tenant.id, "44", price)
        client.create_cdr(make_call(tenant.id, started_at=start * SECOND_NS))
    window = {
        "started_after": timestamp(start * SECOND_NS),
        "started_before": timestamp((start + 1) * SECOND_NS),
    }
    rows = summarize(client, group_by=[DIRECTION], **window)
    assert [(row[0], row[1], row[5], row[7]) for row in rows] == [
        (("OUTBOUND",), 1, "1.0000", "EUR"),
        (("OUTBOUND",), 2, "6.0000", "USD"),
    ]
    by_tenant = summarize(client, group_by=[TENANT], **window)
    assert sorted((row[0][0], row[5], row[7]) for row in by_tenant) == sorted(
        [
            (str(euro.id), "1.0000", "EUR"),
            (str(dollar.id), "2.0000", "USD"),
            (str(dollar_too.id), "4.0000", "USD"),
        ]
    )


def test_sums_beyond_64_bits_are_exact(client: Client, tenant: types.Tenant) -> None:
    client.new_rate(tenant.id, "4", "99999999.9999", 60, connect_fee="999.9999")
    calls = [make_call(tenant.id, "44", 600_000_000, call_id=str(index)) for index in range(37)]
    client.upload(chunk(calls))
    [row] = summarize(client, tenant_id=tenant.id)
    assert row[5] == "36999999999999999.9963"
    assert row[3] == 37 * 600_000_000
    assert row[4] == 37 * 600_000_000


def test_the_destination_is_that_of_the_rate_that_priced_the_call(
    client: Client, tenant: types.Tenant
) -> None:
    rate = client.new_rate(tenant.id, "44", destination="Old name")
    client.create_cdr(make_call(tenant.id, call_id="a"))
    rate.destination = "New name"
    client.update_rate(rate)
    client.create_cdr(make_call(tenant.id, call_id="b"))
    rows = summarize(client, tenant_id=tenant.id, group_by=[DESTINATION])
    assert [(row[0], row[1]) for row in rows] == [(("New name",), 1), (("Old name",), 1)]


def test_no_calls_are_one_row_of_zeros_or_no_group(client: Client, tenant: types.Tenant) -> None:
    [row] = summarize(client, tenant_id=tenant.id)
    assert row[:7] == ((), 0, 0, 0, 0, "0.0000", 0)
    assert summarize(client, tenant_id=tenant.id, group_by=[DAY]) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": -1}, "tenant_id"),
        ({"group_by": [0]}, "group_by"),
        ({"group_by": [10]}, "group_by"),
        ({"group_by": [-1]}, "group_by"),
        ({"group_by": [DAY, DAY]}, "group_by"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": "/etc/localtime"}, "time_zone"),
        ({"time_zone": "Europe"}, "time_zone"),
        # Names in the zone data that are no zones.
        *[
            ({"time_zone": name}, "time_zone")
            for name in (
                *("localtime", "Factory", "posixrules", "posix/UTC", "right/UTC", "leapseconds"),
                *("UTC ", " UTC", "utc", "europe/berlin", "EUROPE/BERLIN", "zone.tab", "Local"),
            )
        ],
        ({"time_zone": "Europe/Berlin\x00"}, "time_zone"),
        ({"time_zone": "Europe/Berlin" * 100}, "time_zone"),
        ({"time_zone": "europe/berlin/"}, "time_zone"),
        ({"time_zone": "tzdata.zi"}, "time_zone"),
        ({"time_zone": " "}, "time_zone"),
        ({"time_zone": "."}, "time_zone"),
    ],
)
def test_a_summary_that_is_refused(client: Client, fields: dict[str, Any], field: str) -> None:
    with invalid(field):
        client.cdrs.SummarizeUsage(cdr_pb.SummarizeUsageRequest(**fields))
