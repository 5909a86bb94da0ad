"""Writes the changes of a whole deck at once: tens of thousands of retired and added rates.

The changes are computed in memory (tollwire.service.rating.deck_import), so there is no staging
table, and rows are inserted in the order of the index that costs most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from tollwire.service.storage import covered_rows, ids
from tollwire.service.storage.dialects.base import PackedRows
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.engine import Database
from tollwire.service.storage.rates import TERMS, RateArguments, from_arguments
from tollwire.service.storage.schema.tenant_tables import RateVersionRow

_PART_IDS = 10_000
_TABLE = RateVersionRow.__table__
# A new rate. retired_revision is left out: it is NULL.
COLUMNS = (
    *TERMS,
    _TABLE.c.tenant_id,
    _TABLE.c.created_revision,
    _TABLE.c.created_at_ns,
    _TABLE.c.updated_at_ns,
)
_RATE_ID = TERMS.index(_TABLE.c.rate_id)


def created_at_ns(connection: Connection, version_ids: Sequence[int]) -> dict[int, int]:
    """When the rates of these versions were created, by the ids of the rates."""
    found: dict[int, int] = {}
    for part in _parts(version_ids):
        query = select(RateVersionRow.rate_id, RateVersionRow.created_at_ns)
        rows = connection.execute(query.where(_is_one_of(connection, part)))
        found.update((rate_id, at_ns) for rate_id, at_ns in rows)
    return found


def reserve_ids(database: Database, connection: Connection, count: int) -> int:
    """The first of ``count`` new consecutive version_ids. An import takes seconds: if the database
    has several writers, the counter moves in a transaction of its own, and stays moved if the
    import fails."""
    if database.dialect.has_one_writer:
        return ids.take(connection, "rate_versions", count)
    with database.write() as own:
        return ids.take(own, "rate_versions", count)


def retire(connection: Connection, version_ids: Sequence[int], revision: int) -> None:
    """Let these versions end with ``revision`` of the tenant's deck."""
    for part in _parts(version_ids):
        retired = update(RateVersionRow).values(retired_revision=revision)
        connection.execute(retired.where(_is_one_of(connection, part)))


def add_packed(connection: Connection, rows: PackedRows) -> None:
    """Write rates, each with the values of COLUMNS."""
    dialect_of(connection).insert_packed(connection, RateVersionRow.__tablename__, COLUMNS, rows)


def add(connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
    """The same for ``rows_of``."""
    dialect_of(connection).bulk_insert(connection, RateVersionRow.__tablename__, COLUMNS, rows)


def hashed(packed: PackedRows) -> covered_rows.Hashing:
    """The hash over these rates, which takes them all."""
    hashing = covered_rows.Hashing(covered_rows.RATES_ADDED)
    while part := packed.copy_part():
        hashing.add_copy(part)
    return hashing


def enter(
    connection: Connection, first_version_id: int, count: int, digest: bytes, now_ns: int
) -> None:
    """Enter the written rates in the ledger."""
    covered_rows.enter_at_end(
        connection, covered_rows.RATES_ADDED, now_ns, first_version_id, count, digest=digest
    )


def enter_retired(
    connection: Connection,
    tenant_id: int,
    version_ids: Sequence[int],
    revision: int,
    now_ns: int,
) -> None:
    """Enter the retired rates in the ledger."""
    digest = covered_rows.digest_of_retired(version_ids, tenant_id, revision)
    covered_rows.enter_at_end(
        connection,
        covered_rows.RATES_RETIRED,
        *(now_ns, tenant_id, len(version_ids), revision, digest),
    )


def rows_of(
    tenant_id: int,
    revision: int,
    rates: Iterable[RateArguments],
    known_since_ns: Mapping[int, int],
    now_ns: int,
) -> Iterator[tuple[Any, ...]]:
    """Rates, which are present from ``revision`` of the tenant's deck on, with the values of
    COLUMNS. ``known_since_ns``: when the rates that are not new were created, by their ids."""
    for rate in rates:
        created_at_ns = known_since_ns.get(rate[_RATE_ID], now_ns)
        yield (*from_arguments(rate), tenant_id, revision, created_at_ns, now_ns)


def _parts(version_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(version_ids), _PART_IDS):
        yield version_ids[start : start + _PART_IDS]


def _is_one_of(connection: Connection, version_ids: Sequence[int]) -> ColumnElement[bool]:
    listed = dialect_of(connection).listed(version_ids)
    return RateVersionRow.version_id.in_(select(listed.c.value))
