"""Verification: recorded CDRs verify, and manual changes are found.

The attacker owns the database: triggers and constraints are removed here before a row is changed.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import psycopg
import pytest

from tests.world import NOON_NS, SECOND_NS, World, call, calls
from tollwire.service.domain.errors import InvalidInput, NotFound, Reason
from tollwire.service.domain.model import Direction, Disposition, Interval, Rate, Rounding, Tenant
from tollwire.service.domain.record_model import (
    CdrDifference,
    VerificationFilter,
    VerificationProgress,
)
from tollwire.service.record import verification as module
from tollwire.service.record.verification import Verification
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import triggers

EVERYTHING = VerificationFilter()


@pytest.fixture
def payer(world: World) -> int:
    tenant_id = world.tenant(country_code="44", national_prefix="0", international_prefix="00")
    world.rate(tenant_id, "44", 200, 6)
    return tenant_id


def verified(world: World, wanted: VerificationFilter = EVERYTHING) -> list[VerificationProgress]:
    said = list(Verification(world.database).verify(wanted))
    assert [one.done for one in said] == [False] * (len(said) - 1) + [True]
    return said


def totals(world: World, wanted: VerificationFilter = EVERYTHING) -> tuple[int, int]:
    """checked, different"""
    last = verified(world, wanted)[-1]
    return last.checked, last.different


def found(world: World) -> list[CdrDifference]:
    return [one for said in verified(world) for one in said.differences]


def fields_found(world: World) -> list[tuple[int, str, str, str]]:
    """cdr_id, field, stored, recomputed"""
    return [(one.cdr_id, one.field, one.stored, one.recomputed) for one in found(world)]


def firsts(world: World) -> dict[int, tuple[str, str, str]]:
    """The first difference of each CDR: field, stored, recomputed. The others are of its cost."""
    first: dict[int, tuple[str, str, str]] = {}
    for cdr_id, *difference in fields_found(world):
        if first.setdefault(cdr_id, tuple(difference)) != tuple(difference):
            assert difference[0] == "cost"
    return first


class Owner:
    """An attacker without triggers and constraints."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.write() as connection:
            triggers.drop(connection)
        if not database.is_sqlite:
            self._drop_constraints("cdrs", "rate_versions", "tenant_versions")

    def _drop_constraints(self, *tables: str) -> None:
        with self._database.write() as connection:
            for table in tables:
                checks = connection.exec_driver_sql(
                    "SELECT conname FROM pg_constraint"
                    f" WHERE conrelid = '{table}'::regclass AND contype = 'c'"
                )
                for name in checks.scalars().all():
                    connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
            for column in ("destination_number", "created_at_ns"):
                connection.exec_driver_sql(f"ALTER TABLE cdrs ALTER {column} DROP NOT NULL")

    def execute(self, *statements: str) -> None:
        """Each statement changes something."""
        with self._connected() as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount > 0, statement

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        if self._database.is_sqlite:
            path = self._database.engine.url.database
            assert path is not None
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("PRAGMA ignore_check_constraints = ON")
                yield connection
        else:
            url = self._database.engine.url.render_as_string(hide_password=False)
            with psycopg.connect(url.replace("+psycopg", "")) as remote:
                yield remote


@pytest.fixture
def owner(database: Database) -> Owner:
    return Owner(database)


# Recorded CDRs.


