"""Writes to the record with SQL, as with the sqlite3 shell or psql (rating rule 9).

The attacker's connection is not the service's: on SQLite it has the driver's defaults, with foreign
keys and recursive triggers off.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.databases import Fill
from tests.world import World, call
from tollwire.service.accounts.credentials import Credentials
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.domain.model import (
    BadCall,
    Disposition,
    ImportMode,
    Rate,
    ReversalRequest,
    Tenant,
    Token,
)
from tollwire.service.domain.request import Role, Scope
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema.all_tables import METADATA

_ERRORS = (sqlite3.IntegrityError, psycopg.errors.RestrictViolation)
_HISTORY = (
    *("cdrs", "cdr_pricings", "cdr_reversals", "rate_versions", "tenant_versions"),
    *("upload_chunks", "rate_changes", "ledger_entries", "tokens", "audit_entries"),
)
_UNCHANGING = (*_HISTORY, "upload_failures")  # of which old ones are deleted
_OUTCOME = {
    "status",
    "unrated_reason",
    "bill_seconds",
    "cost_units",
    "cost_fraction_e8",
    "rate_version_id",
    "rate_revision",
}
_PRICE = (
    "status = 1, unrated_reason = NULL, bill_seconds = 60, cost_units = 0, cost_fraction_e8 = 7,"
    " rate_version_id = 1, rate_revision = 9"
)


# Other values than NULL.
_NEW = {"intervals": "[]", "signature": bytes(64)}


def _columns(table: str) -> list[str]:
    return list(METADATA.tables[table].columns.keys())


@dataclass
class Attacker:
    """An attacker with a shell on the database, and its complete content for comparison."""

    connection: Any
    is_sqlite: bool

    def execute(self, statement: str, *values: Any) -> list[Any]:
        """One statement, committed at once; %s is a placeholder."""
        if self.is_sqlite:
            statement = statement.replace("%s", "?")
        cursor = self.connection.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description else []

    def content(self) -> dict[str, list[Any]]:
        return {
            table: sorted(self.execute(f"SELECT * FROM {table}"), key=repr)
            for table in METADATA.tables
        }

    def is_refused(self, statement: str, *values: Any, match: str) -> None:
        before = self.content()
        with pytest.raises(_ERRORS, match=match):
            self.execute(statement, *values)
        assert self.content() == before

    def changes_nothing(self, statement: str, *values: Any) -> None:
        """Refused, or without effect."""
        before = self.content()
        with suppress(sqlite3.IntegrityError, psycopg.IntegrityError):
            self.execute(statement, *values)
        assert self.content() == before


def all_that_is_kept(database: Database) -> None:
    """Tenant 1 with extension 1 and rate 1; CDRs 1 (rated), 2 (unrated), 3 (not billable, of an
    upload, which has a failed record too; reversed), 4 (priced late) and 5 (unrated, reversed).
    Tenant 2 with extension 2 and no calls. Token 1, not revoked."""
    world = World.over(database)
    tenant = world.tenant()
    extension = world.extension(tenant)
    world.rate(tenant, "44", cost_e4=200, increment=6)
    world.cdrs.create(call(tenant, "4420", call_id="rated", extension_id=extension))
    world.cdrs.create(call(tenant, "4930", call_id="unrated", extension_id=extension))
    busy = call(tenant, call_id="busy", disposition=Disposition.BUSY, seconds=0)
    world.commit(0, 0, [busy, BadCall("direction", "is required")])
    world.cdrs.create(call(tenant, "33", call_id="late"))
    world.rate(tenant, "33")
    assert world.cdrs.rate_unrated(tenant, None, None).rated == 1
    world.cdrs.create(call(tenant, "4930", call_id="withdrawn"))
    for cdr_id in (3, 5):
        world.reversals.reverse_cdr(cdr_id, ReversalRequest("wrong switch", "Anna"))
    world.extension(world.tenant())
    token = Token("switch", Role.INGEST, Scope(frozenset({1})), certificate_identity="switch-7")
    Tokens(database, Credentials(database)).create(token)


@pytest.fixture
def fill() -> Fill:
    return all_that_is_kept


@pytest.fixture
def attacker(world: World, database_url: str) -> Iterator[Attacker]:
    if world.database.is_sqlite:
        path = database_url.removeprefix("sqlite:///")
        connection: Any = sqlite3.connect(path, isolation_level=None)
    else:
        url = database_url.replace("postgresql+psycopg:", "postgresql:")
        connection = psycopg.connect(url, autocommit=True)
    yield Attacker(connection, world.database.is_sqlite)
    connection.close()


def _other(value: Any) -> Any:
    """A value of the same type that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "1"
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:] if value else b"1"
    return 1


