"""A whole deck at once: staged beside the rates, compared with them, and taken over as a set.

The deck is staged in a temporary table while it streams in, outside of any transaction that others
could wait for; so a deck of millions of rates needs no memory to speak of, and a slow sender holds
up nobody. Only the comparison and the change itself happen under the lock on the tenant's deck.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from service.model import Rate
from service.storage.engine import Database
from service.storage.rates import from_pair, intervals_to_text, to_pair

# A rate to stage: its index in the deck, then the values of _COLUMNS.
Row = tuple[Any, ...]

_KEY = ("prefix", "effective_from_s", "effective_from_nanos")
_COLUMNS = (
    *_KEY,
    "destination",
    "cost_per_minute_e4",
    "billing_increment",
    "connect_fee_e4",
    "minimum_seconds",
    "intervals",
    "effective_to_s",
    "effective_to_nanos",
    "blocked",
)

# staged_changes: the staged rates that are new (present_version_id NULL) or differ from the present
# ones; ``number`` counts from 1, the new ones first, each kind in the order of prefixes.
# staged_absent: the present rates that the deck does not name.
_CREATE = (
    """
    CREATE TEMPORARY TABLE staged_rates (
        deck_index BIGINT NOT NULL PRIMARY KEY,
        prefix TEXT NOT NULL,
        effective_from_s BIGINT NOT NULL,
        effective_from_nanos INTEGER NOT NULL,
        destination TEXT NOT NULL,
        cost_per_minute_e4 BIGINT NOT NULL,
        billing_increment INTEGER NOT NULL,
        connect_fee_e4 BIGINT NOT NULL,
        minimum_seconds INTEGER NOT NULL,
        intervals TEXT,
        effective_to_s BIGINT NOT NULL,
        effective_to_nanos INTEGER NOT NULL,
        blocked BOOLEAN NOT NULL
    )
    """,
    """
    CREATE TEMPORARY TABLE staged_changes (
        number BIGINT NOT NULL PRIMARY KEY,
        deck_index BIGINT NOT NULL,
        present_version_id BIGINT
    )
    """,
    "CREATE TEMPORARY TABLE staged_absent (version_id BIGINT NOT NULL PRIMARY KEY)",
)
_TABLES = ("staged_rates", "staged_changes", "staged_absent")
_CREATE_UNIQUE_INDEX = (
    f"CREATE UNIQUE INDEX uq_staged_rates_key ON staged_rates ({', '.join(_KEY)})"
)

_INSERT = (
    f"INSERT INTO staged_rates (deck_index, {', '.join(_COLUMNS)})"
    f" VALUES (?{', ?' * len(_COLUMNS)})"
)
_COPY = f"COPY staged_rates (deck_index, {', '.join(_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_COPY_TYPES = (
    *("int8", "text", "int8", "int4", "text", "int8", "int4"),
    *("int8", "int4", "text", "int8", "int4", "bool"),
)

_DUPLICATES = f"""
    SELECT deck_index, first_index FROM (
        SELECT deck_index, min(deck_index) OVER (PARTITION BY {", ".join(_KEY)}) AS first_index
        FROM staged_rates
    ) AS with_first
    WHERE deck_index <> first_index ORDER BY deck_index LIMIT :limit
"""
_SAME_KEY = " AND ".join(f"present.{name} = staged.{name}" for name in _KEY)
_DIFFERS = " OR ".join(
    f"present.{name} {{differs}} staged.{name}" for name in _COLUMNS if name not in _KEY
)
_FIND_CHANGES = f"""
    INSERT INTO staged_changes (number, deck_index, present_version_id)
    SELECT
        row_number() OVER (
            ORDER BY CASE WHEN present.version_id IS NULL THEN 0 ELSE 1 END,
                {", ".join(f"staged.{name}" for name in _KEY)}
        ),
        staged.deck_index, present.version_id
    FROM staged_rates AS staged LEFT JOIN rate_versions AS present
        ON present.tenant_id = :tenant_id AND present.retired_revision IS NULL AND {_SAME_KEY}
    WHERE present.version_id IS NULL OR {_DIFFERS}
"""
_FIND_ABSENT = f"""
    INSERT INTO staged_absent (version_id)
    SELECT present.version_id FROM rate_versions AS present
    WHERE present.tenant_id = :tenant_id AND present.retired_revision IS NULL
        AND NOT EXISTS (SELECT 1 FROM staged_rates AS staged WHERE {_SAME_KEY})
"""
_RETIRE = """
    UPDATE rate_versions SET retired_revision = :revision WHERE version_id IN (
        SELECT present_version_id FROM staged_changes WHERE present_version_id IS NOT NULL
        UNION ALL SELECT version_id FROM staged_absent
    )
