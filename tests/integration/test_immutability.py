"""The cost of a recorded call never changes: after changes of rates and tenants, and against writes
to the database itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.integration.client import (
    BUSY,
    INBOUND,
    NOON_NS,
    NOT_BILLABLE,
    RATED,
    SECOND_NS,
    UNRATED,
    Client,
    chunk,
    make_call,
    make_rate,
    timestamp,
)
from tests.integration.conftest import NewDatabase
from tests.integration.serving import ServerProcess, serving
from tests.integration.wire_oracle import assert_recomputes
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

DAY_NS = 86_400 * SECOND_NS


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[ServerProcess]:
    """A server of its own: these tests write to its database directly, and the result does not
    verify."""
    with serving(new_database()) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address) as connected:
        yield connected


@pytest.fixture
def recorded(client: Client) -> tuple[types.Tenant, dict[str, types.Rate], list[types.Cdr]]:
    """A tenant with dialling rules, its rates, and CDRs of every status."""
    tenant = client.new_tenant(
        rounding=types.ROUNDING_HALF_EVEN,
        country_code="44",
        national_prefix="0",
        international_prefix="00",
    )
    interval = types.Interval(start_seconds=30, cost_per_minute="0.0301", billing_increment=7)
    rates = {
        "44": client.new_rate(tenant.id, "44", "0.0203", 6, destination="UK"),
        "447": client.new_rate(
            *(tenant.id, "447", "0.1501", 6),
            connect_fee="0.0100",
            minimum_seconds=10,
            intervals=[interval],
            effective_from=NOON_NS - DAY_NS,
            effective_to=NOON_NS + DAY_NS,
            destination="UK mobile",
        ),
        "1": client.new_rate(tenant.id, "1", "0.0119", 60),
    }
    calls = [
        make_call(tenant.id, number, seconds, call_id=f"{number}/{seconds}")
        for number in ("07911 123456", "00447911123456", "020 7946", "+1415", "33", "x")
        for seconds in (0, 1, 29, 30, 31, 3599)
    ]
    calls.append(make_call(tenant.id, "1", 60, call_id="in", direction=INBOUND))
    calls.append(make_call(tenant.id, "1", 60, call_id="busy", disposition=BUSY))
    client.upload(chunk(calls[:20]))
    for call in calls[20:]:
        client.create_cdr(call)
    return tenant, rates, client.list_cdrs(tenant_id=tenant.id, page_size=1000)


Recorded = tuple[types.Tenant, dict[str, types.Rate], list[types.Cdr]]


def test_every_cdr_recomputes_from_itself_alone(client: Client, recorded: Recorded) -> None:
    _, _, cdrs = recorded
    statuses = {cdr.status for cdr in cdrs}
    assert statuses == {RATED, NOT_BILLABLE, UNRATED}
    for cdr in cdrs:
        assert_recomputes(cdr)


def test_changed_expired_and_deleted_rates_keep_every_cost(
    client: Client, recorded: Recorded
) -> None:
    tenant, rates, cdrs = recorded

    def unchanged() -> None:
        assert client.list_cdrs(tenant_id=tenant.id, page_size=1000) == cdrs
        for cdr in cdrs:
            assert client.get_cdr(cdr.id) == cdr

    updated = client.update_rate(
        make_rate("447", "9.9999", 1, id=rates["447"].id, destination="Elsewhere", blocked=True)
    )
    assert updated.cost_per_minute == "9.9999"
    unchanged()
    expired = types.Rate(id=rates["44"].id, effective_to=timestamp(NOON_NS - 1))
    client.update_rate(expired, "effective_to")
    unchanged()
    client.rating.DeleteRate(rating_pb.DeleteRateRequest(id=rates["1"].id))
    unchanged()
    client.import_rates(tenant.id, [make_rate("4", "7")], types.IMPORT_MODE_REPLACE)
    unchanged()
    client.import_rates(tenant.id, [], types.IMPORT_MODE_REPLACE)
    unchanged()
    for cdr in cdrs:
        assert_recomputes(cdr)
        if cdr.matched_prefix == "447":
            assert cdr.rate == rates["447"]
    # The same call sent again is a duplicate, although it would have another cost now.
    [again] = [cdr for cdr in cdrs if cdr.call_id == "+1415/31"]
    assert client.create_cdr(make_call(tenant.id, "+1415", 31, call_id="+1415/31")) == again


def test_changed_rules_keep_every_cost(client: Client, recorded: Recorded) -> None:
    tenant, _, cdrs = recorded
    changed = types.Tenant(
        id=tenant.id, name="Renamed", rounding=types.ROUNDING_UP, international_prefix="011"
    )
    client.tenants.UpdateTenant(tenant_pb.UpdateTenantRequest(tenant=changed))
    after = client.list_cdrs(tenant_id=tenant.id, page_size=1000)
    assert after == cdrs
    for cdr in after:
        assert cdr.tenant.rounding == types.ROUNDING_HALF_EVEN
        assert cdr.tenant.country_code == "44"
        assert_recomputes(cdr)
    new = client.create_cdr(make_call(tenant.id, "0114420", 31))
    assert new.tenant.rounding == types.ROUNDING_UP
    assert_recomputes(new)


def test_rate_unrated_changes_no_priced_cdr(client: Client, recorded: Recorded) -> None:
    tenant, rates, cdrs = recorded
    client.update_rate(make_rate("44", "5", id=rates["44"].id))
    client.new_rate(tenant.id, "33", "0.3333", 7)
    answer = client.cdrs.RateUnrated(cdr_pb.RateUnratedRequest(tenant_id=tenant.id))
    waiting = [cdr for cdr in cdrs if cdr.status == UNRATED]
    assert answer.examined == len(waiting) == 12
    assert answer.rated == 6
    after = {cdr.id: cdr for cdr in client.list_cdrs(tenant_id=tenant.id, page_size=1000)}
    for cdr in cdrs:
        if cdr.status != UNRATED:
            assert after[cdr.id] == cdr
        assert_recomputes(after[cdr.id])


# Writes to the rows, with the database's own client.


class Attacker:
    """A connection to the server's database, without the server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self.connection: Any
        if self.is_sqlite:
            path = url.removeprefix("sqlite:///")
            self.connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        else:
            uri = url.replace("postgresql+psycopg://", "postgresql://")
            self.connection = psycopg.connect(uri, autocommit=True)

    def columns(self, table: str) -> list[str]:
        if self.is_sqlite:
            return [row[1] for row in self.run(f"PRAGMA table_info({table})")]
        return [
            row[0]
            for row in self.run(
                "SELECT column_name FROM information_schema.columns"
                f" WHERE table_name = '{table}' ORDER BY ordinal_position"
            )
        ]

    def run(self, statement: str) -> list[Any]:
        cursor = self.connection.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []

    def refused(self, statement: str) -> bool:
        try:
            self.run(statement)
        except (sqlite3.Error, psycopg.Error):
            return True
        return False


