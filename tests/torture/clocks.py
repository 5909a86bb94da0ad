"""The server's clock jumps back and forth during four uploads with calls at unusual times.

Calls of last year, of tomorrow, of the first possible second, before and after changes for daylight
saving, of no duration and of the longest: each is recorded once, at the right cost, and is in the
day and the hour of the summary that an independent calendar computes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

from tests.integration.client import NOON_NS, SECOND_NS, Client, chunk, make_call, nanoseconds
from tests.integration.serving import REPOSITORY
from tests.oracle import show
from tests.torture.callfiles import Prices, Totals, new_tenant
from tests.torture.counting import count, exported, verify
from tests.torture.kills import check_senders, settle, started_senders
from tests.torture.service import patient, service
from tests.torture.stage import Stage
from tests.torture.tally import Tally
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

CLOCK = Path(__file__).parent / "jumping_clock"
DAY = timedelta(days=1)
LONGEST_SECONDS = 2**31 - 1
# The last second in which a call may start.
LAST_SECOND = (2**63 - 1) // SECOND_NS - 1  # before 2262-04-11T23:47:16Z
# Zones and instants at which their clocks change: by an hour each way, and by half of one.
CHANGES = (
    ("Europe/Berlin", "2026-03-29T01:00:00+00:00"),
    ("Europe/Berlin", "2026-10-25T01:00:00+00:00"),
    ("America/St_Johns", "2026-11-01T04:30:00+00:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00+00:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00+00:00"),
)
# Least distance between the earliest and the latest created_at: otherwise the clock never jumped.
LEAST_YEARS = 20


def run(stage: Stage) -> Tally:
    tally = stage.tally("clocks set back and forth")
    paths = (CLOCK, REPOSITORY, REPOSITORY / "proto")
    clock = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "TORTURE_CLOCK_SEED": f"{stage.seed}/{stage.kind}",
    }
    with service(stage.new_database(), stage.workers, **clock) as server:
        with patient(server.address) as client:
            tenant, odd_tenant = new_tenant(client), new_tenant(client)
            threads = started_senders(stage, server.address, tenant.id, stage.size.clock_files)
            _odd_calls(tally, client, odd_tenant)
            for thread in threads:
                thread.finish()
            senders = [thread.sender for thread in threads]
            check_senders(tally, client, senders, tenant.id, Prices(tenant))
            tally.require(not sum(one.breaks for one in senders), "an upload was broken off")
            tally.more["years between created_at"] = _years(client, tenant.id)
            tally.require(_years(client, tenant.id) >= LEAST_YEARS, "the clock did not jump")
            verify(tally, client, clock_was_set_back=True)
        settle(tally, server)
    return tally


def _years(client: Client, tenant_id: int) -> int:
    times = [cdr.created_at.seconds for cdr in exported(client, tenant_id=tenant_id)]
    return (max(times) - min(times)) // (366 * 86_400)


def _odd_calls(tally: Tally, client: Client, tenant: types.Tenant) -> None:
    good = [*_at_odd_times(tenant.id), *_around_changes(tenant.id)]
    bad = list(_impossible(tenant.id))
    sent = [*good, *bad]
    [answer] = client.upload(chunk(sent))
    found, expected = Totals.of(answer), Totals(created=len(good), rejected=len(bad))
    tally.require(found == expected, f"of calls at odd times {found}; expected {expected}")
    recorded = {call.caller_number: _with_duration(call) for call in good}
    prices = Prices(tenant)
    tally.sent += len(sent)
    tally.acknowledged += len(sent)
    count(tally, client, tenant.id, recorded, recorded, prices)
    for zone in sorted({zone for zone, _ in CHANGES}):
        _compare_usage(tally, client, tenant.id, zone, recorded.values(), prices)


def _at_odd_times(tenant_id: int) -> Iterator[types.Call]:
    now = datetime.now(UTC)
    starts = (0, 1, LAST_SECOND, *(int((now + n * DAY).timestamp()) for n in (-366, 0, 1)))
    for start, seconds in itertools.product(starts, (0, 1, LONGEST_SECONDS)):
        yield make_call(
            tenant_id,
            duration_seconds=seconds,
            started_at=start * SECOND_NS,
            caller_number=f"odd {start} {seconds}",
        )


def _around_changes(tenant_id: int) -> Iterator[types.Call]:
    """A call every ten minutes, for hours before and after; every other one has an end and no
    duration."""
    for zone, at in CHANGES:
        change = int(datetime.fromisoformat(at).timestamp())
        for minutes in range(-180, 190, 10):
            start = (change + 60 * minutes) * SECOND_NS
            seconds = 3_600 + minutes
            told = minutes % 20 == 0
            yield make_call(
                tenant_id,
                duration_seconds=seconds if told else None,
                started_at=start,
                ended_at=start + seconds * SECOND_NS,
                caller_number=f"{zone} {at} {minutes}",
            )


def _impossible(tenant_id: int) -> Iterator[types.Call]:
    yield make_call(tenant_id, started_at=NOON_NS, ended_at=NOON_NS - 1, caller_number="ended")
    yield make_call(tenant_id, duration_seconds=LONGEST_SECONDS + 1 - 2**32, caller_number="long")
    yield make_call(tenant_id, started_at=-1, caller_number="before the first second")
    yield make_call(tenant_id, started_at=(LAST_SECOND + 1) * SECOND_NS, caller_number="late")


def _with_duration(call: types.Call) -> types.Call:
    """As it will be recorded."""
    recorded = types.Call()
    recorded.CopyFrom(call)
    if not call.HasField("duration_seconds"):
        recorded.duration_seconds = (
            nanoseconds(call.ended_at) - nanoseconds(call.started_at)
        ) // SECOND_NS
    return recorded


def _compare_usage(
    tally: Tally,
    client: Client,
    tenant_id: int,
    zone: str,
    calls: object,
    prices: Prices,
) -> None:
    """Compare the summary by days and hours of a zone with one made by Python's calendar."""
    dimensions = (types.USAGE_DIMENSION_DAY, types.USAGE_DIMENSION_HOUR)
    for dimension, keyed in zip(dimensions, (_day, _hour), strict=True):
        expected: dict[str, list[Fraction]] = {}
        for call in calls:  # type: ignore[attr-defined]
            key = keyed(call, ZoneInfo(zone))
            _, _, bill_seconds, cost = prices.outcome(call)
            row = expected.setdefault(key, [Fraction(0)] * 4)
            added = (1, call.duration_seconds, bill_seconds, Fraction(cost))
            expected[key] = [old + new for old, new in zip(row, added, strict=True)]
        request = cdr_pb.SummarizeUsageRequest(
            tenant_id=tenant_id, group_by=[dimension], time_zone=zone
        )
        found = {
            row.keys[0]: (row.calls, row.duration_seconds, row.bill_seconds, row.cost)
            for row in client.cdrs.SummarizeUsage(request).rows
        }
        wanted = {key: (*row[:3], show(row[3])) for key, row in expected.items()}
        for key in sorted(found.keys() | wanted.keys()):
            if found.get(key) != wanted.get(key):
                tally.wrong += 1
                tally.problem(f"{zone} {key}: {found.get(key)}, expected {wanted.get(key)}")


def _day(call: types.Call, zone: ZoneInfo) -> str:
    return f"{_local(call, zone):%Y-%m-%d}"


def _hour(call: types.Call, zone: ZoneInfo) -> str:
    local = _local(call, zone)
    return (
        local.replace(minute=0, second=0).isoformat(timespec="minutes")[:16]
        + local.isoformat()[-6:]
    )


def _local(call: types.Call, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(call.started_at.seconds, zone)
