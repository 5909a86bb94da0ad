"""Each column of what the ledger covers, changed by the owner of the database.

The attacker removes the triggers first and restores them, as the owner of the tables can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, text

from tests.databases import Fill
from tests.world import World, call, calls
from tollwire.service.domain.model import (
    BadCall,
    ImportMode,
    Rate,
    ReversalRequest,
    Tenant,
)
from tollwire.service.domain.record_model import LedgerDifference
from tollwire.service.record.ledger import Ledger
from tollwire.service.storage import covered_rows
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import triggers
from tollwire.service.storage.schema.all_tables import METADATA

# The tables, and a word by which a difference names the rows.
TABLES = {
    "cdrs": "CDR",
    "cdr_pricings": "pricing",
    "cdr_reversals": "reversal",
    "tenants": "tenant",
    "tenant_versions": "version",
    "rate_versions": "rates",
    "uploads": "upload",
    "upload_chunks": "upload",
    "audit_entries": "audit log",
}
# Values that the constraints of a table allow together.
_TOGETHER: dict[tuple[str, str], dict[str, Any]] = {
    ("cdrs", "status"): {
        "status": 2,
        "bill_seconds": 0,
        "cost_units": 0,
        "cost_fraction_e8": 0,
        "rate_version_id": None,
    },
    ("cdrs", "unrated_reason"): {"unrated_reason": 3},
    ("cdrs", "rate_version_id"): {"rate_version_id": 2},
    ("cdrs", "direction"): {"direction": 1},
    ("cdrs", "disposition"): {"disposition": 2},
    ("cdr_pricings", "unrated_reason"): {"unrated_reason": 2},
    ("cdr_pricings", "new_unrated_reason"): {"new_unrated_reason": 2, "new_rate_revision": 1},
    ("cdr_pricings", "new_rate_revision"): {"new_unrated_reason": 2, "new_rate_revision": 1},
    ("cdr_reversals", "cost_units"): {"cost_units": -1},
    ("cdr_reversals", "cost_fraction_e8"): {"cost_fraction_e8": -1},
    ("tenants", "currency"): {"currency": "EUR"},
    ("tenants", "cost_decimals"): {"cost_decimals": 8},
    ("tenant_versions", "cost_decimals"): {"cost_decimals": 8},
    ("tenants", "rounding"): {"rounding": 3},
    ("upload_chunks", "upload_id"): {"upload_id": 2},
}
# The row that is changed; else the one with the lowest id.
_ROWS = {
    ("cdrs", "unrated_reason"): "id = 3",
    ("cdrs", "upload_id"): "id = 5",
    ("uploads", "id"): "id = 3",  # it has no chunks
    ("upload_chunks", "upload_id"): "upload_id = 1 AND first_index > 0",
}


def everything(database: Database) -> None:
    """Two tenants, one of them changed; rates that were added singly and imported, changed and
    deleted; CDRs 1 and 2 (priced late), 3 (unrated), and those of two uploads, one of them with
    control totals; a reversal."""
    world = World.over(database)
    payer = world.tenant(name="Acme")
    world.rate(payer, "44", 200, 6)
    world.cdrs.create(call(payer, call_id="a"))
    world.cdrs.create(call(payer, "33", call_id="late"))
    world.cdrs.create(call(payer, "99", call_id="unrated"))
    upload_id = world.commit(0, 0, calls(payer, 0, 2)).upload_id
    world.commit(upload_id, 2, [call(payer, call_id="x"), BadCall("direction", "is required")])
    world.commit(0, 0, calls(payer, 5, 2))
    world.commit(0, 0, [])
    added = world.rate(payer, "33", 300, 6)
    assert world.cdrs.rate_unrated(0, None, None).rated == 1
    world.rates.update(Rate(id=added.id, destination="France"), frozenset({"destination"}), "")
    world.rates.delete(world.rate(payer, "7").id, "")
    deck = [
        Rate(tenant_id=payer, prefix=prefix, cost_per_minute_e8=5, billing_increment=1)
        for prefix in ("1", "12", "49")
    ]
    world.import_deck(payer, ImportMode.MERGE, False, deck)
    world.import_deck(payer, ImportMode.REPLACE, False, deck[:1], allow_gap=True)
    world.tenants.update(Tenant(id=payer, name="Acme & Co"), frozenset({"name"}))
    other = world.tenant(name="Bell")
    world.rate(other, "1")
    world.tenants.delete(world.tenant(name="Gone"))
    world.reversals.reverse_cdr(1, ReversalRequest(reason="test", requested_by="Ada"))
    world.reversals.reverse_upload(2, ReversalRequest(reason="test", requested_by="Ada"))


@pytest.fixture
def fill() -> Fill:
    return everything


def differences(database: Database) -> list[LedgerDifference]:
    return [one for part in Ledger(database).verify("") for one in part.differences]


def other(value: Any, column: Any) -> Any:
    if value is None:
        return {int: 7, str: "[1]", bytes: b"x"}[column.type.python_type]
    if isinstance(value, str):
        return value + "1"
    if isinstance(value, bytes):
        return value + b"1"
    return not value if column.type.python_type is bool else value + 1_000


def test_nothing_is_changed(database: Database) -> None:
    assert differences(database) == []


@pytest.mark.parametrize("table", TABLES)
def test_a_change_of_any_column_is_found(database: Database, table: str) -> None:
    for column in METADATA.tables[table].columns:
        key, before, values = _attack(database, table, column)
        _update(database, table, key, values)
        found = differences(database)
        assert any(TABLES[table] in one.message for one in found), (column.name, found)
        _update(database, table, {name: values.get(name, key[name]) for name in key}, before)
    assert differences(database) == []


def _attack(database: Database, table: str, column: Any) -> tuple[Any, Any, Any]:
    """The key of a row, some of its values, and other values for these."""
    keys = [one.name for one in METADATA.tables[table].primary_key]
    where = _ROWS.get((table, column.name), "1 = 1")
    query = f"SELECT * FROM {table} WHERE {where} ORDER BY {', '.join(keys)} LIMIT 1"
    with database.read() as connection:
        row = connection.execute(text(query)).mappings().one()
    values = _TOGETHER.get((table, column.name)) or {column.name: other(row[column.name], column)}
    assert row[column.name] != values[column.name]
    return {name: row[name] for name in keys}, {name: row[name] for name in values}, values


def _update(database: Database, table: str, key: Any, values: Any) -> None:
    where = " AND ".join(f"{name} = :at_{name}" for name in key)
    sets = ", ".join(f"{name} = :{name}" for name in values)
    with _without_triggers(database) as connection:
        done = connection.execute(
            text(f"UPDATE {table} SET {sets} WHERE {where}"),
            values | {f"at_{name}": value for name, value in key.items()},
        )
        assert done.rowcount == 1


@contextmanager
def _without_triggers(database: Database) -> Iterator[Connection]:
    with database.write() as connection:
        if database.is_sqlite:
            triggers.drop(connection)
            yield connection
            triggers.install(connection)
        else:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            yield connection


@pytest.mark.parametrize("table", [table for table in TABLES if table != "tenants"])
def test_a_deleted_row_is_found(database: Database, table: str) -> None:
    key = next(iter(METADATA.tables[table].primary_key)).name
    with _without_triggers(database) as connection:
        if table == "uploads":
            connection.execute(text("DELETE FROM upload_failures"))
            connection.execute(text("DELETE FROM upload_chunks WHERE upload_id = 1"))
        connection.execute(
            text(f"DELETE FROM {table} WHERE {key} = (SELECT min({key}) FROM {table})")
        )
    assert any(TABLES[table] in one.message for one in differences(database))


_ADDED = {
    "tenant_versions": ("revision", "revision + 100"),
    "rate_versions": ("version_id", "version_id + 100"),
    "uploads": ("id", "id + 100"),
    "upload_chunks": ("first_index", "first_index + 100"),
    "audit_entries": ("id", "id + 100"),
}


@pytest.mark.parametrize("table", _ADDED)
def test_an_added_row_without_an_entry_is_found(database: Database, table: str) -> None:
    name, value = _ADDED[table]
    columns = METADATA.tables[table].columns.keys()
    values = {one: one for one in columns} | {name: value}
    if table == "rate_versions":
        values["prefix"] = "'5'"
    with _without_triggers(database) as connection:
        added = connection.execute(
            text(
                f"INSERT INTO {table} ({', '.join(columns)})"
                f" SELECT {', '.join(values[one] for one in columns)} FROM {table}"
                f" ORDER BY {name} LIMIT 1"
            )
        )
        assert added.rowcount == 1
    assert any(TABLES[table] in one.message for one in differences(database))


def test_an_upload_set_back_to_an_earlier_state_is_found(database: Database) -> None:
    with _without_triggers(database) as connection:
        connection.execute(text("UPDATE uploads SET revision = 1 WHERE id = 1"))
    assert any("its newest entry 2" in one.message for one in differences(database))


def test_all_columns_of_the_covered_tables_are_in_a_digest() -> None:
    """A new column needs a new format."""
    types = {"BIGINT": "int8", "INTEGER": "int4", "SMALLINT": "int2", "BOOLEAN": "bool"}
    types |= {"TEXT": "text", "BLOB": "bytea"}
    found: dict[str, dict[str, str]] = {"upload_chunks": dict(covered_rows.CHUNK_COLUMNS)}
    for covered in covered_rows.KINDS:
        found.setdefault(covered.table, {}).update(covered.columns)
    for table, columns in found.items():
        declared = METADATA.tables[table].columns
        assert columns == {one.name: types[str(one.type)] for one in declared}, table


def test_the_digest_is_that_of_a_copy(database: Database) -> None:
    """On PostgreSQL an auditor computes it from a COPY; on SQLite it is computed in Python."""
    for covered, sizes in ((covered_rows.RATES_ADDED, (1, 2, 3)), (covered_rows.AUDITED, (1, 2))):
        for count in sizes:
            query = covered.query(1, count, 0)
            with database.read() as connection:
                stored = covered_rows.digest_of_stored(connection, covered, 1, count, 0)
                rows = [tuple(row) for row in connection.execute(text(query))]
            assert len(rows) == count
            assert covered_rows.digest_of_rows(covered, rows) == stored