@pytest.mark.parametrize("table", _UNCHANGING)
def test_no_column_can_be_updated(attacker: Attacker, table: str) -> None:
    if table == "rate_versions":
        attacker.execute("UPDATE rate_versions SET retired_revision = 5")
    if table == "tokens":
        attacker.execute("UPDATE tokens SET revoked_at_ns = 5")
    same = "IS" if attacker.is_sqlite else "IS NOT DISTINCT FROM"
    for column in _columns(table):
        for (value,) in attacker.execute(f"SELECT DISTINCT {column} FROM {table}"):
            changed = _NEW.get(column) if value is None and column in _NEW else _other(value)
            attacker.is_refused(
                f"UPDATE {table} SET {column} = %s WHERE {column} {same} %s",
                *(changed, value),
                match="never changes",
            )


@pytest.mark.parametrize("table", _HISTORY)
def test_no_row_can_be_deleted(attacker: Attacker, table: str) -> None:
    attacker.is_refused(f"DELETE FROM {table}", match="is never deleted")


@pytest.mark.parametrize("table", [*_UNCHANGING, "ledger_heads", "tenants", "extensions"])
def test_no_table_can_be_truncated(attacker: Attacker, table: str) -> None:
    if attacker.is_sqlite:
        # On SQLite DELETE without a condition is the truncation, and could run without reading the
        # rows.
        if table == "upload_failures":
            return  # these may be deleted
        attacker.changes_nothing(f"DELETE FROM {table} WHERE true")
        attacker.changes_nothing(f"DELETE FROM {table}")
    else:
        for statement in (f"TRUNCATE {table}", f"TRUNCATE {table} CASCADE"):
            if table == "tenants" and "CASCADE" not in statement:
                continue  # its foreign key already refuses that
            attacker.is_refused(statement, match="is never truncated")


def test_uploads_cannot_be_truncated_with_their_chunks(attacker: Attacker) -> None:
    if not attacker.is_sqlite:
        attacker.is_refused("TRUNCATE uploads CASCADE", match="uploads is never truncated")


_UNIQUE: dict[str, list[tuple[str, ...]]] = {
    "cdrs": [("id",), ("tenant_id", "call_id", "generation")],
    "rate_versions": [
        ("version_id",),
        ("rate_id",),
        ("tenant_id", "prefix", "effective_from_s", "effective_from_nanos"),
    ],
    "tenant_versions": [("tenant_id", "revision")],
    "rate_changes": [("tenant_id", "revision")],
    "uploads": [("id",)],
    "upload_chunks": [("upload_id", "first_index")],
    "upload_failures": [("upload_id", "record_index")],
    "cdr_pricings": [("id",), ("cdr_id",)],
    "ledger_entries": [("chain", "seq"), ("kind", "first_id", "revision")],
    "ledger_heads": [("chain",)],
    "cdr_reversals": [("id",), ("cdr_id",)],
    "tokens": [("id",), ("certificate_identity",)],
    "audit_entries": [("id",)],
    "tenants": [("id",)],
    "extensions": [("id",)],
}


def _colliding_rows(attacker: Attacker) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """For each unique key a row with the key of an existing one, and other values elsewhere."""
    for table, keys in _UNIQUE.items():
        columns = _columns(table)
        row = attacker.execute(f"SELECT * FROM {table} ORDER BY 1")[0]
        present = dict(zip(columns, row, strict=True))
        for key in keys:
            there = _later_version(attacker, present) if key == ("rate_id",) else present
            forged = {
                name: value if name in key or value is None else _forged(name, value)
                for name, value in there.items()
            }
            yield table, key, forged


def _later_version(attacker: Attacker, version: dict[str, Any]) -> dict[str, Any]:
    """A new row for a later version of a rate: only those are in that index."""
    row = version | {"version_id": 50, "rate_id": 49, "prefix": "48"}
    attacker.execute(
        f"INSERT INTO rate_versions ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",
        *row.values(),
    )
    return row


