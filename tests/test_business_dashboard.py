"""The queries of deploy/grafana/tollwire-business.json, run as the role that reader.sql creates.

Their numbers equal those of SummarizeUsage, as corrected, to the last decimal.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.databases import FreshDatabases
from tests.world import NOON_NS, SECOND_NS, World, call
from tollwire.service.domain.model import (
    CdrFilter,
    Disposition,
    ReversalRequest,
    UsageDimension,
    UsageQuery,
    UsageRow,
)
from tollwire.service.storage.engine import Database

GRAFANA = Path(__file__).resolve().parents[1] / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "tollwire-business.json").read_text("utf-8"))
QUERIES = {panel["title"]: panel["targets"][0]["rawSql"] for panel in DASHBOARD["panels"]}
DAY_NS = 86_400 * SECOND_NS
BEGIN_NS, END_NS = NOON_NS - DAY_NS, NOON_NS + 3 * DAY_NS
ROLE = "tollwire_grafana"


class Grafana:
    """Run a query like Grafana: with its macros and variables replaced, as the role."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self._connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
        reader = (GRAFANA / "reader.sql").read_text("utf-8")
        for _ in range(2):  # it may be run again
            self._connection.execute(reader.encode())
        self._connection.execute(f"SET SESSION AUTHORIZATION {ROLE}".encode())

    def ask(self, title: str, tenant: str = "SELECT id FROM tenants") -> list[dict[str, Any]]:
        query = QUERIES[title]
        for name, value in (
            ("$__unixEpochNanoFrom()", str(BEGIN_NS)),
            ("$__unixEpochNanoTo()", str(END_NS)),
            ("$tenant", tenant),
        ):
            query = query.replace(name, value)
        assert "$" not in query
        return self.run(query)

    def run(self, query: str) -> list[dict[str, Any]]:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return list(cursor.execute(query.encode()))

    def usage(self, *dimensions: UsageDimension) -> list[UsageRow]:
        query = UsageQuery(
            started_after_ns=BEGIN_NS, started_before_ns=END_NS, group_by=tuple(dimensions)
        )
        return [row for row in self.world.usage.summarize(query) if row.corrected.calls]

    def close(self) -> None:
        self._connection.execute(b"RESET SESSION AUTHORIZATION")
        self._connection.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}".encode())
        self._connection.close()


@pytest.fixture(scope="module")
def grafana(databases: FreshDatabases) -> Iterator[Grafana]:
    url = databases.create("postgresql")
    database = Database(url)
    grafana = Grafana(filled(database), url)
    try:
        yield grafana
    finally:
        grafana.close()
        database.close()
        databases.drop(url)


def filled(database: Database) -> World:
    """Tenants of two currencies, calls of each kind in and around the period, some reversed."""
    world = World.over(database)
    chance = random.Random(7)
    for currency in ("USD", "EUR", "USD"):
        tenant_id = world.tenant(name=f"Acme {currency}", currency=currency)
        world.rate(tenant_id, "44", 217, 6, destination="UK")
        world.rate(tenant_id, "447", 99_999_999_9999, 1, destination="UK mobile")
        world.rate(tenant_id, "49", 1533, 1, destination="Germany")
        for at in range(60):
            disposition = chance.choice(list(Disposition))
            seconds = chance.randrange(1, 400) if disposition is Disposition.ANSWERED else 0
            number = chance.choice(["4420", "4479", "4930", "33"])
            started_at_ns = NOON_NS + chance.randrange(-2 * DAY_NS, 4 * DAY_NS)
            world.cdrs.create(
                call(
                    *(tenant_id, number, seconds),
                    call_id=f"c{at}",
                    disposition=disposition,
                    started_at_ns=started_at_ns,
                )
            )
        for at, edge_ns in enumerate((BEGIN_NS - 1, BEGIN_NS, END_NS - 1, END_NS)):
            world.cdrs.create(call(tenant_id, call_id=f"edge{at}", started_at_ns=edge_ns))
    for cdr in list(world.cdrs.list(CdrFilter(), 1000, "").items)[::5]:
        world.reversals.reverse_cdr(cdr.id, ReversalRequest("wrong", "desk"))
    return world


def compared(found: dict[str, Any], row: UsageRow) -> None:
    sums = row.corrected
    assert found["currency"] == row.currency
    assert (found["calls"], found["answered"]) == (sums.calls, sums.answered)
    assert found["unrated"] == sums.unrated
    assert found["minutes"] * 60 == pytest.approx(sums.duration_seconds)
    assert round(found["minutes"] * 60) == sums.duration_seconds
    assert round(found["billed_minutes"] * 60) == sums.bill_seconds
    assert found["revenue"] == cost_of(row)
    assert found["asr_percent"] == pytest.approx(Decimal(100 * sums.answered) / sums.calls)
    if sums.answered:
        acd = Decimal(sums.duration_seconds) / sums.answered
        assert found["acd_seconds"] == pytest.approx(acd)
    else:
        assert found["acd_seconds"] is None


