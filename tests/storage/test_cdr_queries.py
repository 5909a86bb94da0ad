"""Lists, queues and summaries of CDRs go through their indexes, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event

from tollwire.service.domain.model import CdrFilter, RatingStatus, UnratedReason
from tollwire.service.domain.record_model import ReversalFilter
from tollwire.service.storage import cdr_lists, cdrs, rates, unrated, uploads, usage
from tollwire.service.storage.engine import Database
from tollwire.service.storage.usage import OffsetFrom

NOON_NS = 1_772_445_600 * 10**9


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent to the database in the block, with their parameters."""
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
        lambda c: unrated.hold(c, CdrFilter(tenant_id=1), (NOON_NS, 7), 1000),
    ),
    "the next tenant with unrated calls": (
        "ix_cdrs_unrated",
        lambda c: unrated.next_tenant(c, 1),
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
    "the only tenant's calls": (
        "ix_cdrs_tenant_started",
        lambda c: cdr_lists.page(c, CdrFilter(within=(1,)), None, 50),
    ),
    "a tenant's calls, in a scope of several": (
        "ix_cdrs_tenant_started",
        lambda c: cdr_lists.page(c, CdrFilter(tenant_id=1, within=(1, 2, 5)), None, 50),
    ),
    "several tenants' usage": (
        "ix_cdrs_tenant_started",
        lambda c: usage.add_up(c, 0, NOON_NS, NOON_NS + 9, (), [OffsetFrom(0, 0)], (1, 2)),
    ),
    "the first and the last call of several tenants": (
        "ix_cdrs_tenant_started",
        lambda c: usage.first_and_last_start_ns(c, 0, NOON_NS, None, (1, 2, 5)),
    ),
    "several tenants' rates": (
        "uq_rate_versions_present",
        lambda c: rates.page(c, 0, "", (1, "44", 0, 0), 50, (1, 2, 5)),
    ),
    "the only tenant's uploads": (
        "ix_uploads_scope",
        lambda c: uploads.page(c, 7, 50, (1,)),
    ),
    "the first and the last call": (
        "ix_cdrs_tenant_started",
        lambda c: usage.first_and_last_start_ns(c, 1, None, None),
    ),
}


# The first rows of several tenants, merged: each tenant's come in the order of the index.
MERGED: dict[str, tuple[str, Callable[[Connection], object]]] = {
    "several tenants' calls": (
        "ix_cdrs_tenant_started",
        lambda c: cdr_lists.page(c, CdrFilter(within=(1, 2, 5)), None, 50),
    ),
    "their calls, a later page": (
        "ix_cdrs_tenant_started",
        lambda c: cdr_lists.page(c, CdrFilter(within=(1, 2, 5)), (NOON_NS, 7), 50),
    ),
    "several tenants' unrated calls": (
        "ix_cdrs_unrated",
        lambda c: cdr_lists.page(
            c, CdrFilter(within=(1, 2, 5), status=RatingStatus.UNRATED), (NOON_NS, 7), 50
        ),
    ),
    "several tenants' reversals": (
        "ix_cdr_reversals_tenant_created",
        lambda c: cdr_lists.page_of_reversed(c, ReversalFilter(within=(1, 2)), (NOON_NS, 7), 50),
    ),
}


@pytest.mark.parametrize("name", list(QUERIES))
def test_a_query_uses_its_index(database: Database, name: str) -> None:
    index, ask = QUERIES[name]
    for found in plans(database, ask):
        assert index in found, found
        # In the order of the index: no sorting of everything before the first page.
        assert "TEMP B-TREE FOR ORDER BY" not in found, found
        assert "Sort Key: cdrs.started_at_ns" not in found, found
        assert "Sort Key: cdr_reversals.created_at_ns" not in found, found


@pytest.mark.parametrize("name", list(MERGED))
def test_the_first_rows_of_several_tenants_read_no_tenant_completely(
    database: Database, name: str
) -> None:
    index, ask = MERGED[name]
    for found in plans(database, ask):
        assert index in found, found
        if database.engine.dialect.name == "postgresql":
            assert "Merge Append" in found, found
            assert "->  Sort" not in found, found
        # SQLite reports a sort. It stops reading each tenant's rows at the first that comes too
        # late.


@pytest.mark.parametrize(
    "wanted",
    [
        CdrFilter(tenant_id=1, call_id="a"),
        CdrFilter(call_id="a"),
        CdrFilter(call_id="a", within=(1, 2, 5)),
    ],
)
def test_a_call_id_is_looked_up(database: Database, wanted: CdrFilter) -> None:
    for found in plans(database, lambda c: cdr_lists.page(c, wanted, None, 50)):
        assert "uq_cdrs_call" in found, found


def plans(database: Database, ask: Callable[[Connection], object]) -> list[str]:
    """The database's plan for the statements of ``ask``."""
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            # The tables are empty, so reading them whole would be cheapest.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        with statements(database) as sent:
            ask(connection)
        assert sent
        return [plan(connection, statement, parameters) for statement, parameters in sent]