def _forged(column: str, value: Any) -> Any:
    """Another value that the CHECKs let pass."""
    if column in ("id", "version_id", "rate_id", "call_id", "tenant_id", "prefix", "revision"):
        return value + 1000 if isinstance(value, int) else value + "9"
    if column in ("status", "direction", "disposition", "rounding", "currency", "role"):
        return value
    return _other(value)


def test_no_row_can_be_replaced(attacker: Attacker) -> None:
    """REPLACE silently deletes rows with the same key."""
    if not attacker.is_sqlite:
        return
    for table, _key, forged in _colliding_rows(attacker):
        columns = ", ".join(forged)
        marks = ", ".join(["%s"] * len(forged))
        for verb in ("REPLACE", "INSERT OR REPLACE"):
            attacker.changes_nothing(
                f"{verb} INTO {table} ({columns}) VALUES ({marks})", *forged.values()
            )


def test_no_row_can_be_replaced_by_its_hidden_rowid(attacker: Attacker) -> None:
    if not attacker.is_sqlite:
        return
    for table, key, forged in _colliding_rows(attacker):
        if table in ("cdrs", "cdr_pricings", "cdr_reversals", "rate_versions", "audit_entries"):
            continue  # there it is not hidden: it is the id
        new = forged | {name: _forged("id", forged[name]) for name in key}
        columns = ", ".join(new)
        marks = ", ".join(["%s"] * len(new))
        (rowid,) = attacker.execute(f"SELECT rowid FROM {table} ORDER BY 1")[0]
        for alias in ("rowid", "oid", "_rowid_"):
            attacker.changes_nothing(
                f"REPLACE INTO {table} ({alias}, {columns}) VALUES (%s, {marks})",
                *(rowid, *new.values()),
            )


def test_no_row_can_be_changed_by_an_upsert(attacker: Attacker) -> None:
    for table, key, forged in _colliding_rows(attacker):
        if table in ("tenants", "extensions", "uploads"):
            continue  # these may be updated
        columns = ", ".join(forged)
        marks = ", ".join(["%s"] * len(forged))
        changed = [name for name in forged if name not in key][-1]
        where = "WHERE retired_revision IS NULL" if key in _UNIQUE["rate_versions"][1:] else ""
        if key == ("rate_id",):
            where += " AND rate_id <> version_id"
        if key == ("certificate_identity",):
            where = "WHERE revoked_at_ns IS NULL"
        if table == "cdr_pricings" and key == ("cdr_id",):
            where = "WHERE new_unrated_reason IS NULL"
        attacker.changes_nothing(
            f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT ({', '.join(key)})"
            f" {where} DO UPDATE SET {changed} = excluded.{changed}",
            *forged.values(),
        )


def test_a_duplicate_is_skipped_where_the_insert_asks_for_it(attacker: Attacker) -> None:
    others = ", ".join(name for name in _columns("cdrs") if name != "id")
    before = attacker.content()
    attacker.execute(
        f"INSERT INTO cdrs (id, {others}) SELECT id + 1000, {others} FROM cdrs WHERE true"
        " ON CONFLICT DO NOTHING"
    )
    assert attacker.content() == before


@pytest.mark.parametrize("status", ["status = 1", "status = 2"])
def test_an_unrated_cdr_can_be_priced_once(attacker: Attacker, status: str) -> None:
    price = _PRICE
    if status == "status = 2":
        price = (
            "status = 2, unrated_reason = NULL, bill_seconds = 0, cost_units = 0,"
            " cost_fraction_e8 = 0, rate_revision = 9"
        )
    attacker.execute(f"UPDATE cdrs SET {price} WHERE call_id = 'unrated'")
    after = attacker.execute("SELECT status, rate_revision FROM cdrs WHERE call_id = 'unrated'")
    assert after == [(int(status[-1]), 9)]
    attacker.is_refused(
        f"UPDATE cdrs SET {price} WHERE call_id = 'unrated'", match="a CDR never changes"
    )
    attacker.is_refused(
        "UPDATE cdrs SET status = 3, unrated_reason = 1, bill_seconds = NULL, cost_units = NULL,"
        " cost_fraction_e8 = NULL, rate_version_id = NULL WHERE call_id = 'unrated'",
        match="a CDR never changes",
    )