@pytest.fixture
def attacker(server: ServerProcess) -> Iterator[Attacker]:
    attacker = Attacker(server.database_url)
    with closing(attacker.connection):
        yield attacker


def one_of(cdrs: list[types.Cdr], status: int) -> types.Cdr:
    return next(cdr for cdr in cdrs if cdr.status == status)


def changed_value(value: Any) -> str:
    """SQL of another value than ``value``."""
    if value is None:
        return "1"
    if isinstance(value, bool):
        return "false" if value else "true"
    if isinstance(value, int):
        return str(value + 1 if value < 3 else value - 1)
    return "'attacked'"


@pytest.mark.parametrize("status", [RATED, NOT_BILLABLE, UNRATED])
def test_no_column_of_a_cdr_can_be_updated(
    client: Client, recorded: Recorded, attacker: Attacker, status: int
) -> None:
    _, _, cdrs = recorded
    target = one_of(cdrs, status)
    columns = attacker.columns("cdrs")
    assert "cost_units" in columns
    [row] = attacker.run(f"SELECT * FROM cdrs WHERE id = {target.id}")
    accepted = []
    for column, value in zip(columns, row, strict=True):
        statement = f"UPDATE cdrs SET {column} = {changed_value(value)} WHERE id = {target.id}"
        if not attacker.refused(statement):
            accepted.append(column)
    assert accepted == []
    assert client.get_cdr(target.id) == target


