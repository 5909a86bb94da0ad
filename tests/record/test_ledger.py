"""The ledger of records that an owner of the database has changed.

The attacker removes the triggers first, as the owner of the tables can.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from sqlalchemy import text

from tests.databases import Fill
from tests.world import World, at_once, call, calls
from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import ReversalRequest, UnratedReason
from tollwire.service.domain.record_model import (
    LedgerDifference,
    LedgerDifferenceKind,
    LedgerProgress,
)
from tollwire.service.record import ledger_rows
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.signatures import signer
from tollwire.service.storage import covered_rows
from tollwire.service.storage import ledger as storage
from tollwire.service.storage.engine import Database
from tollwire.service.storage.ledger import EntryKind
from tollwire.service.storage.reversals import IdRange
from tollwire.service.storage.schema import triggers

CHAIN, ROWS, NOT_ENTERED, ROOT, TRIGGER, TIME = LedgerDifferenceKind


@dataclass
class Audit:
    """A ledger with entries of all kinds, and the results of its verification."""

    world: World
    ledger: Ledger

    def verify(self, root: str = "") -> LedgerProgress:
        """The last response, with all differences."""
        told = list(self.ledger.verify(root))
        assert [one.done for one in told] == [False] * (len(told) - 1) + [True]
        differences = tuple(one for part in told for one in part.differences)
        last = told[-1]
        return LedgerProgress(
            last.entries_checked, last.rows_checked, last.rows_per_second, differences, True
        )

    def differences(self, root: str = "") -> list[LedgerDifference]:
        return list(self.verify(root).differences)

    def kinds(self, root: str = "") -> list[LedgerDifferenceKind]:
        return [difference.kind for difference in self.differences(root)]

    def attack(self, *statements: str, **values: Any) -> None:
        """All statements run without the triggers; each must change something."""
        with self.world.database.write() as connection:
            triggers.drop(connection)
            for statement in statements:
                wanted = {name: values[name] for name in re.findall(r":(\w+)", statement)}
                assert connection.execute(text(statement), wanted).rowcount > 0, statement
            triggers.install(connection)

    def entries(self, chain: int = 0) -> list[storage.Entry]:
        with self.world.database.read() as connection:
            return storage.entries(connection, chain, 1, 1000, 1000)


def entries_of_all_kinds(database: Database) -> None:
    """Entries 1 to 6 of chain 0: CDR 1; 2 to 4, an upload's; 5 and 6, of which 5 has no price;
    the pricing of 5; CDR 7; 8 to 10."""
    world = World.over(database)
    payer = world.tenant()
    world.rate(payer, "44", 200, 6)
    world.cdrs.create(call(payer, call_id="a"))
    upload_id = world.commit(0, 0, calls(payer, 0, 3)).upload_id
    world.commit(upload_id, 3, [call(payer, "33", call_id="late"), call(payer, call_id="x")])
    world.rate(payer, "33", 300, 6)
    assert world.cdrs.rate_unrated(0, None, None).rated == 1
    world.cdrs.create(call(payer, "99", call_id="unrated"))
    world.commit(upload_id, 5, calls(payer, 3, 3, caller_number="é"))


@pytest.fixture
def fill(request: pytest.FixtureRequest) -> Fill | None:
    return entries_of_all_kinds if "audit" in request.fixturenames else None


@pytest.fixture
def audit(database: Database) -> Audit:
    """Of ``entries_of_all_kinds``."""
    return Audit(World.over(database), Ledger(database, lambda: 77))


def test_an_empty_ledger(database: Database) -> None:
    ledger = Ledger(database, lambda: 77)
    root = ledger.root()
    assert root.root == "0:" + hashlib.sha256(b"tollwire.root.1").hexdigest()
    assert (root.entries, root.created_at_ns) == (0, 77)
    for noted in ("", root.root):
        *_, told = ledger.verify(noted)
        assert (told.entries_checked, told.rows_checked, told.differences) == (0, 0, ())


def test_missing_triggers_are_reported(audit: Audit) -> None:
    off = (
        "DROP TRIGGER tollwire_cdrs_update"
        if audit.world.database.is_sqlite
        else "ALTER TABLE cdrs DISABLE TRIGGER tollwire_cdrs_update"
    )
    with audit.world.database.write() as connection:
        connection.exec_driver_sql(off)
    (found,) = audit.differences(audit.ledger.root().root)
    assert found.kind is TRIGGER
    assert "tollwire_cdrs_update of cdrs" in found.message
    assert "tollwire migrate" in found.message


def test_an_unchanged_ledger_verifies(audit: Audit) -> None:
    root = audit.ledger.root()
    others = "-" if audit.world.database.is_sqlite else "-0" * 15 + "-"
    assert re.fullmatch(f"6{others}10:[0-9a-f]{{64}}", root.root)
    assert root.entries == 16
    for noted in ("", root.root):
        told = audit.verify(noted)
        assert told.differences == ()
        assert (told.entries_checked, told.rows_checked) == (16, 19)
        assert told.rows_per_second > 0
    assert audit.ledger.root() == root
    kinds = [(one.kind, one.first_id, one.row_count) for one in audit.entries()]
    assert kinds == [(1, 1, 1), (1, 2, 3), (1, 5, 2), (2, 1, 1), (1, 7, 1), (1, 8, 3)]


def test_a_grown_ledger_matches_each_earlier_root(audit: Audit) -> None:
    roots = [audit.ledger.root().root]
    for index in range(3):
        audit.world.cdrs.create(call(1, call_id=f"later {index}"))
        roots.append(audit.ledger.root().root)
    assert len(set(roots)) == 4
    for root in roots:
        assert audit.differences(root) == []


UNRATED_AGAIN = (
    "UPDATE cdrs SET status = 3, unrated_reason = 1, bill_seconds = NULL, cost_units = NULL,"
    " cost_fraction_e8 = NULL, rate_version_id = NULL, rate_revision ="
    " (SELECT rate_revision FROM cdr_pricings) WHERE id = 5"
)
COPIED = (
    "tenant_id, {call_id}, extension_id, caller_number, destination_number, direction,"
    " disposition, duration_seconds, started_at_ns, ended_at_ns, status, unrated_reason,"
    " bill_seconds, cost_units, cost_fraction_e8, rate_version_id, rate_revision, upload_id,"
    " created_at_ns"
)


def copied(cdr_id: int, new_id: int) -> str:
    columns = COPIED.format(call_id="call_id")
    values = COPIED.format(call_id="call_id || 'forged'")
    return (
        f"INSERT INTO cdrs (id, {columns}) SELECT {new_id}, {values} FROM cdrs WHERE id = {cdr_id}"
    )


# The attack, and where it is found: kind, seq, first_id, row_count, a word of the message.
Found = tuple[LedgerDifferenceKind, int, int, int, str]
SECOND = (ROWS, 2, 2, 3)
ATTACKS: dict[str, tuple[list[str], list[Found]]] = {
    "a changed cost": (
        ["UPDATE cdrs SET cost_fraction_e8 = cost_fraction_e8 + 1 WHERE id = 3"],
        [(*SECOND, "were changed")],
    ),
    "a changed number": (
        ["UPDATE cdrs SET destination_number = '4421' WHERE id = 3"],
        [(*SECOND, "were changed")],
    ),
    "a changed call_id": (
        ["UPDATE cdrs SET call_id = 'b' WHERE id = 4"],
        [(*SECOND, "were changed")],
    ),
    "a changed upload": (
        ["UPDATE cdrs SET upload_id = NULL WHERE id = 4"],
        [(*SECOND, "were changed")],
    ),
    "an impossible value": (
        ["UPDATE cdrs SET bill_seconds = -1 WHERE id = 4"],
        [(*SECOND, "CDR 4 cannot have bill_seconds -1")],
    ),
    "a deleted CDR": (["DELETE FROM cdrs WHERE id = 3"], [(*SECOND, "2 of its 3 CDRs exist")]),
    "the last CDRs deleted": (
        ["DELETE FROM cdrs WHERE id >= 8"],
        [(ROWS, 6, 8, 3, "0 of its 3 CDRs")],
    ),
    "all CDRs deleted": (
        ["DELETE FROM cdrs"],
        [
            *((ROWS, 1, 1, 1, "0 of its 1"), (ROWS, 2, 2, 3, "0 of its 3")),
            *((ROWS, 3, 5, 2, "0 of its 2"), (ROWS, 5, 7, 1, "0 of its 1")),
            *((ROWS, 6, 8, 3, "0 of its 3"), (ROWS, 4, 1, 1, "which does not exist")),
        ],
    ),
    "an inserted CDR": ([copied(3, 11)], [(NOT_ENTERED, 0, 11, 1, "CDRs")]),
    "inserted CDRs, here and there": (
        [copied(3, -(2**63)), copied(4, 11), copied(2, 12), copied(1, 2**63 - 1)],
        [
            *((NOT_ENTERED, 0, -(2**63), 1, "CDRs"), (NOT_ENTERED, 0, 11, 2, "CDRs")),
            (NOT_ENTERED, 0, 2**63 - 1, 1, "CDRs"),
        ],
    ),
    "two CDRs that changed places": (
        [
            "UPDATE cdrs SET id = 100 WHERE id = 2",
            "UPDATE cdrs SET id = 2 WHERE id = 3",
            "UPDATE cdrs SET id = 3 WHERE id = 100",
        ],
        [(*SECOND, "were changed")],
    ),
    "a changed cost of one that was priced late": (
        ["UPDATE cdrs SET cost_fraction_e8 = cost_fraction_e8 + 1 WHERE id = 5"],
        [(ROWS, 4, 1, 1, "pricings were changed")],
    ),
    "a CDR priced without an entry": (
        [
            "UPDATE cdrs SET status = 1, unrated_reason = NULL, bill_seconds = 1, cost_units = 0,"
            " cost_fraction_e8 = 1, rate_version_id = 1 WHERE id = 7"
        ],
        [(ROWS, 5, 7, 1, "were changed")],
    ),
    "a priced CDR set back": (
        [UNRATED_AGAIN],
        [(ROWS, 3, 5, 2, "CDR 5 was priced, but has no"), (ROWS, 4, 1, 1, "has no price")],
    ),
    "a priced CDR set back with its pricing": (
        [UNRATED_AGAIN, "DELETE FROM cdr_pricings"],
        [(ROWS, 4, 1, 1, "0 of its 1 pricings")],
    ),
    "a changed pricing": (
        ["UPDATE cdr_pricings SET priced_at_ns = priced_at_ns + 1"],
        [(ROWS, 4, 1, 1, "pricings were changed")],
    ),
    "a pricing with another reason": (
        ["UPDATE cdr_pricings SET unrated_reason = 2"],
        [(ROWS, 3, 5, 2, "CDRs were changed"), (ROWS, 4, 1, 1, "pricings were changed")],
    ),
    "a deleted pricing": (
        ["DELETE FROM cdr_pricings"],
        [(ROWS, 3, 5, 2, "CDRs were changed"), (ROWS, 4, 1, 1, "0 of its 1")],
    ),
    "an inserted pricing": (
        ["INSERT INTO cdr_pricings SELECT 9, 2, 1, 1, 1, NULL, NULL FROM cdr_pricings"],
        [(*SECOND, "CDRs were changed"), (NOT_ENTERED, 0, 9, 1, "pricings")],
    ),
    "a changed entry": (
        ["UPDATE ledger_entries SET created_at_ns = created_at_ns + 1 WHERE chain = 0 AND seq = 3"],
        [(CHAIN, 3, 0, 0, "was changed"), (ROWS, 3, 5, 2, "have another time than the entry")],
    ),
    "an entry with another hash": (
        ["UPDATE ledger_entries SET hash = digest WHERE chain = 0 AND seq = 3"],
        [(CHAIN, 3, 0, 0, "was changed"), (CHAIN, 4, 0, 0, "does not follow")],
    ),
    "the last entry with another hash": (
        ["UPDATE ledger_entries SET hash = digest WHERE chain = 0 AND seq = 6"],
        [(CHAIN, 6, 0, 0, "was changed"), (CHAIN, 6, 0, 0, "does not match its last entry")],
    ),
    "an entry of other rows": (
        ["UPDATE ledger_entries SET row_count = 2 WHERE chain = 0 AND seq = 2"],
        [
            *((CHAIN, 2, 0, 0, "was changed"), (ROWS, 2, 2, 2, "were changed")),
            (NOT_ENTERED, 0, 4, 1, "CDRs"),
        ],
    ),
    "an entry of far too many rows": (
        ["UPDATE ledger_entries SET row_count = 2147483647 WHERE chain = 0 AND seq = 2"],
        [
            *((CHAIN, 2, 0, 0, "was changed"), (ROWS, 2, 2, 2**31 - 1, "no transaction can write")),
            (NOT_ENTERED, 0, 2, 3, "CDRs"),
        ],
    ),
    "an entry of rows of another": (
        ["UPDATE ledger_entries SET row_count = 4 WHERE chain = 0 AND seq = 2"],
        [
            *((CHAIN, 2, 0, 0, "was changed"), (ROWS, 2, 2, 4, "were changed")),
            (ROWS, 3, 5, 2, "another entry contains"),
            (NOT_ENTERED, 0, 6, 1, "CDRs"),
        ],
    ),
    "an entry deleted from the middle": (
        ["DELETE FROM ledger_entries WHERE chain = 0 AND seq = 2"],
        [(CHAIN, 2, 0, 0, "entries up to 2 are missing"), (NOT_ENTERED, 0, 2, 3, "CDRs")],
    ),
    "the first entries deleted": (
        ["DELETE FROM ledger_entries WHERE chain = 0 AND seq <= 2"],
        [(CHAIN, 1, 0, 0, "up to 2 are missing"), (NOT_ENTERED, 0, 1, 4, "CDRs")],
    ),
    "the last entry deleted": (
        ["DELETE FROM ledger_entries WHERE chain = 0 AND seq = 6"],
        [(CHAIN, 6, 0, 0, "up to 6 are missing"), (NOT_ENTERED, 0, 8, 3, "CDRs")],
    ),
    "the last entry deleted, and the head set back": (
        [
            "DELETE FROM ledger_entries WHERE chain = 0 AND seq = 6",
            "UPDATE ledger_heads SET length = 5,"
            " hash = (SELECT hash FROM ledger_entries WHERE chain = 0 AND seq = 5) WHERE chain = 0",
        ],
        [(NOT_ENTERED, 0, 8, 3, "CDRs")],
    ),
    "an entry added behind the head": (
        [
            "INSERT INTO ledger_entries SELECT chain, 7, 1, 50, 1, digest, hash, 5, format, 0, NULL"
            " FROM ledger_entries WHERE chain = 0 AND seq = 6"
        ],
        [(CHAIN, 7, 0, 0, "after the end of the chain"), (ROWS, 7, 50, 1, "0 of its 1")],
    ),
    "an entry added, and the head moved": (
        [
            "INSERT INTO ledger_entries SELECT chain, 7, 1, 50, 1, digest, hash, 5, format, 0, NULL"
            " FROM ledger_entries WHERE chain = 0 AND seq = 6",
            "UPDATE ledger_heads SET length = 7 WHERE chain = 0",
        ],
        [(CHAIN, 7, 0, 0, "was changed, or does not"), (ROWS, 7, 50, 1, "0 of its 1")],
    ),
    "an entry added before the first": (
        [
            copied(3, -5),
            "INSERT INTO ledger_entries SELECT chain, -9223372036854775808, 1, -5, 1, digest, hash,"
            " 5, format, 0, NULL FROM ledger_entries WHERE chain = 0 AND seq = 6",
        ],
        [
            (CHAIN, -(2**63), 0, 0, "before the first entry of the chain"),
            (ROWS, -(2**63), -5, 1, "no CDRs can have ids from -5"),
            (NOT_ENTERED, 0, -5, 1, "CDRs"),
        ],
    ),
    "an entry in a chain that does not exist": (
        [
            "INSERT INTO ledger_entries SELECT 99, 1, 1, 50, 1, digest, hash, 5, format, 0, NULL"
            " FROM ledger_entries WHERE chain = 0 AND seq = 6"
        ],
        [(CHAIN, 0, 0, 0, "the end of chain 99 is missing"), (ROWS, 1, 50, 1, "0 of its 1")],
    ),
    "entries that changed places": (
        [
            "UPDATE ledger_entries SET seq = 100 WHERE chain = 0 AND seq = 2",
            "UPDATE ledger_entries SET seq = 2 WHERE chain = 0 AND seq = 3",
            "UPDATE ledger_entries SET seq = 3 WHERE chain = 0 AND seq = 100",
        ],
        [(CHAIN, seq, 0, 0, "does not follow") for seq in (2, 3, 4)],
    ),
    "another head": (
        ["UPDATE ledger_heads SET hash = (SELECT max(digest) FROM ledger_entries) WHERE chain = 0"],
        [(CHAIN, 6, 0, 0, "the end of the chain does not match its last entry")],
    ),
    "a head without its entries": (
        ["DELETE FROM ledger_entries WHERE chain = 0"],
        [
            *((CHAIN, 1, 0, 0, "up to 6 are missing"), (NOT_ENTERED, 0, 1, 10, "CDRs")),
            (NOT_ENTERED, 0, 1, 1, "pricings"),
        ],
    ),
    "entries without their head": (
        ["DELETE FROM ledger_heads WHERE chain = 0"],
        [(CHAIN, 0, 0, 0, "the end of chain 0 is missing")],
    ),
}


CORRECTED_CDR = 7
# What is done to CDR 7, whose reason was corrected twice by pricings 2 and 3: entries 7 and 8.
CORRECTION_ATTACKS: dict[str, tuple[list[str], list[tuple[Any, ...]]]] = {
    "another reason in the CDR": (
        [f"UPDATE cdrs SET unrated_reason = 3 WHERE id = {CORRECTED_CDR}"],
        [(ROWS, 8, 3, 1, "that the CDR does not have")],
    ),
    "another revision in the CDR": (
        [f"UPDATE cdrs SET rate_revision = rate_revision + 1 WHERE id = {CORRECTED_CDR}"],
        [(ROWS, 8, 3, 1, "that the CDR does not have")],
    ),
    "another reason in the last correction and in the CDR": (
        [
            f"UPDATE cdrs SET unrated_reason = 3 WHERE id = {CORRECTED_CDR}",
            "UPDATE cdr_pricings SET new_unrated_reason = 3 WHERE id = 3",
        ],
        [(ROWS, 8, 3, 1, "pricings were changed")],
    ),
    "another reason in the first correction": (
        ["UPDATE cdr_pricings SET new_unrated_reason = 3 WHERE id = 2"],
        [(ROWS, 7, 2, 1, "that the CDR does not have")],
    ),
    "another reason between the corrections": (
        [
            "UPDATE cdr_pricings SET new_unrated_reason = 3 WHERE id = 2",
            "UPDATE cdr_pricings SET unrated_reason = 3 WHERE id = 3",
        ],
        [(ROWS, 7, 2, 1, "pricings were changed"), (ROWS, 8, 3, 1, "pricings were changed")],
    ),
    "no corrections": (
        ["DELETE FROM cdr_pricings WHERE id > 1"],
        [(ROWS, 5, 7, 1, "CDRs were changed"), (ROWS, 7, 2, 1, "0 of"), (ROWS, 8, 3, 1, "0 of")],
    ),
    "a price beside the corrections": (
        [
            "UPDATE cdrs SET status = 2, unrated_reason = NULL, bill_seconds = 0, cost_units = 0,"
            f" cost_fraction_e8 = 0 WHERE id = {CORRECTED_CDR}"
        ],
        [(ROWS, 5, 7, 1, "has a price, but no pricing"), (ROWS, 8, 3, 1, "does not have")],
    ),
    "a correction made a pricing": (
        [
            "UPDATE cdr_pricings SET new_unrated_reason = NULL, new_rate_revision = NULL"
            " WHERE id = 2"
        ],
        [(ROWS, 7, 2, 1, "and by a later one")],
    ),
}


@pytest.mark.parametrize("name", list(CORRECTION_ATTACKS))
def test_changes_of_a_corrected_reason_are_found(audit: Audit, name: str) -> None:
    world = audit.world
    rate = world.rate(1, "99", blocked=True)
    assert world.cdrs.rate_unrated(0, None, None).reason_corrected == 1
    world.rates.delete(rate.id, "")
    world.rate(1, "44", blocked=True, effective_from_ns=1)
    assert world.cdrs.rate_unrated(0, None, None).reason_corrected == 1
    assert world.cdrs.get(CORRECTED_CDR).unrated_reason == UnratedReason.NO_RATE
    assert audit.differences() == []
    statements, expected = CORRECTION_ATTACKS[name]
    audit.attack(*statements)
    found = audit.differences()
    assert [(one.kind, one.seq, one.first_id, one.row_count) for one in found] == [
        one[:4] for one in expected
    ]
    for difference, (*_, words) in zip(found, expected, strict=True):
        assert words in difference.message


@pytest.mark.parametrize("name", list(ATTACKS))
def test_changes_by_the_owner_of_the_database_are_found(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    statements, expected = ATTACKS[name]
    audit.attack(*statements)
    whole = audit.verify()
    found = whole.differences
    assert [(one.kind, one.seq, one.first_id, one.row_count) for one in found] == [
        one[:4] for one in expected
    ]
    for difference, (*_, words) in zip(found, expected, strict=True):
        assert words in difference.message
        assert difference.chain == 0 or name.startswith("an entry in a chain")
    # With another size of parts the same is found, row by row.
    in_small_parts(monkeypatch)
    parts = audit.verify("6:" + "0" * 64)
    assert parts.entries_checked == whole.entries_checked
    assert parts.rows_checked == whole.rows_checked
    assert {one for one in parts.differences if one.kind in (CHAIN, ROWS)} == {
        one for one in found if one.kind in (CHAIN, ROWS)
    }
    assert rows_not_entered(parts) == rows_not_entered(whole)


def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "tollwire.service.record.ledger.PART_ENTRIES",
        "tollwire.service.record.ledger_rows.PART_ENTRIES",
        "tollwire.service.record.ledger_covered.PART_ENTRIES",
    ):
        monkeypatch.setattr(name, 2)
    monkeypatch.setattr("tollwire.service.record.ledger_rows.PART_ROWS", 2)
    monkeypatch.setattr("tollwire.service.record.ledger.PROGRESS_SECONDS", 0)


def rows_not_entered(told: LedgerProgress) -> set[tuple[str, int]]:
    return {
        (one.message, row_id)
        for one in told.differences
        if one.kind == NOT_ENTERED
        for row_id in range(one.first_id, one.first_id + one.row_count)
    }


REVERSED = (ROWS, 7, 1, 2)
ATTACKS_ON_REVERSALS: dict[str, tuple[str, list[Found]]] = {
    "a changed reversal": (
        "UPDATE cdr_reversals SET cost_units = -9 WHERE cdr_id = 3",
        [(*REVERSED, "reversals were changed")],
    ),
    "another reason": (
        "UPDATE cdr_reversals SET reason = 'other' WHERE cdr_id = 3",
        [(*REVERSED, "reversals were changed")],
    ),
    "somebody else asked": (
        "UPDATE cdr_reversals SET requested_by = 'nobody' WHERE cdr_id = 3",
        [(*REVERSED, "reversals were changed")],
    ),
    "a removed cost": (
        "UPDATE cdr_reversals SET cost_units = NULL, cost_fraction_e8 = NULL",
        [(*REVERSED, "reversals were changed")],
    ),
    "an impossible value": (
        "UPDATE cdr_reversals SET upload_id = 0 WHERE cdr_id = 3",
        [(*REVERSED, "has impossible values")],
    ),
    "a deleted reversal": (
        "DELETE FROM cdr_reversals WHERE cdr_id = 3",
        [(*REVERSED, "1 of its 2 reversals")],
    ),
    "an inserted reversal": (
        "INSERT INTO cdr_reversals (id, cdr_id, tenant_id, started_at_ns, cost_units,"
        " cost_fraction_e8, created_at_ns, reason, requested_by) SELECT 3, 1, tenant_id,"
        " started_at_ns, 0, 0, 5, 'x', 'x' FROM cdrs WHERE id = 1",
        [(NOT_ENTERED, 0, 3, 1, "reversals")],
    ),
}


ONLY_SQLITE = {
    "a number that is no text": (
        "UPDATE cdrs SET caller_number = CAST(x'ff' AS TEXT) WHERE id = 3",
        (*SECOND, "CDR 3 cannot have caller_number"),
    ),
    "a number that is none": (
        "UPDATE cdrs SET rate_revision = 'x' WHERE id = 3",
        (*SECOND, "CDR 3 cannot have rate_revision 'x'"),
    ),
    "a pricing of no number": (
        "UPDATE cdr_pricings SET priced_at_ns = 'x'",
        (ROWS, 4, 1, 1, "pricing 1 is for CDR 5"),
    ),
    "a reason that is no text": (
        "UPDATE cdr_reversals SET reason = CAST(x'ff' AS TEXT)",
        (ROWS, 7, 1, 1, "reversal 1 has impossible values"),
    ),
    "an entry of no number": (
        "UPDATE ledger_entries SET created_at_ns = 'x' WHERE chain = 0 AND seq = 2",
        (CHAIN, 2, 0, 0, "the entry has impossible values"),
    ),
    "an entry of half a row": (
        "UPDATE ledger_entries SET row_count = 2.5 WHERE chain = 0 AND seq = 2",
        (CHAIN, 2, 0, 0, "the entry has impossible values"),
    ),
    "an entry from nowhere": (
        "UPDATE ledger_entries SET first_id = 'x' WHERE chain = 0 AND seq = 2",
        (CHAIN, 2, 0, 0, "the entry has impossible values"),
    ),
    "an entry in no place": (
        "UPDATE ledger_entries SET seq = 'x' WHERE chain = 0 AND seq = 2",
        (CHAIN, 0, 0, 0, "after the end of the chain"),
    ),
    "an entry of no chain": (
        "UPDATE ledger_entries SET chain = 'x' WHERE chain = 0 AND seq = 2",
        (CHAIN, 0, 0, 0, "the end of chain 'x' is missing"),
    ),
    "a head of no length": (
        "UPDATE ledger_heads SET length = 'x' WHERE chain = 0",
        (CHAIN, 0, 0, 0, "the end of chain 0 is missing"),
    ),
    "a head without a hash": (
        "UPDATE ledger_heads SET hash = 5 WHERE chain = 0",
        (CHAIN, 0, 0, 0, "the end of chain 0 is missing"),
    ),
}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", list(ONLY_SQLITE))
def test_values_of_other_types_are_found_too(audit: Audit, name: str) -> None:
    """SQLite accepts any value in any column."""
    audit.world.reversals.reverse_cdr(3, ReversalRequest(reason="twice", requested_by="Ada"))
    statement, expected = ONLY_SQLITE[name]
    audit.attack(statement)
    found = [
        (one.kind, one.seq, one.first_id, one.row_count, one.message) for one in audit.differences()
    ]
    assert any(one[:4] == expected[:4] and expected[4] in one[4] for one in found), found


@pytest.mark.parametrize("name", ["nothing", *ATTACKS_ON_REVERSALS])
def test_reversals_are_verified(audit: Audit, name: str) -> None:
    request = ReversalRequest(reason="twice", requested_by="Ada")
    with audit.world.database.write() as connection:
        ranges = [IdRange(3, 3), IdRange(7, 7)]
        audit.world.reversals._reverse(connection, ranges, request, "ReverseUpload", "upload 1")
    assert audit.entries()[-1][2:5] == (EntryKind.REVERSED, 1, 2)
    assert audit.verify().rows_checked == 22
    statement, expected = ATTACKS_ON_REVERSALS.get(name, ("", []))
    if statement:
        audit.attack(statement)
    found = audit.differences()
    assert [(one.kind, one.seq, one.first_id, one.row_count) for one in found] == [
        one[:4] for one in expected
    ]
    for difference, (*_, words) in zip(found, expected, strict=True):
        assert words in difference.message


def chained_anew(audit: Audit, from_seq: int) -> Iterator[storage.Entry]:
    """The entries from there on, written by an attacker who can compute the chain."""
    entries = audit.entries()
    last_hash = entries[from_seq - 2].hash if from_seq > 1 else storage.NO_HASH
    for entry in entries[from_seq - 1 :]:
        with audit.world.database.snapshot() as connection:
            kind = ledger_rows.KINDS[EntryKind(entry.kind)]
            rows = kind.read(connection, entry.first_id, entry.first_id + entry.row_count, 1000)
        digest = rows.digest(0, entry.row_count, entry.format)
        last_hash = storage.entry_hash(last_hash, *entry[:5], entry.created_at_ns, digest)
        yield entry._replace(digest=digest, hash=last_hash)


@pytest.mark.parametrize("from_seq", [1, 2])
def test_a_rewritten_chain_does_not_match_an_earlier_root(audit: Audit, from_seq: int) -> None:
    root = audit.ledger.root().root
    audit.attack("UPDATE cdrs SET cost_units = 9 WHERE id = 3")
    forged = list(chained_anew(audit, from_seq))
    for entry in forged:
        audit.attack(
            "UPDATE ledger_entries SET digest = :digest, hash = :hash"
            " WHERE chain = 0 AND seq = :seq",
            **entry._asdict(),
        )
    audit.attack("UPDATE ledger_heads SET hash = :hash WHERE chain = 0", hash=forged[-1].hash)
    assert audit.differences() == []
    assert audit.kinds(root) == [ROOT]
    audit.world.cdrs.create(call(1, call_id="later"))
    assert audit.differences() == []
    assert audit.kinds(root) == [ROOT]
    assert audit.differences(audit.ledger.root().root) == []


def test_a_truncated_ledger_does_not_match_the_root(audit: Audit) -> None:
    root = audit.ledger.root().root
    audit.attack(
        "DELETE FROM cdrs WHERE id >= 8",
        "DELETE FROM ledger_entries WHERE chain = 0 AND seq = 6",
        "UPDATE ledger_heads SET length = 5,"
        " hash = (SELECT hash FROM ledger_entries WHERE chain = 0 AND seq = 5) WHERE chain = 0",
    )
    assert audit.differences() == []
    (difference,) = audit.differences(root)
    assert difference.kind == ROOT
    assert "chain 0 had 6 entries in the given root, and has 5 now" in difference.message
    # Later entries differ from the removed ones.
    audit.world.commit(0, 0, calls(1, 100, 3))
    assert audit.kinds(root) == [ROOT]


NO_ROOTS = (
    *("x", ":", "1:", "1:00", "-1:" + "0" * 64, "1-:" + "0" * 64, "1:" + "0" * 63 + "G"),
    *("9223372036854775808:" + "0" * 64, "1-" * 2000 + "1:" + "0" * 64, "é:" + "0" * 64),
)


def test_an_invalid_root_is_refused_at_once(audit: Audit) -> None:
    for root in NO_ROOTS:
        with pytest.raises(InvalidInput) as failure:
            audit.ledger.verify(root)
        assert [wrong.field for wrong in failure.value.violations] == ["root"]


def test_a_root_of_another_database(audit: Audit) -> None:
    for lengths in ("1", "6", "5-1", "0-6", "9223372036854775807", "7"):
        assert ROOT in audit.kinds(f"{lengths}:{'0' * 64}")


def test_many_rows_without_an_entry(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    audit.attack(
        *(copied(3, 11 + index).replace("forged", f"forged {index}") for index in range(20))
    )
    in_small_parts(monkeypatch)
    found = audit.differences()
    assert {one.kind for one in found} == {NOT_ENTERED}
    assert sum(one.row_count for one in found) == 20


def test_concurrent_uploads_are_no_difference(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, each with ids of its own, record and price while a verification runs."""
    in_small_parts(monkeypatch)
    other = World.over(Database(audit.world.database.engine.url.render_as_string(False)))
    root = audit.ledger.root().root
    running = [True]

    def record(world: World, name: str) -> Callable[[], None]:
        def run() -> None:
            try:
                for index in range(12):
                    made = calls(1, 0, 3)
                    world.commit(
                        0,
                        0,
                        [call(1, "77", call_id=f"{name} {index} {at}") for at in range(len(made))],
                    )
                    world.cdrs.create(call(1, call_id=f"{name} {index}"))
                    world.cdrs.rate_unrated(0, None, None)
                    if index == 6:
                        world.rate(1, "7" if name == "a" else "77")
            finally:
                running.pop()

        return run

    running.append(True)
    verified: list[LedgerProgress] = []

    def verify() -> None:
        while running:
            verified.append(audit.verify(root))

    results = at_once(record(audit.world, "a"), record(other, "b"), verify)
    other.database.close()
    assert results == [None] * 3
    verified.append(audit.verify(root))
    assert [told.differences for told in verified] == [()] * len(verified)
    assert verified[-1].rows_checked > 19 + 2 * 12 * 4
    assert len(verified) > 1