"""
_ADD = f"""
    INSERT INTO rate_versions (
        version_id, rate_id, tenant_id, created_revision, retired_revision,
        {", ".join(_COLUMNS)}, created_at_ns, updated_at_ns
    )
    SELECT
        CAST(:first_version_id AS BIGINT) + change.number - 1,
        coalesce(past.rate_id, CAST(:first_rate_id AS BIGINT) + change.number - 1),
        :tenant_id, :revision, NULL,
        {", ".join(f"staged.{name}" for name in _COLUMNS)},
        coalesce(past.created_at_ns, :now_ns), :now_ns
    FROM staged_changes AS change
    JOIN staged_rates AS staged ON staged.deck_index = change.deck_index
    LEFT JOIN rate_versions AS past ON past.version_id = change.present_version_id
    ORDER BY change.number
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a deck would change, in numbers of rates."""

    created: int
    updated: int
    deleted: int


NO_CHANGE = Comparison(created=0, updated=0, deleted=0)


def staged_row(index: int, rate: Rate) -> Row:
    from_s, from_nanos = from_pair(rate.effective_from_ns)
    to_s, to_nanos = to_pair(rate.effective_to_ns)
    return (
        index,
        rate.prefix,
        from_s,
        from_nanos,
        rate.destination,
        rate.cost_per_minute_e4,
        rate.billing_increment,
        rate.connect_fee_e4,
        rate.minimum_seconds,
        intervals_to_text(rate.intervals),
        to_s,
        to_nanos,
        rate.blocked,
    )


@contextmanager
def staging(database: Database) -> Iterator[Connection]:
    """A connection with the temporary tables, to be used with ``database.read(connection)`` and
    ``database.write(connection)``."""
    with database.keep() as connection:
        with database.read(connection):
            _drop(connection)
            for statement in _CREATE:
                connection.execute(text(statement))
        try:
            yield connection
        finally:
            # Where even this fails the connection is lost, and its temporary tables with it.
            with database.read(connection):
                _drop(connection)


def stage(connection: Connection, rows: list[Row]) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_INSERT, rows)
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_COPY_TYPES)
        for row in rows:
            copy.write_row(row)


def complete(connection: Connection) -> bool:
    """The whole deck is staged. False where it names a rate twice."""
    if connection.dialect.name == "postgresql":
        # A large deck is sorted in memory then, not on the disk.
        connection.execute(text("SET LOCAL maintenance_work_mem = '128MB'"))
    try:
        with connection.begin_nested():
            connection.execute(text(_CREATE_UNIQUE_INDEX))
    except IntegrityError:
        return False
    if connection.dialect.name == "postgresql":
        # Else the planner takes the table for a small one and joins it row by row.
        connection.execute(text("ANALYZE staged_rates"))
    return True


def count_duplicates(connection: Connection) -> int:
    """How many rates have the prefix and effective_from of one before them in the deck."""
    keys = f"SELECT DISTINCT {', '.join(_KEY)} FROM staged_rates"
    query = f"SELECT (SELECT count(*) FROM staged_rates) - (SELECT count(*) FROM ({keys}) AS keys)"
    return int(connection.execute(text(query)).scalar_one())


def duplicates(connection: Connection, limit: int) -> list[tuple[int, int]]:
    """The first of them: index in the deck, and index of the first rate with that key."""
    rows = connection.execute(text(_DUPLICATES), {"limit": limit})
    return [(index, first_index) for index, first_index in rows]


def compare(connection: Connection, tenant_id: int, *, replace: bool) -> Comparison:
    """Compare the staged deck with the tenant's present rates; ``replace``: those that the deck
    does not name are to go."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL work_mem = '128MB'"))
    differs = "IS NOT" if connection.dialect.name == "sqlite" else "IS DISTINCT FROM"
    find_changes = text(_FIND_CHANGES.replace("{differs}", differs))
    changed = connection.execute(find_changes, {"tenant_id": tenant_id}).rowcount
    updated: int = connection.execute(
        text("SELECT count(present_version_id) FROM staged_changes")
    ).scalar_one()
    deleted = 0
    if replace:
        deleted = connection.execute(text(_FIND_ABSENT), {"tenant_id": tenant_id}).rowcount
    return Comparison(created=changed - updated, updated=updated, deleted=deleted)


def take_over(
    connection: Connection,
    tenant_id: int,
    revision: int,
    *,
    first_version_id: int,
    first_rate_id: int,
    now_ns: int,
) -> None:
    """Make what ``compare`` found the present rates from ``revision`` of the tenant's deck on. Uses
    as many version ids as rates are created and updated, and as many rate ids as are created."""
    connection.execute(text(_RETIRE), {"revision": revision})
    connection.execute(
        text(_ADD),
        {
            "tenant_id": tenant_id,
            "revision": revision,
            "first_version_id": first_version_id,
            "first_rate_id": first_rate_id,
            "now_ns": now_ns,
        },
    )


def _drop(connection: Connection) -> None:
    for table in _TABLES:
        connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
