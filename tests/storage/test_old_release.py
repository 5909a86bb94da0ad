"""A database of the first schema, migrated to this release's: no recorded value changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import text

from tests.storage import old_release
from tests.storage.old_release import OldRelease
from tests.world import World, call, calls
from tollwire.service.domain.model import CdrFilter, RatingStatus, ReversalRequest, Tenant
from tollwire.service.domain.record_model import LedgerDifference, VerificationFilter
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.verification import Verification
from tollwire.service.rpc.conversion.cdrs import cdr as as_message
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import migrate, triggers


@pytest.fixture
def old(empty_database_url: str) -> OldRelease:
    return old_release.fill(empty_database_url)


@pytest.fixture
def migrated(old: OldRelease) -> Iterator[Database]:
    database = Database(old.url)
    assert migrate.upgrade(database) == ("0001", migrate.newest())
    yield database
    database.close()


def _ledger_differences(database: Database, root: str) -> list[LedgerDifference]:
    return [one for part in Ledger(database).verify(root) for one in part.differences]


def _cost_differences(database: Database) -> tuple[int, list[Any]]:
    parts = list(Verification(database).verify(VerificationFilter()))
    return parts[-1].checked, [one for part in parts for one in part.differences]


def _is_part_of(known: Any, found: Any) -> bool:
    """Later releases show more fields of a CDR, and the earlier fields unchanged."""
    if isinstance(known, dict):
        return all(name in found and _is_part_of(known[name], found[name]) for name in known)
    return bool(known == found)


def test_no_cdr_changes(old: OldRelease, migrated: Database) -> None:
    found = World.over(migrated).cdrs.list(CdrFilter(), 1000, "").items
    shown = [MessageToDict(as_message(cdr), preserving_proto_field_name=True) for cdr in found]
    assert len(shown) == len(old.listed)
    for known, new in zip(old.listed, shown, strict=True):
        assert _is_part_of(known, new), (known, new)
    assert {cdr.tenant.cost_decimals for cdr in found} == {4}
    statuses = {(cdr.status, cdr.unrated_reason) for cdr in found}
    assert len(statuses) == 4  # rated, not billable, and unrated for two reasons


def test_ledger_and_costs_hold(old: OldRelease, migrated: Database) -> None:
    ledger = Ledger(migrated)
    # The chains of the record of calls are as they were.
    assert ledger.root().root.startswith(old.root.partition(":")[0] + "-")
    assert _ledger_differences(migrated, old.root) == []
    assert _cost_differences(migrated) == (len(old.listed), [])


def test_the_record_continues(old: OldRelease, migrated: Database) -> None:
    world = World.over(migrated)
    tenants = {tenant.name: tenant.id for tenant in world.tenants.list(10, "").items}
    acme, globex = tenants["Acme"], tenants["Globex"]
    assert world.cdrs.create(call(acme, "4420", 7, call_id="after")).id  # a duplicate
    before = len(old.listed)
    assert len(world.rows()) == before
    world.tenants.update(Tenant(id=globex, cost_decimals=8), frozenset({"cost_decimals"}))
    world.rates.create(
        replace(
            world.rates.list(globex, "", 1, "").items[0],
            prefix="86",
            cost_per_minute_e8=137_000,
        )
    )
    fine = world.cdrs.create(call(globex, "8613", 7, call_id="fine"))
    assert fine.status == RatingStatus.RATED and fine.cost_e8 is not None and fine.cost_e8 % 10_000
    made = world.commit(0, 0, calls(acme, 500, 20, number="447911123456", seconds=63))
    assert made.created == 20
    old_unrated = next(
        cdr
        for cdr in world.cdrs.list(CdrFilter(status=RatingStatus.UNRATED), 10, "").items
        if cdr.reversal is None
    )
    for cdr_id in (fine.id, old_unrated.id, 2):
        assert world.reversals.reverse_cdr(cdr_id, ReversalRequest("test", "test")).reversal
    world.rate(globex, "77", 1_0000, 1)
    assert _ledger_differences(migrated, old.root) == []
    assert _cost_differences(migrated) == (before + 21, [])


@pytest.mark.parametrize(
    "change",
    [
        # Each change is lost if a row is converted to the format of old entries.
        "UPDATE cdrs SET cost_fraction_e8 = cost_fraction_e8 + 1 WHERE id = 3",
        "UPDATE cdrs SET generation = 1 WHERE id = 3",
        "UPDATE cdrs SET cost_fraction_e8 = cost_fraction_e8 + 1"
        " WHERE id = (SELECT min(cdr_id) FROM cdr_pricings)",
        "UPDATE cdr_reversals SET cost_fraction_e8 = cost_fraction_e8 - 1"
        " WHERE id = (SELECT min(id) FROM cdr_reversals WHERE cost_units IS NOT NULL)",
        "UPDATE ledger_entries SET format = 2 WHERE seq = 3 AND kind < 4",
        "UPDATE ledger_entries SET format = 3 WHERE seq = 3 AND kind < 4",
        "UPDATE cdrs SET cost_fraction_e8 = cost_fraction_e8 + 10000 WHERE id = 3",
    ],
)
def test_changes_after_the_migration_are_found(
    change: str, old: OldRelease, migrated: Database
) -> None:
    with migrated.write() as connection:
        triggers.drop(connection)
        assert connection.execute(text(change)).rowcount == 1
        triggers.install(connection)
    assert _ledger_differences(migrated, old.root)