def test_each_kind_of_entry_is_checked() -> None:
    assert {*ledger_rows.KINDS, *(one.kind for one in covered_rows.KINDS)} == set(EntryKind)


def test_it_reports_its_progress(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_parts(monkeypatch)
    told = list(audit.ledger.verify(""))
    assert len(told) > 5
    rows = [one.rows_checked for one in told]
    assert rows == sorted(rows)
    assert rows[-1] == 19
    assert [one.done for one in told] == [False] * (len(told) - 1) + [True]


class Operator:
    """A key outside the database, in the forms that the options take."""

    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        self.private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key()
        self.public_pem = public.public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        ).decode()


@pytest.fixture
def operator() -> Operator:
    return Operator()


@pytest.fixture
def signing(audit: Audit, database_url: str, operator: Operator) -> Iterator[World]:
    """A server with the key over the same database."""
    database = Database(database_url, sign_ledger_entry=signer(operator.private_pem))
    yield World.over(database)
    database.close()


def signed_differences(audit: Audit, root: str, *operators: Operator) -> list[str]:
    public_keys = [one.public_pem for one in operators]
    return [
        difference.message
        for part in audit.ledger.verify(root, public_keys)
        for difference in part.differences
    ]


def write_everything(world: World) -> None:
    """Entries of all kinds, by all ways in which entries are written."""
    payer = world.tenant()
    rate = world.rate(payer, "44", 200, 6)
    cdr = world.cdrs.create(call(payer, call_id="signed"))
    world.cdrs.create(call(payer, "33", call_id="late"))
    world.rate(payer, "33", 300, 6)
    assert world.cdrs.rate_unrated(payer, None, None).rated == 1
    upload_id = world.commit(0, 0, calls(payer, 0, 3)).upload_id
    world.commit(upload_id, 3, calls(payer, 3, 200))
    world.reversals.reverse_cdr(cdr.id, ReversalRequest(reason="test", requested_by="Ada"))
    world.rates.delete(rate.id, "")


