"""Writing CDRs in bulk: new rows are inserted, existing ones returned, and errors have names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, event, select
from sqlalchemy.engine import make_url

import ratingcore
from ratingcore.record.key_order import in_key_order
from ratingcore.record.record_rating import rate_records
from ratingcore.record.records import records_of
from ratingcore.record.rows import ROW_FIELDS
from ratingcore.record.values import Content
from tollwire.service.domain.errors import Reason, Unavailable
from tollwire.service.record.recording import CallRows
from tollwire.service.storage import cdr_rows, cdrs, ledger, uploads
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.engine import Database
from tollwire.service.storage.parties import Parties, hold_parties
from tollwire.service.storage.schema.record_tables import CdrRow


def rows(call_ids: Sequence[str], seconds: int = 7, tenant_id: int = 1) -> CallRows:
    records = records_of(
        (tenant_id, call_id, 0, "é☎", "", 1, 6, seconds, 2**63 - 2, None) for call_id in call_ids
    )
    order = in_key_order(records)
    deck = ratingcore.DeckBuilder().build(1, ratingcore.HALF_UP, "", "", "")
    rate_records(records, order, {tenant_id: deck})
    return CallRows(records, order, upload_id=0, created_at_ns=5)


def insert(
    connection: Connection, new: CallRows, between: Callable[[Connection], None] | None = None
) -> cdrs.Inserted:
    """Insert the rows like the service, which reserves their ids before."""
    held = hold_parties(connection, set(), set(), cdr_count=len(new))
    if between is not None:
        between(connection)
    return cdrs.insert_new(connection, new, held.first_cdr_id)


def stored(database: Database) -> list[tuple[Any, ...]]:
    with database.read() as connection:
        query = "SELECT tenant_id, call_id, duration_seconds FROM cdrs ORDER BY 1, 2"
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def ids_of(database: Database, call_ids: Sequence[str], tenant_id: int = 1) -> Iterator[int]:
    with database.read() as connection:
        found = cdrs.find(connection, [(tenant_id, call_id) for call_id in call_ids])
    for call_id in call_ids:
        yield found[tenant_id, call_id].cdr_id


def test_a_row_of_the_core_is_a_row_of_the_table() -> None:
    widths = {"BIGINT": 8, "INTEGER": 4, "SMALLINT": 2, "TEXT": 0}
    columns = CdrRow.__table__.c
    assert [name for name, _ in ROW_FIELDS] == list(cdr_rows.ROW_FIELDS)
    assert {*cdr_rows.ROW_FIELDS, "id"} == set(columns.keys())
    assert {name: widths[str(columns[name].type)] for name in cdr_rows.ROW_FIELDS} == dict(
        ROW_FIELDS
    )


def test_existing_rows_stay_and_are_returned(database: Database) -> None:
    with database.write() as connection:
        first = insert(connection, rows(["b", "d"]))
        second = insert(connection, rows(["b"], tenant_id=2))
    assert first.existing == second.existing == {}
    with database.write() as connection:
        first_id, existing, _ = insert(connection, rows([*"abcde"], seconds=8))
        found = cdrs.find(connection, [(1, "b"), (1, "d"), (1, "x"), (2, "b"), (3, "b")])
    assert set(existing) == {(1, "b"), (1, "d")}
    assert set(found) == {(1, "b"), (1, "d"), (2, "b")}
    assert all(found[key] == recorded for key, recorded in existing.items())
    assert existing[1, "b"].content == (1, "b", 0, "é☎", "", 1, 6, 7, 2**63 - 2, None)
    # The new ones have the ids from the first one on, in the order of their keys.
    assert list(ids_of(database, "ace")) == [first_id, first_id + 1, first_id + 2]
    expected = [(1, name, 7 if name in "bd" else 8) for name in "abcde"]
    assert stored(database) == [*expected, (2, "b", 7)]


@pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 73, 201])
def test_each_row_is_stored_once(database: Database, count: int) -> None:
    """SQLite inserts several rows with one statement."""
    names = [f"{index:03}" for index in range(count)]
    taken = names[::5]
    with database.write() as connection:
        insert(connection, rows(taken, seconds=8))
    with database.write() as connection:
        first_id, existing, _ = insert(connection, rows(names))
    new = [name for name in names if name not in taken]
    assert set(existing) == {(1, name) for name in taken}
    assert list(ids_of(database, new)) == list(range(first_id, first_id + len(new)))
    assert stored(database) == [(1, name, 8 if name in taken else 7) for name in names]


def test_rows_that_differ_in_every_field_are_stored_as_they_are(database: Database) -> None:
    """Fields that have one value in all rows are a single parameter on SQLite."""
    contents = [
        (2 - index // 64, f"{index:03}", index, "1", "2", 1, 6, index, index, index)
        for index in range(128)
    ]
    one = rows(["a"])
    records = records_of(contents)
    order = in_key_order(records)
    deck = ratingcore.DeckBuilder().build(9, ratingcore.HALF_UP, "", "", "")
    rate_records(records, order, {1: deck, 2: deck})
    new = replace(one, records=records, order=order)
    with database.write() as connection:
        insert(connection, new)
    with database.read() as connection:
        found = connection.exec_driver_sql(
            f"SELECT {', '.join(Content._fields)} FROM cdrs ORDER BY call_id"
        )
        expected = [(*row[:2], row[2] or None, *row[3:]) for row in contents]
        assert [tuple(row) for row in found] == expected


def test_the_service_works_while_a_server_inserts(database: Database) -> None:
    done: list[str] = []
    new = rows([f"{index:03}" for index in range(101)])
    with database.write() as connection:
        first_id = hold_parties(connection, set(), set(), cdr_count=len(new)).first_cdr_id
        cdrs.insert_new(connection, new, first_id, meanwhile=lambda: done.append("once"))
    assert done == ([] if database.is_sqlite else ["once"])
    assert len(stored(database)) == 101


def test_a_chunk_is_stored_with_the_lock_of_a_chain(database: Database) -> None:
    chunk = uploads.StoredChunk(
        0, 9, 1, 2, 3, 4, 5, 6, record_digests=b"7", recorded_again=8, derived_call_ids=9
    )
    with database.write() as connection:
        uploads.create(connection, 1, 3)
        upload = uploads.get(connection, 1, hold=True)
        assert upload is not None
        values = uploads.chunk_values(upload, chunk, 70, 4)
        head, _ = uploads.add_chunk(connection, upload, values)
        assert head is None
        chunk = replace(chunk, first_index=9, record_digests=None)
        upload = uploads.get(connection, 1, hold=True)
        assert upload is not None
        values = uploads.chunk_values(upload, chunk, 70, 5)
        head, state = uploads.add_chunk(connection, upload, values, hold_chain=True)
        if not database.is_sqlite:
            assert (head, state.head) == ((0, 0, ledger.NO_HASH), (16, 0, ledger.NO_HASH))
            with database.write() as another:
                found = dialect_of(another).hold_ledger_chain(another, of_calls=True)
                assert found == (1, 0, ledger.NO_HASH)
    with database.read() as connection:
        assert uploads.chunks(connection, 1, 9, 10) == [chunk]
        upload = uploads.get(connection, 1)
        assert upload is not None
    assert (upload.committed_offset, upload.duration_seconds) == (18, 140)
    assert (upload.created, upload.duplicates, upload.conflicts, upload.rejected) == (2, 4, 6, 8)
    assert (upload.unrated, upload.recorded_again, upload.derived_call_ids) == (10, 16, 18)
    assert (upload.created_at_ns, upload.updated_at_ns) == (3, 5)


# With the entry in the ledger, in one round trip.


def entry_of(connection: Any, held: Parties, new: CallRows) -> ledger.Entry:
    assert held.ledger_head is not None
    digest = new.digest(held.first_cdr_id)
    return ledger.entry_after(
        connection,
        held.ledger_head,
        ledger.EntryKind.RECORDED,
        held.first_cdr_id,
        len(new),
        digest,
        5,
    )


@pytest.fixture
def postgresql(database: Database) -> Database:
    if database.is_sqlite:
        pytest.skip("SQLite has no round trips")
    return database


def test_few_rows_and_their_entry(postgresql: Database) -> None:
    with postgresql.write() as connection:
        many = rows([f"{index:03}" for index in range(101)])
        assert hold_parties(connection, set(), set(), cdr_count=len(many)).ledger_head is None
    new = rows(["a", "b"])
    with postgresql.write() as connection:
        held = hold_parties(connection, set(), set(), cdr_count=len(new))
        entry = entry_of(connection, held, new)
        assert cdrs.insert_new(connection, new, held.first_cdr_id, entry) == (
            held.first_cdr_id,
            {},
            True,
        )
    # The same rows by COPY, but for their ids and call_ids.
    with postgresql.write() as connection:
        assert not insert(connection, rows(["c", "d"])).is_entered
    with postgresql.read() as connection:
        assert ledger.entries(connection, entry.chain, 1, 10, 10) == [entry]
        assert ledger.heads(connection)[entry.chain].hash == entry.hash
        table = CdrRow.__table__
        stored = [row._asdict() for row in connection.execute(select(table).order_by(table.c.id))]
    for one, other in zip(stored[:2], stored[2:], strict=True):
        assert one | {"id": 0, "call_id": ""} == other | {"id": 0, "call_id": ""}


def test_few_rows_are_committed_with_their_last_statement(postgresql: Database) -> None:
    new = rows(["a"])
    with suppress(KeyError), postgresql.write() as connection:
        held = hold_parties(connection, set(), set(), cdr_count=len(new))
        entry = entry_of(connection, held, new)
        cdrs.insert_new(connection, new, held.first_cdr_id, entry, commits=True)
        with postgresql.read() as other:
            assert ledger.entries(other, entry.chain, 1, 10, 10) == [entry]
        raise KeyError("what comes after the commit does not take it back")
    assert [name for _, name, _ in stored(postgresql)] == ["a"]


def test_a_taken_key_prevents_the_commit(postgresql: Database) -> None:
    with postgresql.write() as connection:
        insert(connection, rows(["b"]))
    new = rows([*"abc"])
    with suppress(KeyError), postgresql.write() as connection:
        held = hold_parties(connection, set(), set(), cdr_count=len(new))
        entry = entry_of(connection, held, new)
        inserted = cdrs.insert_new(connection, new, held.first_cdr_id, entry, commits=True)
        assert set(inserted.existing) == {(1, "b")}
        assert not inserted.is_entered
        raise KeyError
    assert [name for _, name, _ in stored(postgresql)] == ["b"]


def test_a_taken_key_leaves_the_entry_out(postgresql: Database) -> None:
    with postgresql.write() as connection:
        insert(connection, rows(["b"]))
    new = rows([*"abc"])
    with postgresql.write() as connection:
        held = hold_parties(connection, set(), set(), cdr_count=len(new))
        entry = entry_of(connection, held, new)
        _, existing, is_entered = cdrs.insert_new(connection, new, held.first_cdr_id, entry)
        assert set(existing) == {(1, "b")}
        assert not is_entered
        # The chain is free for others.
        with postgresql.write() as another:
            assert hold_parties(another, set(), set(), cdr_count=1).ledger_head == (
                held.ledger_head
            )
    with postgresql.read() as connection:
        assert ledger.chains_with_entries(connection) == []
    assert [name for _, name, _ in stored(postgresql)] == [*"abc"]


def test_a_key_of_an_open_transaction_is_not_waited_for_with_a_chain(postgresql: Database) -> None:
    """That transaction may need the chain."""
    new = rows([*"ab"])
    with postgresql.write() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = 'replica'")  # no triggers
        connection.exec_driver_sql("DELETE FROM ledger_heads WHERE chain > 0")

    def second() -> cdrs.Inserted:
        with postgresql.write() as connection:
            held = hold_parties(connection, set(), set(), cdr_count=len(new))
            has_chain.set()
            return cdrs.insert_new(
                connection, new, held.first_cdr_id, entry_of(connection, held, new)
            )

    has_chain = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with postgresql.write() as first:
            first_id = hold_parties(first, set(), set(), cdr_count=101).first_cdr_id
            cdrs.insert_new(first, rows(["a"]), first_id)
            waiting = pool.submit(second)
            assert has_chain.wait(20)
            ledger.append(first, ledger.EntryKind.RECORDED, first_id, 1, bytes(32), 5)
            assert not waiting.done()
        _, existing, is_entered = waiting.result(timeout=20)
    assert set(existing) == {(1, "a")}
    assert not is_entered


def test_nothing_to_insert(database: Database) -> None:
    with database.write() as connection:
        assert insert(connection, rows([])).existing == {}
        assert cdrs.find(connection, []) == {}


def test_all_rows_exist(database: Database) -> None:
    names = [f"{index:04}" for index in range(2000)]
    with database.write() as connection:
        assert insert(connection, rows(names)).existing == {}
    with database.write() as connection:
        assert set(insert(connection, rows(names)).existing) == {(1, name) for name in names}
    assert len(stored(database)) == 2000


def test_ids_rise(database: Database) -> None:
    for names in (["b", "c"], ["a", "b"], ["d"]):
        with database.write() as connection:
            insert(connection, rows(names))
    with database.read() as connection:
        ids = connection.exec_driver_sql("SELECT call_id FROM cdrs ORDER BY id").scalars().all()
    assert ids == ["b", "c", "a", "d"]


@contextmanager
def failing(database: Database) -> Iterator[Callable[[Connection], None]]:
    """Within the block the database fails in the middle of an insert, if the yielded function is
    called before it."""
    if database.is_sqlite:
        with database.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        limit = [pages + 1]

        def fill_up(connection: Any) -> None:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {limit[0]}")

        event.listen(database.engine, "begin", fill_up)
        yield lambda connection: None
        limit[0] = 1_000_000
        return
    url = make_url(database.engine.url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as admin:

        def cut_off(connection: Connection) -> None:
            driver: Any = connection.connection.driver_connection
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", (driver.info.backend_pid,))

        yield cut_off


def test_a_database_that_fails_in_the_middle(database: Database) -> None:
    names = [f"{index:04}" for index in range(2000)]
    with database.write() as connection:
        insert(connection, rows(names[:10]))
    with failing(database) as cut_off:
        for _ in range(2):
            with pytest.raises(Unavailable) as failure, database.write() as connection:
                insert(connection, rows(names), cut_off)
            assert failure.value.reason == Reason.DATABASE_UNAVAILABLE
    assert len(stored(database)) == 10
    with database.write() as connection:
        assert len(insert(connection, rows(names)).existing) == 10
    assert len(stored(database)) == 2000