def cost_of(row: UsageRow) -> Decimal:
    """Exact, whatever the scale of the sums."""
    (name,) = [field for field in dir(row.corrected) if re.fullmatch(r"cost_e\d", field)]
    value: int = getattr(row.corrected, name)
    return Decimal(value).scaleb(-int(name[-1]))


@pytest.mark.parametrize(
    ("title", "dimensions", "keys"),
    [
        ("By tenant", [UsageDimension.TENANT], ["tenant_id"]),
        ("By destination", [UsageDimension.DESTINATION], ["destination"]),
        (
            "By tenant and destination",
            [UsageDimension.TENANT, UsageDimension.DESTINATION],
            ["tenant_id", "destination"],
        ),
    ],
)
def test_tables_equal_summarize_usage(
    grafana: Grafana, title: str, dimensions: list[UsageDimension], keys: list[str]
) -> None:
    rows = {(row.keys, row.currency): row for row in grafana.usage(*dimensions)}
    found = {
        (tuple(str(one[key]) for key in keys), one["currency"]): one for one in grafana.ask(title)
    }
    assert len(rows) > 2
    assert found.keys() == rows.keys()
    for key, one in found.items():
        compared(one, rows[key])


def test_headlines_equal_summarize_usage(grafana: Grafana) -> None:
    rows = grafana.usage()
    assert {one["metric"]: one["revenue"] for one in grafana.ask("Revenue")} == {
        row.currency: cost_of(row) for row in rows
    }
    totals = [row.corrected for row in rows]
    calls, answered = sum(one.calls for one in totals), sum(one.answered for one in totals)
    seconds = sum(one.duration_seconds for one in totals)
    for title, expected in (
        ("Calls", calls),
        ("Unrated calls", sum(one.unrated for one in totals)),
        ("Minutes", Decimal(seconds) / 60),
        ("ASR", Decimal(100 * answered) / calls),
        ("ACD", Decimal(seconds) / answered),
    ):
        ((value,),) = (one.values() for one in grafana.ask(title))
        assert value == pytest.approx(expected), title


@pytest.mark.parametrize("name", ["revenue", "minutes", "asr_percent", "acd_seconds"])
def test_curves_equal_summarize_usage(grafana: Grafana, name: str) -> None:
    title = {"revenue": "Revenue", "minutes": "Minutes"}.get(name, name.split("_")[0].upper())
    expected = {}
    for row in grafana.usage(UsageDimension.DAY, UsageDimension.TENANT):
        sums = row.corrected
        values = {
            "revenue": cost_of(row),
            "minutes": Decimal(sums.duration_seconds) / 60,
            "asr_percent": Decimal(100 * sums.answered) / sums.calls,
            "acd_seconds": None,
        }
        if sums.answered:
            values["acd_seconds"] = Decimal(sums.duration_seconds) / sums.answered
        expected[row.keys] = values[name]
    found = {}
    for one in grafana.ask(f"{title} by day and tenant"):
        (tenant_id,) = re.findall(r"\((\d+)\)$", one["tenant"])
        found[one["time"].astimezone(UTC).strftime("%Y-%m-%d"), tenant_id] = one[name]
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert value == (None if expected[key] is None else pytest.approx(expected[key]))


def test_one_tenant_can_be_chosen(grafana: Grafana) -> None:
    (query,) = [v["query"] for v in DASHBOARD["templating"]["list"] if v["name"] == "tenant"]
    tenants = grafana.run(query)
    assert len(tenants) == 3
    chosen = str(tenants[0]["__value"])
    (one,) = grafana.ask("By tenant", tenant=chosen)
    assert str(one["tenant_id"]) == chosen
    assert tenants[0]["__text"] == f"{one['tenant']} ({chosen})"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT destination_number FROM cdrs",
        "SELECT * FROM cdrs",
        "SELECT secret_sha256 FROM tokens",
        "SELECT reason FROM cdr_reversals",
        "DELETE FROM cdrs",
        "CREATE TABLE mine (id int)",
    ],
)
def test_the_role_reads_no_more_than_it_needs(grafana: Grafana, query: str) -> None:
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedColumn)):
        grafana.run(query)


def test_every_panel_is_tested() -> None:
    assert len(QUERIES) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        (target,) = panel["targets"]
        assert target["rawQuery"] is True
        assert (target["format"] == "time_series") is (panel["type"] == "timeseries")
    assert datetime.fromtimestamp(BEGIN_NS / SECOND_NS, UTC) < datetime.now(UTC)