def test_signed_entries_verify_with_the_public_key(
    audit: Audit, signing: World, operator: Operator
) -> None:
    root = audit.ledger.root().root
    write_everything(signing)
    assert signed_differences(audit, root, operator) == []
    assert signed_differences(audit, root, Operator(), operator) == []
    assert signed_differences(audit, "") == []
    # Entries from before the key are covered by a root only.
    unsigned = "the entries up to 6 have no signature of the given keys"
    assert unsigned in signed_differences(audit, "", operator)
    assert signed_differences(audit, root, Operator())


def test_a_server_without_the_key_is_found(
    audit: Audit, signing: World, operator: Operator
) -> None:
    root = audit.ledger.root().root
    write_everything(signing)
    audit.world.decks.load()
    audit.world.cdrs.create(call(1, call_id="unsigned"))
    write_everything(signing)
    (found,) = signed_differences(audit, root, operator)
    assert found == "the entry has no signature of the given keys"


@pytest.mark.parametrize("days", [0, 365])
def test_an_added_record_with_a_recomputed_chain(
    audit: Audit, signing: World, operator: Operator, days: int
) -> None:
    """The attacker adds a CDR and its entry, in the formats of the service. Without the key of the
    operator, only one that is dated back is found."""
    root = audit.ledger.root().root
    signing.cdrs.create(call(1, call_id="signed"))
    at_ns = audit.entries()[-1].created_at_ns - days * 86_400 * 10**9
    audit.attack(copied(3, 100))
    audit.attack("UPDATE cdrs SET created_at_ns = :at WHERE id = 100", at=at_ns)
    with audit.world.database.snapshot() as connection:
        rows = ledger_rows.KINDS[EntryKind.RECORDED].read(connection, 100, 101, 1)
    with audit.world.database.write() as connection:
        storage.append(connection, EntryKind.RECORDED, 100, 1, rows.digest(0, 1, 2), at_ns)
    assert audit.kinds(root) == ([TIME] if days else [])
    assert "the entry has no signature of the given keys" in signed_differences(
        audit, root, operator
    )


def test_a_stolen_signature_of_another_entry_is_refused(
    audit: Audit, signing: World, operator: Operator
) -> None:
    root = audit.ledger.root().root
    signing.cdrs.create(call(1, call_id="signed"))
    audit.world.cdrs.create(call(1, call_id="unsigned"))
    signature = audit.entries()[-2].signature
    audit.attack(
        "UPDATE ledger_entries SET signature = :signature WHERE chain = 0 AND seq = 8",
        signature=signature,
    )
    assert len(signed_differences(audit, root, operator)) == 1


@pytest.mark.parametrize("pem", ["", "x", "é", "-" * 3_000])
def test_a_key_that_is_none_is_refused(audit: Audit, operator: Operator, pem: str) -> None:
    with pytest.raises(InvalidInput) as failure:
        audit.ledger.verify("", [operator.public_pem, pem])
    assert [wrong.field for wrong in failure.value.violations] == ["public_keys[1]"]
    with pytest.raises(ValueError, match="Ed25519 private key"):
        signer(pem.encode())
    with pytest.raises(ValueError, match="Ed25519 private key"):
        signer(operator.public_pem.encode())
