"""Inserts CDRs in bulk, and finds recorded calls by their keys.

Rows come sorted by key and rated: two transactions that insert the same calls take their keys in
the same order and never deadlock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from ratingcore.record.values import Content
from tollwire.service.storage.cdr_rows import Key, NewRows, Recorded
from tollwire.service.storage.conditions import IS_REVERSED
from tollwire.service.storage.dialects.base import KeyTaken
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.ledger import Entry
from tollwire.service.storage.schema.record_tables import CdrRow


class Inserted(NamedTuple):
    """The outcome of rows to insert."""

    first_id: int  # of the inserted rows: consecutive ids, in their order
    existing: dict[Key, Recorded]  # the recorded calls of the other keys
    is_entered: bool = False  # whether the ledger has their entry


CONTENT_COLUMNS = tuple(CdrRow.__table__.c[name] for name in Content._fields)


def insert_new(
    connection: Connection,
    new: NewRows,
    first_id: int,
    entry: Entry | None = None,
    *,
    chunk: Mapping[str, Any] | None = None,
    commits: bool = False,
    meanwhile: Callable[[], object] | None = None,
) -> Inserted:
    """Insert the rows whose key is not recorded yet; return the recorded calls of the others.
    ``first_id`` is from ``hold_parties``, and nothing was written since. ``entry``: the entry of
    all rows in the ledger, if ``hold_parties`` has locked a chain; added if all rows are inserted
    at once, with the ``chunk`` of an upload (``uploads.chunk_values``) if they are one, and with
    ``commits`` committed in the same round trip. Then nothing may follow in the transaction.
    ``meanwhile``: called if the database works on the rows by itself, while it does.

    Waits for other transactions that are inserting one of the keys, so the result is final.
    """
    if not len(new):
        return Inserted(0, {})
    dialect = dialect_of(connection)
    if entry is not None and dialect.insert_cdrs_and_entry(
        connection, new, first_id, entry._asdict(), chunk=chunk, commits=commits
    ):
        return Inserted(first_id, {}, is_entered=True)
    existing: dict[Key, Recorded] = {}
    while len(new):
        try:
            inserted = dialect.insert_cdrs(
                connection, new, first_id, is_first=True, meanwhile=meanwhile
            )
        except KeyTaken:
            found = find(connection, new.keys())
            if not found:
                raise
            existing |= found
            new = new.without(found.keys())
            continue
        if inserted < len(new):
            # The database has left out the rows whose key was recorded before.
            found = find(connection, new.keys())
            existing = {key: one for key, one in found.items() if one.cdr_id < first_id}
        break
    return Inserted(first_id, existing)


def insert_again(
    connection: Connection, new: NewRows, first_id: int, recorded: Mapping[Key, Recorded]
) -> dict[Key, Recorded]:
    """Insert rows whose keys are all ``recorded`` and reversed, each as the next generation, with
    ids from ``first_id`` on, which are the next of this transaction. Returns the calls that another
    transaction has recorded meanwhile instead of some of them.

    Keys of generations above 0 are always taken after those of generation 0, and in key order, so
    transactions do not deadlock here either.
    """
    dialect = dialect_of(connection)
    newest = dict(recorded)
    existing: dict[Key, Recorded] = {}
    while len(new):
        keys = list(new.keys())
        new.following({key: newest[key].generation for key in keys})
        try:
            dialect.insert_cdrs(connection, new, first_id, is_first=False)
            break
        except KeyTaken:
            found = find(connection, keys)
            if all(found[key] == newest[key] for key in keys):
                raise
            newest |= found
            standing = {key: one for key, one in found.items() if not one.is_reversed}
            existing |= standing
            new = new.without(standing.keys())
    return existing


def find(connection: Connection, keys: Iterable[Key]) -> dict[Key, Recorded]:
    """The recorded calls with these keys, each in its newest generation."""
    among = dialect_of(connection).among
    found: dict[Key, Recorded] = {}
    for tenant_id, wanted in _by_tenant(keys).items():
        query = select(CdrRow.generation, IS_REVERSED, CdrRow.id, *CONTENT_COLUMNS).where(
            CdrRow.tenant_id == tenant_id,
            among(CdrRow.__table__.c.call_id, wanted),
        )
        for generation, is_reversed, *row in connection.execute(query):
            cdr_id, content = recorded(row)
            key = content.tenant_id, content.call_id
            before = found.get(key)
            if before is None or before.generation < generation:
                found[key] = Recorded(cdr_id, content, generation, bool(is_reversed))
    return found


def contents(connection: Connection, keys: Iterable[Key]) -> set[Content]:
    """The contents of all CDRs with these keys, reversed or not."""
    among = dialect_of(connection).among
    found: set[Content] = set()
    for tenant_id, wanted in _by_tenant(keys).items():
        query = select(CdrRow.id, *CONTENT_COLUMNS).where(
            CdrRow.tenant_id == tenant_id,
            among(CdrRow.__table__.c.call_id, wanted),
        )
        found |= {recorded(row)[1] for row in connection.execute(query)}
    return found


def reversed_among(connection: Connection, keys: Iterable[Key]) -> set[Key]:
    """The keys whose newest CDR is reversed."""
    return {key for key, one in find(connection, keys).items() if one.is_reversed}


def _by_tenant(keys: Iterable[Key]) -> dict[int, list[str]]:
    call_ids: dict[int, list[str]] = {}
    for tenant_id, call_id in keys:
        call_ids.setdefault(tenant_id, []).append(call_id)
    return call_ids


def recorded(row: Any) -> tuple[int, Content]:
    """The id of the CDR, and the content of the call."""
    cdr_id, tenant_id, call_id, extension_id, *others = row
    return cdr_id, Content(tenant_id, call_id, extension_id or 0, *others)