def test_pricing_changes_nothing_else(attacker: Attacker) -> None:
    for column in _columns("cdrs"):
        if column in _OUTCOME:
            continue
        ((value,),) = attacker.execute(f"SELECT {column} FROM cdrs WHERE call_id = 'unrated'")
        attacker.is_refused(
            f"UPDATE cdrs SET {_PRICE}, {column} = %s WHERE call_id = 'unrated'",
            _other(value),
            match="a CDR never changes",
        )


def test_an_unrated_cdr_may_get_another_reason_and_nothing_else(attacker: Attacker) -> None:
    ((reason, revision),) = attacker.execute(
        "SELECT unrated_reason, rate_revision FROM cdrs WHERE call_id = 'unrated'"
    )
    other = reason % 3 + 1
    correction = f"unrated_reason = {other}, rate_revision = {revision + 1}"
    for change in (
        f"unrated_reason = {other}",
        f"rate_revision = {revision + 1}",
        f"unrated_reason = {other}, rate_revision = {revision - 1}",
    ):
        attacker.is_refused(
            f"UPDATE cdrs SET {change} WHERE call_id = 'unrated'", match="a CDR never changes"
        )
    for column in _columns("cdrs"):
        if column in _OUTCOME:
            continue
        ((value,),) = attacker.execute(f"SELECT {column} FROM cdrs WHERE call_id = 'unrated'")
        attacker.is_refused(
            f"UPDATE cdrs SET {correction}, {column} = %s WHERE call_id = 'unrated'",
            _other(value),
            match="a CDR never changes",
        )
    attacker.execute(f"UPDATE cdrs SET {correction} WHERE call_id = 'unrated'")
    attacker.execute(f"UPDATE cdrs SET {_PRICE} WHERE call_id = 'unrated'")
    attacker.is_refused(
        f"UPDATE cdrs SET {correction} WHERE call_id = 'unrated'", match="a CDR never changes"
    )


def test_a_reversed_cdr_is_never_priced(attacker: Attacker) -> None:
    attacker.is_refused(
        f"UPDATE cdrs SET {_PRICE} WHERE call_id = 'withdrawn'",
        match="a CDR that is reversed never changes",
    )
    attacker.is_refused(f"UPDATE cdrs SET {_PRICE} WHERE status = 3", match="that is reversed")


def test_a_rate_version_can_be_retired_once(attacker: Attacker) -> None:
    attacker.is_refused(
        "UPDATE rate_versions SET retired_revision = 5, cost_per_minute_e8 = 1",
        match="never changes, but that it is retired once",
    )
    attacker.execute("UPDATE rate_versions SET retired_revision = 5")
    for revision in ("NULL", "5", "6"):
        attacker.is_refused(
            f"UPDATE rate_versions SET retired_revision = {revision}",
            match="never changes, but that it is retired once",
        )


def test_a_token_can_be_revoked_once(attacker: Attacker) -> None:
    only = "a token never changes, but that it is revoked once"
    for column in _columns("tokens"):
        if column in ("revoked_at_ns", "change_seq"):
            continue
        ((value,),) = attacker.execute(f"SELECT {column} FROM tokens")
        changed = "reader" if column == "role" else _other(value)
        for revoked in ("", ", revoked_at_ns = 5"):
            attacker.is_refused(f"UPDATE tokens SET {column} = %s{revoked}", changed, match=only)
    attacker.is_refused("UPDATE tokens SET change_seq = 9", match=only)
    attacker.execute("UPDATE tokens SET revoked_at_ns = 5, change_seq = 9")
    for revoked in ("NULL", "5", "6"):
        attacker.is_refused(f"UPDATE tokens SET revoked_at_ns = {revoked}", match=only)


def test_a_chain_only_grows_by_one(attacker: Attacker) -> None:
    for change in (
        *("length = length - 1", "length = length + 2", "length = 0", "length = NULL"),
        *("chain = chain + 20", "chain = chain + 20, length = length + 1"),
        "hash = (SELECT max(digest) FROM ledger_entries)",
    ):
        attacker.is_refused(f"UPDATE ledger_heads SET {change}", match="only grows")
    attacker.is_refused("DELETE FROM ledger_heads", match="is never deleted")


