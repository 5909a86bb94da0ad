"""Inserts CDRs in bulk, and finds recorded calls by their keys.

Inserting sorts nothing and rates nothing: rows come in key order, so that two transactions that
insert the same calls meet them in the same order and never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Connection, select

from ratingcore.record.values import Content
from tollwire.service.storage import ids
from tollwire.service.storage.cdr_rows import ROW_FIELDS, Key, NewRows, Recorded
from tollwire.service.storage.conditions import IS_REVERSED, among
from tollwire.service.storage.schema.record_tables import CdrRow


class Inserted(NamedTuple):
    """What became of rows to insert."""

    first_id: int  # of those that went in, which have the ids from here on in their order
    existing: dict[Key, Recorded]  # what was recorded before, of the others


_COPY = f"COPY cdrs (id, {', '.join(ROW_FIELDS)}) FROM STDIN (FORMAT BINARY)"
# OR FAIL: a row that breaks a constraint ends the transaction anyway. With ABORT, the default, and
# a trigger SQLite would note each page before it changes it, for every row anew.
_INSERT = (
    f"INSERT OR FAIL INTO cdrs ({', '.join(ROW_FIELDS)})"
    f" VALUES ({', '.join('?' * len(ROW_FIELDS))}) ON CONFLICT DO NOTHING"
)
CONTENT_COLUMNS = tuple(CdrRow.__table__.c[name] for name in Content._fields)


def insert_new(connection: Connection, new: NewRows) -> Inserted:
    """Insert the rows whose key is not recorded yet; answer the recorded calls of the others.

    Waits for other transactions that are inserting one of the keys, so the answer holds whoever
    came first.
    """
    if not len(new):
        return Inserted(0, {})
    first_id = ids.take_rows(connection, "cdrs", len(new))
    if connection.dialect.name == "sqlite":
        return Inserted(first_id, _insert_sqlite(connection, new, first_id))
    return Inserted(first_id, _copy_postgresql(connection, new, first_id))


def insert_again(
    connection: Connection, new: NewRows, first_id: int, recorded: Mapping[Key, Recorded]
) -> dict[Key, Recorded]:
    """Insert rows whose keys are all ``recorded`` and reversed, each as the next generation, with
    ids from ``first_id`` on, which are the next of this transaction. Answers what another
    transaction has recorded meanwhile instead of some of them.

    Keys of generations above 0 are always taken after those of generation 0, and in key order, so
    that transactions do not wait for each other in a circle here either.
    """
    newest = dict(recorded)
    existing: dict[Key, Recorded] = {}
    while len(new):
        keys = list(new.keys())
        new.following({key: newest[key].generation for key in keys})
        try:
            if connection.dialect.name == "sqlite":
                _insert_all_sqlite(connection, new)
            else:
                with connection.begin_nested():
                    _copy(connection, new, first_id)
            break
        except psycopg.errors.UniqueViolation:
            found = find(connection, keys)
            if all(found[key] == newest[key] for key in keys):
                raise
            newest |= found
            standing = {key: one for key, one in found.items() if not one.is_reversed}
            existing |= standing
            new = new.without(standing.keys())
    return existing


def _insert_all_sqlite(connection: Connection, new: NewRows) -> int:
    # Past SQLAlchemy, which takes only lists: ten thousand rows that live at once are work for the
    # garbage collector, as much as a third of the insert.
    cursor = connection.connection.cursor()
    try:
        cursor.executemany(_INSERT, new.tuples())  # type: ignore[arg-type]  # any iterable will do
        return cursor.rowcount
    finally:
        cursor.close()


def _insert_sqlite(connection: Connection, new: NewRows, first_id: int) -> dict[Key, Recorded]:
    """SQLite gives the ids by itself, from ``first_id`` on, and none to a row whose key is
    taken."""
    if _insert_all_sqlite(connection, new) == len(new):
        return {}
    found = find(connection, new.keys())
    return {key: recorded for key, recorded in found.items() if recorded.cdr_id < first_id}


def _copy_postgresql(connection: Connection, new: NewRows, first_id: int) -> dict[Key, Recorded]:
    """COPY is the fastest way in, but one taken key refuses all of its rows. Most chunks have none;
    the others are copied again without the rows whose keys were taken, which by then are committed
    and seen."""
    existing: dict[Key, Recorded] = {}
    while len(new):
        try:
            with connection.begin_nested():
                _copy(connection, new, first_id)
            break
        except psycopg.errors.UniqueViolation:
            found = find(connection, new.keys())
            if not found:
                raise
            existing |= found
            new = new.without(found.keys())
    return existing


def _copy(connection: Connection, new: NewRows, first_id: int) -> None:
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(new.copy_data(first_id))


def find(connection: Connection, keys: Iterable[Key]) -> dict[Key, Recorded]:
    """The recorded calls among ``keys``, each in its newest generation."""
    found: dict[Key, Recorded] = {}
    for tenant_id, wanted in _by_tenant(keys).items():
        query = select(CdrRow.generation, IS_REVERSED, CdrRow.id, *CONTENT_COLUMNS).where(
            CdrRow.tenant_id == tenant_id,
            among(connection, CdrRow.__table__.c.call_id, wanted),
        )
        for generation, is_reversed, *row in connection.execute(query):
            cdr_id, content = recorded(row)
            key = content.tenant_id, content.call_id
            before = found.get(key)
            if before is None or before.generation < generation:
                found[key] = Recorded(cdr_id, content, generation, bool(is_reversed))
    return found


def contents(connection: Connection, keys: Iterable[Key]) -> set[Content]:
    """What is recorded under these keys, reversed or not."""
    found: set[Content] = set()
    for tenant_id, wanted in _by_tenant(keys).items():
        query = select(CdrRow.id, *CONTENT_COLUMNS).where(
            CdrRow.tenant_id == tenant_id,
            among(connection, CdrRow.__table__.c.call_id, wanted),
        )
        found |= {recorded(row)[1] for row in connection.execute(query)}
    return found


def reversed_among(connection: Connection, keys: Iterable[Key]) -> set[Key]:
    """Those of the keys whose newest CDR is reversed."""
    return {key for key, one in find(connection, keys).items() if one.is_reversed}


def _by_tenant(keys: Iterable[Key]) -> dict[int, list[str]]:
    call_ids: dict[int, list[str]] = {}
    for tenant_id, call_id in keys:
        call_ids.setdefault(tenant_id, []).append(call_id)
    return call_ids


def recorded(row: Any) -> tuple[int, Content]:
    """The CDR's id, and the call."""
    cdr_id, tenant_id, call_id, extension_id, *others = row
    return cdr_id, Content(tenant_id, call_id, extension_id or 0, *others)
