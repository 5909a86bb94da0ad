"""A whole deck's changes at once: rates retired and added by the ten thousand.

Writes what it is told. What a deck changes is found in memory, by whoever holds the tenant's deck
(tollwire.service.rating.deck_import); so nothing is staged, and rows go where they stay in the
order of the index that is the most work to keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from tollwire.service.storage import ids
from tollwire.service.storage.engine import Database
from tollwire.service.storage.rates import from_pair, intervals_to_text, note_change, to_pair

# A rate as DeckBuilder.put takes it: version_id, rate_id, prefix, destination, cost_per_minute_e8,
# billing_increment, connect_fee_e8, minimum_seconds, intervals, effective_from_ns,
# effective_to_ns, blocked.
Row = tuple[Any, ...]

_PART_IDS = 10_000
# With PostgreSQL's types; retired_revision stays NULL.
_COLUMNS = {
    "version_id": "int8",
    "rate_id": "int8",
    "tenant_id": "int8",
    "created_revision": "int8",
    "prefix": "text",
    "destination": "text",
    "cost_per_minute_e8": "int8",
    "billing_increment": "int4",
    "connect_fee_e8": "int8",
    "minimum_seconds": "int4",
    "intervals": "text",
    "effective_from_s": "int8",
    "effective_from_nanos": "int4",
    "effective_to_s": "int8",
    "effective_to_nanos": "int4",
    "blocked": "bool",
    "created_at_ns": "int8",
    "updated_at_ns": "int8",
}
_NAMES = ", ".join(_COLUMNS)
_INSERT = f"INSERT INTO rate_versions ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_COPY = f"COPY rate_versions ({_NAMES}) FROM STDIN (FORMAT BINARY)"
# Any number of ids in one parameter.
_IDS = {
    "sqlite": "(SELECT value FROM json_each(:ids))",
    "postgresql": "(SELECT unnest(CAST(:ids AS BIGINT[])))",
}


def created_at_ns(connection: Connection, version_ids: Sequence[int]) -> dict[int, int]:
    """When the rates that these are versions of were created, by their ids."""
    found: dict[int, int] = {}
    query = "SELECT rate_id, created_at_ns FROM rate_versions WHERE version_id IN "
    for part in _id_parameters(connection, version_ids):
        rows = connection.execute(text(query + _IDS[connection.dialect.name]), {"ids": part})
        found.update((rate_id, at_ns) for rate_id, at_ns in rows)
    return found


def reserve_ids(database: Database, connection: Connection, count: int) -> int:
    """The first of ``count`` new consecutive version_ids. An import goes on for seconds: where the
    database lets two write at once, the counter is moved in a transaction of its own, and stays so
    even if the import fails."""
    if database.is_sqlite:
        return ids.take(connection, "rate_versions", count)
    with database.write() as own:
        return ids.take(own, "rate_versions", count)


def retire(connection: Connection, version_ids: Sequence[int], revision: int) -> None:
    """These versions end with ``revision`` of their tenant's deck."""
    query = "UPDATE rate_versions SET retired_revision = :revision WHERE version_id IN "
    for part in _id_parameters(connection, version_ids):
        connection.execute(
            text(query + _IDS[connection.dialect.name]), {"ids": part, "revision": revision}
        )


def add(
    connection: Connection,
    tenant_id: int,
    revision: int,
    version_ids: range,
    rates: Iterable[Row],
    known_since_ns: Mapping[int, int],
    now_ns: int,
) -> None:
    """Write rates, which have these version ids, that are present from ``revision`` of the tenant's
    deck on. ``known_since_ns``: when those that are not new were created, by their ids."""
    if not version_ids:
        return
    note_change(connection, tenant_id, revision, version_ids[0], version_ids[-1])
    rows = _rows(tenant_id, revision, rates, known_since_ns, now_ns)
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        driver.executemany(_INSERT, rows)
        return
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(tuple(_COLUMNS.values()))
        for row in rows:
            copy.write_row(row)


def _rows(
    tenant_id: int,
    revision: int,
    rates: Iterable[Row],
    known_since_ns: Mapping[int, int],
    now_ns: int,
) -> Iterator[Row]:
    """In the order of _COLUMNS."""
    # fmt: off
    for (
        version_id, rate_id, prefix, destination, price_e8, increment,
        connect_fee_e8, minimum_seconds, intervals, from_ns, to_ns, blocked,
    ) in rates:
        from_s, from_nanos = from_pair(from_ns)
        to_s, to_nanos = to_pair(to_ns)
        yield (
            version_id, rate_id, tenant_id, revision, prefix, destination, price_e8, increment,
            connect_fee_e8, minimum_seconds, intervals_to_text(intervals),
            from_s, from_nanos, to_s, to_nanos, blocked,
            known_since_ns.get(rate_id, now_ns), now_ns,
        )
    # fmt: on


def _id_parameters(connection: Connection, ids: Sequence[int]) -> Iterator[Any]:
    is_sqlite = connection.dialect.name == "sqlite"
    for start in range(0, len(ids), _PART_IDS):
        part = ids[start : start + _PART_IDS]
        yield json.dumps(part) if is_sqlite else part