def test_objects_that_cdrs_refer_to_cannot_be_deleted(attacker: Attacker) -> None:
    attacker.is_refused("DELETE FROM tenants WHERE id = 1", match="CDRs refer to this tenant")
    attacker.is_refused("DELETE FROM tenants", match="CDRs refer to this tenant")
    attacker.is_refused("DELETE FROM extensions", match="CDRs refer to this extension")
    attacker.execute("DELETE FROM extensions WHERE id = 2")
    attacker.execute("DELETE FROM tenants WHERE id = 2")
    assert attacker.execute("SELECT id FROM tenants") == [(1,)]


def test_a_temporary_table_cannot_stand_in_for_the_cdrs(attacker: Attacker) -> None:
    attacker.execute("CREATE TEMPORARY TABLE cdrs (tenant_id BIGINT, extension_id BIGINT)")
    for table in ("tenants", "extensions"):
        with pytest.raises(_ERRORS, match="CDRs refer to this"):
            attacker.execute(f"DELETE FROM {table} WHERE id = 1")


def test_a_tenant_with_cdrs_keeps_its_currency(attacker: Attacker) -> None:
    attacker.is_refused("UPDATE tenants SET currency = 'EUR' WHERE id = 1", match="its currency")
    attacker.execute("UPDATE tenants SET name = 'Other', currency = 'USD' WHERE id = 1")
    attacker.execute("UPDATE tenants SET currency = 'EUR' WHERE id = 2")


@pytest.mark.parametrize(
    "change",
    [
        "id = 9",
        "created_at_ns = created_at_ns + 1",
        "scope_tenant_ids = '[1]'",
        *(
            f"{total} = {total} - 1"
            for total in (
                *("committed_offset", "created", "duplicates", "conflicts", "rejected"),
                *("unrated", "duration_seconds", "recorded_again", "derived_call_ids"),
                *("derived_duplicates", "revision"),
            )
        ),
    ],
)
def test_an_upload_only_grows(attacker: Attacker, change: str) -> None:
    attacker.is_refused(f"UPDATE uploads SET {change}", match="an upload only grows")


def test_an_upload_is_reversed_once_and_never_deleted(attacker: Attacker) -> None:
    attacker.execute("UPDATE uploads SET reversed_at_ns = 5")
    for time in ("6", "NULL"):
        attacker.is_refused(f"UPDATE uploads SET reversed_at_ns = {time}", match="reversed once")
    attacker.execute("UPDATE uploads SET created = created + 1, revision = revision + 1")
    attacker.is_refused("DELETE FROM uploads", match="never deleted")


@pytest.mark.parametrize(
    ("table", "column"), [("tenants", "id"), ("extensions", "id"), ("extensions", "tenant_id")]
)
def test_identities_never_change(attacker: Attacker, table: str, column: str) -> None:
    attacker.is_refused(f"UPDATE {table} SET {column} = 99 WHERE id = 1", match="keeps its id")


def _update(world: World, rate: Rate) -> None:
    changed = Rate(id=rate.id, cost_per_minute_e8=9_0000_0000, destination="elsewhere")
    world.rates.update(changed, frozenset({"cost_per_minute_e8", "destination"}), "")


def _expire(world: World, rate: Rate) -> None:
    world.rates.update(Rate(id=rate.id, effective_to_ns=1), frozenset({"effective_to_ns"}), "")


def _delete(world: World, rate: Rate) -> None:
    world.rates.delete(rate.id, "")


def _replace_deck(world: World, rate: Rate) -> None:
    other = [Rate(prefix="1", cost_per_minute_e8=1_0000)]
    world.import_deck(rate.tenant_id, ImportMode.REPLACE, False, other)


def _change_rules(world: World, rate: Rate) -> None:
    world.tenants.update(
        Tenant(id=rate.tenant_id, name="new", country_code="1"), frozenset({"name", "country_code"})
    )


@pytest.mark.parametrize("change", [_update, _expire, _delete, _replace_deck, _change_rules])
def test_cdrs_stay_as_they_were_whatever_happens_to_their_rate(
    world: World, change: Callable[[World, Rate], None]
) -> None:
    rate = world.rates.get(1)
    before = [world.cdrs.get(cdr_id) for cdr_id in (1, 2, 3, 4)]
    assert before[0].rate == rate
    change(world, rate)
    assert [world.cdrs.get(cdr_id) for cdr_id in (1, 2, 3, 4)] == before
