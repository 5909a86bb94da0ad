"""Reading CDRs in bulk: the parts, and a database that fails in the middle of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
import pytest

from tests.world import World, calls
from tollwire.service.domain.record_model import VerificationFilter
from tollwire.service.storage import stored_rows
from tollwire.service.storage.engine import Database


class Counted:
    """The number of bytes, or of rows."""

    @staticmethod
    def copy(data: bytes) -> int:
        return len(data)

    @staticmethod
    def tuples(rows: Iterable[tuple[Any, ...]]) -> int:
        return sum(1 for _ in rows)


@pytest.fixture
def filled(database: Database) -> Database:
    world = World.over(database)
    payer = world.tenant()
    for start in (0, 2_000):
        world.commit(0, 0, calls(payer, start, 2_000))
    return database


def read(database: Database, first_id: int, last_id: int) -> int:
    with database.read() as connection:
        return stored_rows.read(connection, Counted, first_id, last_id, VerificationFilter())


def test_ids_and_parts(filled: Database) -> None:
    with filled.read() as connection:
        first, last = stored_rows.next_id(connection, None), stored_rows.last_id(connection)
        assert first is not None and last is not None
        assert stored_rows.next_id(connection, first) == first + 1
        assert stored_rows.next_id(connection, last) is None
        uploads = connection.exec_driver_sql("SELECT min(id), max(id) FROM uploads").one()
        assert stored_rows.of_upload(connection, uploads[0]) == (first, first + 1_999)
        assert stored_rows.of_upload(connection, uploads[1]) == (last - 1_999, last)
        assert stored_rows.of_upload(connection, uploads[1] + 1) is None
    everything = read(filled, first, last)
    in_parts = [read(filled, start, start + 999) for start in range(first, last + 1, 1_000)]
    around = 0 if filled.is_sqlite else 21  # a COPY's header and trailer
    assert everything == sum(in_parts) - around * (len(in_parts) - 1)
    assert read(filled, last + 1, last + 10) == around


def test_a_failure_in_the_middle(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised unchanged, and the connection can be used again."""
    if filled.is_sqlite:
        pytest.skip("SQLite has no stream: each row is a step of the query")
    everything = read(filled, 1, 10_000)
    dividing = "SELECT 1 / (id - 3500) FROM cdrs WHERE id BETWEEN"
    monkeypatch.setattr(stored_rows, "_SELECT", dividing)
    for _ in range(40):
        with pytest.raises(psycopg.errors.DivisionByZero):
            read(filled, 1, 10_000)
    monkeypatch.undo()
    assert read(filled, 1, 10_000) == everything