def test_recorded_cdrs_verify(world: World, payer: int) -> None:
    world.rate(payer, "4490", blocked=True)
    other = world.tenant(rounding=Rounding.UP)
    world.rate(other, "", 1, 1, connect_fee_e8=7_0000, minimum_seconds=30)
    made = [
        call(
            tenant_id,
            number,
            seconds,
            direction=direction,
            disposition=disposition,
            call_id=str(at),
        )
        for at, (tenant_id, number, seconds, direction, disposition) in enumerate(
            product(
                (payer, other),
                ("447911123456", "07911 123456", "0049 30", "449012", "nobody", ""),
                (0, 1, 7, 2_147_483_647),
                Direction,
                (Disposition.ANSWERED, Disposition.BUSY),
            )
        )
    ]
    assert world.commit(0, 0, made).created == len(made)
    assert totals(world) == (len(made), 0)
    assert totals(world, VerificationFilter(tenant_id=other)) == (len(made) // 2, 0)


def test_nothing_is_recorded(world: World) -> None:
    assert totals(world) == (0, 0)


def test_cdrs_verify_after_changes_of_the_rates(world: World, payer: int) -> None:
    rate = world.rate(
        payer,
        "447",
        1500,
        60,
        intervals=(Interval(60, 700, 1), Interval(90, 300, 30)),
        effective_from_ns=NOON_NS,
        effective_to_ns=NOON_NS + SECOND_NS,
    )
    for seconds in (1, 59, 60, 61, 89, 90, 91, 4000):
        for at_ns in (NOON_NS, NOON_NS + SECOND_NS - 1, NOON_NS + SECOND_NS):
            world.cdrs.create(call(payer, "07911", seconds, started_at_ns=at_ns))
    world.cdrs.create(call(payer, "1911", call_id="unrated"))
    everything = 8 * 3 + 1
    assert totals(world) == (everything, 0)

    world.rates.update(
        replace(rate, cost_per_minute_e8=9_0000), frozenset({"cost_per_minute_e8"}), ""
    )
    assert totals(world) == (everything, 0)
    world.rates.delete(rate.id, "")
    renamed = Tenant(id=payer, country_code="1", national_prefix="", rounding=Rounding.DOWN)
    world.tenants.update(renamed, frozenset({"country_code", "national_prefix", "rounding"}))
    assert totals(world) == (everything, 0)

    # A call without a rate is priced later, by the rates and rules of that time.
    world.rate(payer, "1", 333, 7)
    assert world.cdrs.rate_unrated(payer, None, None).rated == 1
    world.cdrs.create(call(payer, "07911", 61, call_id="last"))
    assert totals(world) == (everything + 1, 0)


def test_a_tenant_that_was_deleted_and_created_again(world: World) -> None:
    tenant_id = world.tenant(rounding=Rounding.UP, country_code="49", national_prefix="0")
    world.rate(tenant_id, "49", 1, 1)
    world.tenants.delete(tenant_id)
    assert world.tenant(id=tenant_id, rounding=Rounding.DOWN, international_prefix="0") == tenant_id
    world.rate(tenant_id, "49", 1, 1)
    world.cdrs.create(call(tenant_id, "049", 59))
    assert totals(world) == (1, 0)


def test_rates_that_change_meanwhile(
    world: World, payer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that are kept between the parts do not hide later changes."""
    monkeypatch.setattr(module, "PART_IDS", 1)
    rate = world.rate(payer, "447")
    world.cdrs.create(call(payer, "07911", call_id="a"))
    last = world.cdrs.create(call(payer, "07911", call_id="b"))
    steps = Verification(world.database)._parts(EVERYTHING, None, last.id + 1)
    assert len(next(steps)[0]) == 1
    world.rates.update(
        replace(rate, cost_per_minute_e8=1_0000), frozenset({"cost_per_minute_e8"}), ""
    )
    world.tenants.update(Tenant(id=payer, rounding=Rounding.UP), frozenset({"rounding"}))
    new = world.cdrs.create(call(payer, "07911", 1, call_id="c"))
    rest = list(steps)
    assert [list(rows.ids) for rows, _ in rest] == [[last.id], [new.id]]
    assert [list(module.differences(rows, kept)) for rows, kept in rest] == [[], []]


def test_while_uploads_run(world: World, payer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_IDS", 50)
    stop = threading.Event()
    sent: list[int] = []

    def upload() -> None:
        upload_id = offset = 0
        while not stop.is_set() and offset < 20_000:
            rates = world.rates.list(payer, "", 1, "").items
            world.rates.update(
                replace(rates[0], cost_per_minute_e8=offset % 1000),
                frozenset({"cost_per_minute_e8"}),
                "",
            )
            answer = world.commit(upload_id, offset, calls(payer, offset, 100))
            upload_id, offset = answer.upload_id, answer.committed_offset
            sent.append(offset)

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        checked = 0
        while checked < 1000 and thread.is_alive():
            before = sent[-1] if sent else 0
            checked, different = totals(world)
            assert different == 0
            assert checked >= before
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert totals(world) == (sent[-1], 0)


# The selection of CDRs.


def test_filters(world: World, payer: int, owner: Owner) -> None:
    other = world.tenant()
    first = world.commit(0, 0, calls(payer, 0, 5)).upload_id
    second = world.commit(0, 0, calls(payer, 5, 3)).upload_id
    world.cdrs.create(call(other, started_at_ns=NOON_NS + 6))
    owner.execute("UPDATE cdrs SET bill_seconds = 6 WHERE call_id IN ('c1', 'c7')")
    for wanted, expected in [
        (EVERYTHING, (9, 2)),
        (VerificationFilter(tenant_id=other), (1, 0)),
        (VerificationFilter(upload_id=first), (5, 1)),
        (VerificationFilter(upload_id=second), (3, 1)),
        (VerificationFilter(started_after_ns=NOON_NS + 2), (7, 1)),
        (VerificationFilter(started_before_ns=NOON_NS + 2), (2, 1)),
        (VerificationFilter(payer, NOON_NS + 1, NOON_NS + 7, first), (4, 1)),
        (VerificationFilter(started_after_ns=-1, started_before_ns=10**20), (9, 2)),
        (VerificationFilter(tenant_id=other, upload_id=first), (0, 0)),
    ]:
        assert totals(world, wanted) == expected, wanted


def test_an_upload_that_recorded_nothing(world: World, payer: int) -> None:
    world.commit(0, 0, calls(payer, 0, 2))
    again = world.commit(0, 0, calls(payer, 0, 2)).upload_id
    assert totals(world, VerificationFilter(upload_id=again)) == (0, 0)


def test_wrong_filters(world: World) -> None:
    check = Verification(world.database).verify
    with pytest.raises(InvalidInput) as wrong:
        check(VerificationFilter(-1, 5, 4, -1))
    assert [one.field for one in wrong.value.violations] == [
        "tenant_id",
        "upload_id",
        "started_before",
    ]
    for wanted, reason in [
        (VerificationFilter(tenant_id=77), Reason.TENANT_NOT_FOUND),
        (VerificationFilter(upload_id=77), Reason.UPLOAD_NOT_FOUND),
    ]:
        with pytest.raises(NotFound) as missing:
            check(wanted)
        assert missing.value.reason == reason


# Changes by hand.


RATED = [
    ("cost_fraction_e8 = 410000", ("cost", "0.0041", "0.0040")),
    ("cost_units = 1", ("cost", "1.0040", "0.0040")),
    ("cost_units = 99999999999999", ("cost", "99999999999999.0040", "0.0040")),
    ("bill_seconds = 13", ("bill_seconds", "13", "12")),
    ("duration_seconds = 0", ("bill_seconds", "12", "0")),
    ("destination_number = '4920'", ("destination_number", "4920", "")),
    ("destination_number = 'nobody'", ("destination_number", "nobody", "")),
    ("destination_number = '4'", ("destination_number", "4", "")),
    ("direction = 1", ("status", "RATED", "NOT_BILLABLE")),
    ("disposition = 3", ("status", "RATED", "NOT_BILLABLE")),
    ("started_at_ns = 5", ("started_at", "1970-01-01T00:00:00.000000005Z", "")),
    ("rate_version_id = 77", ("rate", "version 77", "")),
    ("rate_version_id = OTHER", ("rate", "version OTHER", "")),
    ("rate_version_id = BLOCKED", ("rate", "version BLOCKED", "")),
    ("rate_version_id = 0", ("rate", "0", "")),
    ("rate_version_id = NULL", ("rate", "NULL", "")),
    ("rate_revision = 1", ("rate_revision", "1", "")),
    ("rate_revision = 0", ("rate_revision", "0", "")),
    ("rate_revision = 99", ("rate_revision", "99", "")),
    ("rate_revision = -1", ("rate_revision", "-1", "")),
    ("tenant_id = 99", ("tenant_id", "99", "")),
    ("tenant_id = TENANT", ("rate", "version OWN", "")),
    ("tenant_id = -5", ("tenant_id", "-5", "")),
    ("status = 2", ("rate", "OWN", "")),
    ("status = 3", ("unrated_reason", "NULL", "")),
    ("status = 9", ("status", "9", "")),
    ("status = 2, rate_version_id = NULL", ("status", "NOT_BILLABLE", "RATED or UNRATED")),
    ("bill_seconds = NULL", ("bill_seconds", "NULL", "")),
    ("cost_units = -1", ("cost", "-1", "")),
    ("created_at_ns = -1", ("created_at", "-1", "")),
    ("call_id = ''", ("call_id", "", "")),
]


def test_rated_calls_that_were_changed(world: World, owner: Owner) -> None:
    tenant_id = world.tenant()
    own = world.rate(tenant_id, "44", 200, 6, effective_from_ns=SECOND_NS)
    other = world.tenant()
    world.rate(other, "44", 200, 6)
    ids = {
        "OTHER": world.rate(other, "44", 200, 6, effective_from_ns=SECOND_NS).version_id,
        "BLOCKED": world.rate(tenant_id, "442", blocked=True).version_id,
        "OWN": own.version_id,
        "TENANT": other,
    }
    expected = {}
    for at, (change, (field, stored, recomputed)) in enumerate(RATED):
        world.cdrs.create(call(tenant_id, "4411", call_id=f"fine{at}"))
        cdr = world.cdrs.create(call(tenant_id, "4410", call_id=f"it{at}"))
        for name, number in ids.items():
            change = change.replace(name, str(number))
            stored = stored.replace(name, str(number))
        owner.execute(f"UPDATE cdrs SET {change} WHERE id = {cdr.id}")
        expected[cdr.id] = (field, stored, recomputed)
    assert firsts(world) == expected
    assert totals(world) == (2 * len(RATED), len(RATED))


def test_cost_and_seconds_that_both_changed(world: World, payer: int, owner: Owner) -> None:
    cdr = world.cdrs.create(call(payer, "4410", call_id="it"))
    owner.execute("UPDATE cdrs SET bill_seconds = 60, cost_fraction_e8 = 2000000")
    assert found(world) == [
        CdrDifference(
            cdr.id, payer, "it", "bill_seconds", "60", "12", "the rate gives other bill seconds"
        ),
        CdrDifference(
            cdr.id, payer, "it", "cost", "0.0200", "0.0040", "the rate gives another cost"
        ),
    ]
    assert totals(world) == (1, 1)


_PRICE = (
    "unrated_reason = NULL, bill_seconds = 12, cost_units = 0, cost_fraction_e8 = 400000,"
    " rate_version_id = 1, status = 1"
)
UNRATED = [
    ("4920", _PRICE, ("destination_number", "4920", "")),
    ("4920", "unrated_reason = 3", ("unrated_reason", "INVALID_NUMBER", "NO_RATE or BLOCKED")),
    ("4920", "destination_number = '+'", ("destination_number", "+", "")),
    ("nobody", "unrated_reason = 1", ("destination_number", "nobody", "")),
    ("4920", "unrated_reason = NULL", ("unrated_reason", "NULL", "")),
    ("4920", "bill_seconds = 0", ("bill_seconds", "0", "")),
    ("4920", "direction = 3", ("status", "UNRATED", "NOT_BILLABLE")),
    ("4920", "tenant_id = 99", ("tenant_id", "99", "")),
]
FREE = [
    ("direction = 2", ("status", "NOT_BILLABLE", "RATED or UNRATED")),
    ("bill_seconds = 6", ("bill_seconds", "6", "0")),
    ("cost_fraction_e8 = 60000", ("cost", "0.0006", "0.0000")),
    (_PRICE, ("status", "RATED", "NOT_BILLABLE")),
    ("rate_revision = 99", ("rate_revision", "99", "")),
]


def test_calls_without_a_cost_that_were_changed(world: World, payer: int, owner: Owner) -> None:
    expected = {}
    for at, (number, change, what) in enumerate(UNRATED):
        cdr = world.cdrs.create(call(payer, number, call_id=f"unrated{at}"))
        assert cdr.cost_e8 is None
        owner.execute(f"UPDATE cdrs SET {change} WHERE id = {cdr.id}")
        expected[cdr.id] = what
    for at, (change, what) in enumerate(FREE):
        cdr = world.cdrs.create(call(payer, call_id=f"free{at}", direction=Direction.INBOUND))
        assert cdr.cost_e8 == 0
        owner.execute(f"UPDATE cdrs SET {change} WHERE id = {cdr.id}")
        expected[cdr.id] = what
    assert firsts(world) == expected


RATES_AND_RULES = [
    ("rate_versions", "cost_per_minute_e8 = 2010000", ("cost", "0.1667", "0.1675")),
    ("rate_versions", "billing_increment = 7", ("bill_seconds", "500", "504")),
    ("rate_versions", "connect_fee_e8 = 10000", ("cost", "0.1667", "0.1668")),
    ("rate_versions", "minimum_seconds = 501", ("bill_seconds", "500", "502")),
    ("rate_versions", "intervals = '[[60,10000,2]]'", ("cost", "0.1667", "0.0207")),
    ("rate_versions", "prefix = '45'", ("destination_number", "4420", "")),
    ("rate_versions", "blocked = TRUE", ("rate", "version ID", "")),
    ("rate_versions", "effective_from_s = 9000000000", ("started_at", "TIME", "")),
    ("rate_versions", "effective_to_s = 1", ("started_at", "TIME", "")),
    ("rate_versions", "created_revision = 3", ("rate_revision", "2", "")),
    ("rate_versions", "retired_revision = 2", ("rate_revision", "2", "")),
    ("rate_versions", "tenant_id = SPARE", ("rate", "version ID", "")),
    ("rate_versions", "version_id = SPARE", ("rate", "version ID", "")),
    ("rate_versions", "billing_increment = 0", ("rate", "version ID", "")),
    ("rate_versions", "cost_per_minute_e8 = -1", ("rate", "version ID", "")),
    ("rate_versions", "prefix = 'x'", ("rate", "version ID", "")),
    ("rate_versions", "intervals = '[[1]]'", ("rate", "version ID", "")),
    ("rate_versions", "intervals = '{'", ("rate", "version ID", "")),
    ("rate_versions", "intervals = '7'", ("rate", "version ID", "")),
    ("tenant_versions", "rounding = 4", ("cost", "0.1667", "0.1666")),
    ("tenant_versions", "cost_decimals = 6", ("cost", "0.166700", "0.166667")),
    ("tenant_versions", "rounding = 7", ("rate_revision", "2", "")),
    (
        "tenant_versions",
        "national_prefix = '44', country_code = '1'",
        ("destination_number", "4420", ""),
    ),
    ("tenant_versions", "country_code = 'x'", ("rate_revision", "2", "")),
    ("tenant_versions", "revision = 3", ("rate_revision", "2", "")),
    ("tenant_versions", "tenant_id = SPARE", ("tenant_id", "TENANT", "")),
    ("decks", "revision = 1", ("rate_revision", "2", "")),
    ("decks", "tenant_id = SPARE", ("tenant_id", "TENANT", "")),
]


def test_rates_and_rules_that_were_changed(world: World, owner: Owner) -> None:
    """Each of them for a tenant with one call."""
    expected = {}
    for at, (table, change, (field, stored, recomputed)) in enumerate(RATES_AND_RULES):
        tenant_id = world.tenant()
        rate = world.rate(tenant_id, "44", 200, 2)
        cdr = world.cdrs.create(call(tenant_id, "4420", 500))
        assert (cdr.bill_seconds, cdr.cost_e8, cdr.rate_revision) == (500, 1667_0000, 2)
        names = {
            "ID": str(rate.version_id),
            "TENANT": str(tenant_id),
            "TIME": "2026-03-02T10:00:00.000000000Z",
            "SPARE": str(10_000 + at),
        }
        for name, value in names.items():
            change = change.replace(name, value)
            stored = stored.replace(name, value)
        owner.execute(f"UPDATE {table} SET {change} WHERE tenant_id = {tenant_id}")
        expected[cdr.id] = (field, stored, recomputed)
    assert firsts(world) == expected


def test_a_rate_whose_cost_exceeds_the_limit(world: World, owner: Owner) -> None:
    tenant_id = world.tenant()
    world.rate(tenant_id, "44", 200, 6, connect_fee_e8=1_0000)
    cdr = world.cdrs.create(call(tenant_id, "44", 2_147_483_647))
    change = "cost_per_minute_e8 = 9999999999999999, intervals = '[[1,9999999999999999,86400]]'"
    owner.execute(f"UPDATE rate_versions SET {change}")
    ((cdr_id, field, stored, recomputed),) = fields_found(world)
    assert (cdr_id, field, recomputed) == (cdr.id, "cost", "")
    assert stored != "0.0000"


def test_values_of_other_types(database_url: str, world: World, payer: int, owner: Owner) -> None:
    """Only SQLite keeps any value in any column."""
    if not world.database.is_sqlite:
        pytest.skip("PostgreSQL's columns have types")
    first = world.cdrs.create(call(payer, call_id="a"))
    second = world.cdrs.create(call(payer, call_id="b"))
    third = world.cdrs.create(call(payer, call_id="c"))
    last = world.cdrs.create(call(payer, call_id="d"))
    owner.execute("UPDATE cdrs SET caller_number = CAST(x'34FF' AS TEXT) WHERE call_id = 'a'")
    owner.execute("UPDATE cdrs SET cost_units = 'much' WHERE call_id = 'b'")
    owner.execute("UPDATE cdrs SET bill_seconds = 12.5 WHERE call_id = 'c'")
    assert fields_found(world) == [
        (first.id, "caller_number", "4?", ""),
        (second.id, "cost", "much", ""),
        (third.id, "bill_seconds", "12.5", ""),
    ]
    owner.execute("UPDATE rate_versions SET effective_from_s = 'soon'")
    assert (last.id, "rate", f"version {world_rate(last)}", "") in fields_found(world)
    assert totals(world) == (4, 4)


def world_rate(cdr: Any) -> int:
    rate: Rate = cdr.rate
    return rate.version_id


def test_ids_outside_the_range(world: World, payer: int, owner: Owner) -> None:
    cdrs = [world.cdrs.create(call(payer, call_id=str(index))) for index in range(3)]
    owner.execute(f"UPDATE cdrs SET id = -9000000000 WHERE id = {cdrs[0].id}")
    owner.execute(f"UPDATE cdrs SET id = 9000000000000000000 WHERE id = {cdrs[2].id}")
    owner.execute("UPDATE cdrs SET cost_fraction_e8 = 1")
    assert [one.cdr_id for one in found(world)] == [
        -9_000_000_000,
        cdrs[1].id,
        9_000_000_000_000_000_000,
    ]


# The responses.


def test_differences_come_in_messages_of_bounded_size(
    world: World, payer: int, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DIFFERENCES", 7)
    monkeypatch.setattr(module, "PART_IDS", 10)
    world.commit(0, 0, calls(payer, 0, 25))
    owner.execute("UPDATE cdrs SET cost_units = 5")
    said = verified(world)
    assert max(len(one.differences) for one in said) == 7
    ids = [one.cdr_id for part in said for one in part.differences]
    assert len(set(ids)) == len(ids) == 25
    assert ids == sorted(ids)
    assert (said[-1].checked, said[-1].different) == (25, 25)


def test_progress_is_reported_each_second(
    world: World, payer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_IDS", 1)
    world.commit(0, 0, calls(payer, 0, 10))
    moments = iter(range(1000))
    said = list(Verification(world.database, lambda: next(moments) / 4).verify(EVERYTHING))
    assert len(said) > 2
    assert said[-1].done and not said[0].done
    assert [one.checked for one in said] == sorted(one.checked for one in said)
    assert said[-1].checked == 10
    assert said[-1].checked_per_second > 0


def test_the_cache_is_bounded(
    world: World, payer: int, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_IDS", 1)
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    for index in range(6):
        world.rate(payer, f"44{index}", 100 + index, 1)
        world.cdrs.create(call(payer, f"44{index}", 60))
    most = 0
    for rows, kept in Verification(world.database)._parts(EVERYTHING, None, 10**9):
        assert list(module.differences(rows, kept)) == []
        most = max(most, len(kept))
    assert most <= 4
    assert totals(world) == (6, 0)