def test_a_cdr_cannot_be_deleted_or_replaced(
    client: Client, recorded: Recorded, attacker: Attacker
) -> None:
    tenant, _, cdrs = recorded
    for status in (RATED, NOT_BILLABLE, UNRATED):
        target = one_of(cdrs, status)
        assert attacker.refused(f"DELETE FROM cdrs WHERE id = {target.id}")
        names = ", ".join(attacker.columns("cdrs"))
        values = names.replace("cost_units", "coalesce(cost_units, 0) + 1")
        same_row = f"SELECT {values} FROM cdrs WHERE id = {target.id}"
        if attacker.is_sqlite:
            # Ignored or refused: in either case nothing may be replaced.
            attacker.refused(f"REPLACE INTO cdrs ({names}) {same_row}")
            # As another row that replaces this one by its call_id.
            elsewhere = same_row.replace("SELECT id,", "SELECT 999999999,")
            attacker.refused(f"INSERT OR REPLACE INTO cdrs ({names}) {elsewhere}")
            assert attacker.refused(
                f"UPDATE OR REPLACE cdrs SET call_id = (SELECT call_id FROM cdrs WHERE id ="
                f" {target.id}) WHERE id = {next(c.id for c in cdrs if c.id != target.id)}"
            )
        attacker.refused(
            f"INSERT INTO cdrs ({names}) {same_row.replace('WHERE', 'WHERE true AND')}"
            " ON CONFLICT (id) DO UPDATE SET cost_units = 7"
        )
        assert client.get_cdr(target.id) == target
    assert attacker.refused("DELETE FROM cdrs")
    assert attacker.refused("UPDATE cdrs SET cost_units = 0, cost_fraction_e8 = 0")
    if not attacker.is_sqlite:
        assert attacker.refused("TRUNCATE cdrs")
        assert attacker.refused("TRUNCATE cdrs CASCADE")
    assert client.list_cdrs(tenant_id=tenant.id, page_size=1000) == cdrs


PRICED = (
    "status = {status}, unrated_reason = NULL, bill_seconds = 60, cost_units = 0,"
    " cost_fraction_e8 = 50000, rate_version_id = {version}"
)


def test_an_unrated_cdr_is_priced_once_and_nothing_else_of_it_changes(
    client: Client, recorded: Recorded, attacker: Attacker
) -> None:
    _, rates, cdrs = recorded
    target = one_of(cdrs, UNRATED)
    version = int(rates["44"].etag.removeprefix("v"))
    where = f"WHERE id = {target.id}"
    pricing = PRICED.format(status=int(RATED), version=version)
    # The permitted transition together with another change.
    for cover in (
        "duration_seconds = duration_seconds + 1",
        "destination_number = '1'",
        "caller_number = 'me'",
        "tenant_id = tenant_id + 1",
        "call_id = 'other'",
        "started_at_ns = 0",
        "ended_at_ns = 0",
        "direction = 1",
        "disposition = 2",
        "extension_id = 1",
        "upload_id = 1",
        "created_at_ns = 0",
        "id = 999999999",
    ):
        assert attacker.refused(f"UPDATE cdrs SET {pricing}, {cover} {where}"), cover
    assert attacker.refused(f"UPDATE cdrs SET unrated_reason = 2 {where}")
    assert client.get_cdr(target.id) == target
    # The transition itself is what RateUnrated does; it cannot be reversed.
    attacker.run(f"UPDATE cdrs SET {pricing} {where}")
    assert client.get_cdr(target.id).cost == "0.0005"
    assert attacker.refused(f"UPDATE cdrs SET {pricing} {where}")
    assert attacker.refused(
        "UPDATE cdrs SET status = 3, unrated_reason = 1, bill_seconds = NULL, cost_units = NULL,"
        f" cost_fraction_e8 = NULL, rate_version_id = NULL {where}"
    )


