"""Lists, queues and summaries of CDRs go through their indexes, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event

from service.model import CdrFilter, RatingStatus, UnratedReason
from service.record_model import ReversalFilter
from service.storage import cdr_lists, cdrs, usage
from service.storage.engine import Database
from service.storage.usage import OffsetFrom

NOON_NS = 1_772_445_600 * 10**9


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """What is sent to the database meanwhile: statements with their parameters."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)


def plan(connection: Connection, statement: str, parameters: Any) -> str:
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    rows = connection.exec_driver_sql(f"{explain} {statement}", parameters)
    return "\n".join(str(row[-1]) for row in rows)


QUERIES: dict[str, tuple[str, Callable[[Connection], object]]] = {
    "a tenant's calls": (
        "ix_cdrs_tenant_started",
        lambda c: cdr_lists.page(c, CdrFilter(tenant_id=1), None, 50),
    ),
    "their next page": (
        "ix_cdrs_tenant_started",
        lambda c: cdr_lists.page(c, CdrFilter(tenant_id=1), (NOON_NS, 7), 50),
    ),
    "all calls, a later page": (
        "ix_cdrs_started",
        lambda c: cdr_lists.page(c, CdrFilter(), (NOON_NS, 7), 50),
    ),
    "all calls of a period": (
        "ix_cdrs_started",
        lambda c: cdr_lists.page(
            c, CdrFilter(started_after_ns=NOON_NS, started_before_ns=NOON_NS + 9), None, 50
        ),
    ),
    "an extension's calls": (
        "ix_cdrs_extension_started",
        lambda c: cdr_lists.page(c, CdrFilter(extension_id=3), (NOON_NS, 7), 50),
    ),
    "a tenant's unrated calls": (
        "ix_cdrs_unrated",
        lambda c: cdr_lists.page(
            c, CdrFilter(tenant_id=1, status=RatingStatus.UNRATED), (NOON_NS, 7), 50
        ),
    ),
    "a tenant's unrated calls of one reason": (
        "ix_cdrs_unrated",
        lambda c: cdr_lists.page(
            c, CdrFilter(tenant_id=1, unrated_reason=UnratedReason.NO_RATE), (NOON_NS, 7), 50
        ),
    ),
    "the queue of the unrated": (
        "ix_cdrs_unrated",
        lambda c: cdrs.unrated(c, CdrFilter(tenant_id=1), (NOON_NS, 7), 1000),
    ),
    "the next tenant with unrated calls": (
        "ix_cdrs_unrated",
        lambda c: cdrs.next_tenant_with_unrated(c, 1),
    ),
    "recorded calls by their keys": (
        "uq_cdrs_call",
        lambda c: cdrs.find(c, [(1, f"c{index}") for index in range(100)]),
    ),
    "a tenant's usage of a period": (
        "ix_cdrs_tenant_started",
        lambda c: usage.add_up(c, 1, NOON_NS, NOON_NS + 9, (), [OffsetFrom(0, 0)]),
    ),
    "a tenant's reversed calls of a period": (
        "ix_cdr_reversals_tenant_started",
        lambda c: usage.add_up(
            c, 1, NOON_NS, NOON_NS + 9, (), [OffsetFrom(0, 0)], only_reversed=True
        ),
    ),
    "reversals, a later page": (
        "ix_cdr_reversals_created",
        lambda c: cdr_lists.page_of_reversed(c, ReversalFilter(), (NOON_NS, 7), 50),
    ),
    "a tenant's reversals": (
        "ix_cdr_reversals_tenant_created",
        lambda c: cdr_lists.page_of_reversed(c, ReversalFilter(tenant_id=1), (NOON_NS, 7), 50),
    ),
    "an upload's reversals": (
        "ix_cdr_reversals_upload_created",
        lambda c: cdr_lists.page_of_reversed(c, ReversalFilter(upload_id=1), (NOON_NS, 7), 50),
    ),
    "the first and the last call": (
        "ix_cdrs_tenant_started",
        lambda c: usage.first_and_last_start_ns(c, 1, None, None),
    ),
}


@pytest.mark.parametrize("name", list(QUERIES))
def test_a_query_uses_its_index(database: Database, name: str) -> None:
    index, ask = QUERIES[name]
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            # The tables are empty, so reading them whole would be cheapest.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        with statements(database) as sent:
            ask(connection)
        assert sent
        for statement, parameters in sent:
            found = plan(connection, statement, parameters)
            assert index in found, found
            # In the order of the index: no sorting of everything before the first page.
            assert "TEMP B-TREE FOR ORDER BY" not in found, found
            assert "Sort Key: cdrs.started_at_ns" not in found, found
            assert "Sort Key: cdr_reversals.created_at_ns" not in found, found
