"""Entries of the ledger: each chain continues at its end, and commits do not wait for each
other."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from tests.world import at_once
from tollwire.service.storage import covered_rows, ledger
from tollwire.service.storage.engine import Database
from tollwire.service.storage.ledger import EntryKind

DIGEST = bytes(range(32))


def append(database: Database, first_id: int, kind: EntryKind = EntryKind.RECORDED) -> None:
    with database.write() as connection:
        ledger.append(connection, kind, first_id, 3, DIGEST, 77)


def entries(database: Database) -> list[Any]:
    with database.read() as connection:
        query = "SELECT * FROM ledger_entries ORDER BY chain, seq"
        return list(connection.exec_driver_sql(query))


def heads(database: Database) -> dict[int, tuple[int, bytes]]:
    with database.read() as connection:
        rows = connection.exec_driver_sql("SELECT chain, length, hash FROM ledger_heads")
        return {row.chain: (row.length, row.hash) for row in rows}


def assert_consistent(database: Database) -> None:
    """Compute every hash like an auditor, from the first entry of each chain to its head."""
    ends = {chain: (0, bytes(32)) for chain in heads(database)}
    for entry in entries(database):
        length, last_hash = ends[entry.chain]
        assert entry.seq == length + 1
        hashed = b"tollwire.ledger.2" + last_hash
        for number in (
            *(entry.chain, entry.seq, entry.kind),
            *(entry.first_id, entry.row_count, entry.created_at_ns),
        ):
            hashed += struct.pack("<q", number)
        assert entry.hash == hashlib.sha256(hashed + entry.digest).digest()
        ends[entry.chain] = entry.seq, entry.hash
    assert heads(database) == ends


def test_entries_follow_each_other(database: Database) -> None:
    assert_consistent(database)
    for first_id, kind in ((1, EntryKind.RECORDED), (1, EntryKind.PRICED), (4, EntryKind(3))):
        append(database, first_id, kind)
    assert [(one.chain, one.seq, one.kind, one.first_id) for one in entries(database)] == [
        *((0, 1, 1, 1), (0, 2, 2, 1), (0, 3, 3, 4)),
    ]
    assert {(one.row_count, one.digest, one.created_at_ns) for one in entries(database)} == {
        (3, DIGEST, 77)
    }
    assert_consistent(database)


def test_a_rolled_back_transaction_has_no_entry(database: Database) -> None:
    append(database, 1)
    with pytest.raises(RuntimeError), database.write() as connection:
        ledger.append(connection, EntryKind.RECORDED, 4, 1, DIGEST, 78)
        raise RuntimeError("rolled back")
    append(database, 4)
    assert len(entries(database)) == 2
    assert_consistent(database)


def test_transactions_that_overlap_take_different_chains(database: Database) -> None:
    if database.is_sqlite:
        return  # SQLite has one writer at a time
    with database.write() as first:
        ledger.append(first, EntryKind.RECORDED, 1, 1, DIGEST, 1)
        with database.write() as second:
            ledger.append(second, EntryKind.RECORDED, 2, 1, DIGEST, 2)
        append(database, 3)
    append(database, 4)
    assert [(one.chain, one.first_id) for one in entries(database)] == [
        *((0, 1), (0, 4)),
        *((1, 2), (1, 3)),
    ]
    assert_consistent(database)


def test_more_transactions_at_once_than_chains(database: Database) -> None:
    per_thread = 10

    def appender(thread: int) -> Callable[[], None]:
        def run() -> None:
            for index in range(per_thread):
                append(database, 1000 * thread + index)

        return run

    assert at_once(*map(appender, range(20))) == [None] * 20
    found = entries(database)
    assert len({one.first_id for one in found}) == len(found) == 20 * per_thread
    lengths = {chain: len(list(group)) for chain, group in groupby(found, lambda one: one.chain)}
    assert len(lengths) == 1 if database.is_sqlite else len(lengths) > 1
    assert_consistent(database)


def test_a_transaction_that_waited_for_a_chain_follows_the_other(database: Database) -> None:
    """All chains are locked; after the wait for any of them, the entry follows those added
    meanwhile."""
    if database.is_sqlite:
        return
    with database.write() as holder:
        holder.exec_driver_sql("SELECT * FROM ledger_heads WHERE chain > 0 FOR UPDATE")
        ledger.append(holder, EntryKind.RECORDED, 1, 1, DIGEST, 1)
        waiting: list[Any] = []

        def release() -> None:
            while not waiting:
                with database.read() as watcher:
                    waiting.extend(
                        watcher.exec_driver_sql("SELECT 1 FROM pg_locks WHERE NOT granted")
                    )
            holder.commit()

        assert at_once(lambda: append(database, 2), release) == [None, None]
    assert {one.first_id for one in entries(database)} == {1, 2}
    assert_consistent(database)


def test_the_entries_of_the_end_follow_each_other_in_one_chain(database: Database) -> None:
    with database.write() as connection:
        ledger.append_at_end(connection, EntryKind.RATES_RETIRED, 1, 2, DIGEST, 77, revision=5)
        ledger.append_at_end(connection, EntryKind.RATES_ADDED, 8, 1, DIGEST, 77)
        ledger.append_at_end(connection, EntryKind.AUDITED, 3, 1, DIGEST, 78)
        count = "SELECT count(*) FROM ledger_entries"
        assert connection.exec_driver_sql(count).scalar_one() == 0
        ledger.append_collected(connection)
        assert connection.exec_driver_sql(count).scalar_one() == 3
        ledger.append_at_end(connection, EntryKind.AUDITED, 4, 1, DIGEST, 79)
    chain = 1 if database.is_sqlite else 16
    assert [(one.chain, one.seq, one.kind, one.first_id) for one in entries(database)] == [
        *((chain, 1, 7, 1), (chain, 2, 6, 8), (chain, 3, 4, 3), (chain, 4, 4, 4)),
    ]
    assert [one.revision for one in entries(database)] == [5, 0, 0, 0]
    assert_consistent(database)


def test_a_transaction_that_rolls_back_writes_no_entries_at_its_end(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as connection:
        ledger.append_at_end(connection, EntryKind.AUDITED, 1, 1, DIGEST, 77)
        raise RuntimeError("rolled back")
    with database.write() as connection:
        ledger.append_at_end(connection, EntryKind.AUDITED, 2, 1, DIGEST, 77)
        connection.rollback()
    with database.write() as connection:
        pass
    assert entries(database) == []
    assert_consistent(database)


def test_no_entry_is_collected_outside_a_unit_of_work(database: Database) -> None:
    with database.write():
        pass
    with pytest.raises(AssertionError), database.read() as connection:
        ledger.append_at_end(connection, EntryKind.AUDITED, 1, 1, DIGEST, 77)
    with pytest.raises(AssertionError), database.write() as connection:
        ledger.append_at_end(connection, EntryKind.RECORDED, 1, 1, DIGEST, 77)
    assert entries(database) == []


def test_the_digest_of_many_retired_versions_is_that_of_their_rows() -> None:
    version_ids = [5, 2**40, *range(30_000, 10_000, -1)]
    rows = ((version_id, 7, 9) for version_id in sorted(version_ids))
    expected = covered_rows.digest_of_rows(covered_rows.RATES_RETIRED, rows)
    assert covered_rows.digest_of_retired(version_ids, 7, 9) == expected