@pytest.mark.parametrize(
    "changes",
    [
        "cost_units = NULL, cost_fraction_e8 = NULL",
        "bill_seconds = NULL",
        "unrated_reason = 1",
        "rate_version_id = NULL",
        "cost_units = -1",
        "cost_fraction_e8 = -1",
        "cost_fraction_e8 = 100000000",
        "status = 0",
        "status = 4",
        "direction = 0",
        "disposition = 7",
        "duration_seconds = -1",
    ],
)
def test_a_row_that_contradicts_itself_cannot_be_inserted(
    client: Client, recorded: Recorded, attacker: Attacker, changes: str
) -> None:
    _, _, cdrs = recorded
    target = one_of(cdrs, RATED)
    columns = attacker.columns("cdrs")
    given = dict(part.split(" = ") for part in changes.split(", "))
    values = [given.get(column, column) for column in columns]
    values[columns.index("id")] = "id + 500000000"
    values[columns.index("call_id")] = "'new'"
    statement = (
        f"INSERT INTO cdrs ({', '.join(columns)}) SELECT {', '.join(values)} FROM cdrs"
        f" WHERE id = {target.id}"
    )
    assert attacker.refused(statement)


def test_the_history_that_cdrs_refer_to_cannot_be_changed(
    client: Client, recorded: Recorded, attacker: Attacker
) -> None:
    tenant, rates, cdrs = recorded
    client.rating.DeleteRate(rating_pb.DeleteRateRequest(id=rates["1"].id))
    for prefix in ("447", "1"):  # present, and retired
        version = int(rates[prefix].etag.removeprefix("v"))
        where = f"WHERE version_id = {version}"
        [row] = attacker.run(f"SELECT * FROM rate_versions {where}")
        accepted = []
        for column, value in zip(attacker.columns("rate_versions"), row, strict=True):
            if prefix == "447" and column == "retired_revision":
                continue  # the only permitted update
            wrong = changed_value(value)
            if not attacker.refused(f"UPDATE rate_versions SET {column} = {wrong} {where}"):
                accepted.append(column)
        assert accepted == []
        assert attacker.refused(f"DELETE FROM rate_versions {where}")
    where = f"WHERE tenant_id = {tenant.id}"
    [row] = attacker.run(f"SELECT * FROM tenant_versions {where} ORDER BY revision LIMIT 1")
    accepted = [
        column
        for column, value in zip(attacker.columns("tenant_versions"), row, strict=True)
        if not attacker.refused(
            f"UPDATE tenant_versions SET {column} = {changed_value(value)} {where}"
        )
    ]
    assert accepted == []
    assert attacker.refused(f"DELETE FROM tenant_versions {where}")
    assert attacker.refused(f"DELETE FROM tenants WHERE id = {tenant.id}")
    assert client.list_cdrs(tenant_id=tenant.id, page_size=1000) == cdrs


def test_an_extension_with_cdrs_cannot_be_deleted_past_the_server(
    client: Client, tenant: types.Tenant, attacker: Attacker
) -> None:
    extension = client.new_extension(tenant.id)
    cdr = client.create_cdr(make_call(tenant.id, extension_id=extension.id))
    assert attacker.refused(f"DELETE FROM extensions WHERE id = {extension.id}")
    assert client.get_cdr(cdr.id) == cdr
