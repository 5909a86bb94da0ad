"""The rows of CDRs: writing them in bulk, and finding them again.

The one module that knows how a row of ``cdrs`` is laid out. A row to insert begins with the call's
content and ends with its outcome; what is compared to tell a duplicate from a conflict is the
content alone (rating rule 10).

Inserting sorts nothing and rates nothing: rows come in key order, so that two transactions that
insert the same calls meet them in the same order and never wait for each other in a circle.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    any_,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)

from service.model import MAX_STARTED_AT_NS, CdrFilter, RatingStatus
from service.storage.tables import CdrRow, ExtensionRow, TenantRow

Key = tuple[int, str]  # tenant_id, call_id
# What two calls must share to be one and the same, in the order of the fields of Contents.
Content = tuple[int, str, int, str, str, int, int, int, int, int | None]


class Contents(NamedTuple):
    """Calls as they are compared and recorded, a column for each field and an item for each call.

    ``extension_id`` is 0 where there is none; ``direction`` and ``disposition`` are plain integers.
    """

    tenant_id: Sequence[int]
    call_id: Sequence[str]
    extension_id: Sequence[int]
    caller_number: Sequence[str]
    destination_number: Sequence[str]
    direction: Sequence[int]
    disposition: Sequence[int]
    duration_seconds: Sequence[int]
    started_at_ns: Sequence[int]
    ended_at_ns: Sequence[int | None]

    @property
    def size(self) -> int:
        return len(self.tenant_id)

    def key(self, index: int) -> Key:
        return self.tenant_id[index], self.call_id[index]

    def content(self, index: int) -> Content:
        return tuple(column[index] for column in self)  # type: ignore[return-value]

    def take(self, order: Sequence[int]) -> Contents:
        """The calls at these places, in this order."""
        columns: Any = ([*map(column.__getitem__, order)] for column in self)
        return Contents(*columns)

    def part(self, begin: int, end: int) -> Contents:
        columns: Any = (column[begin:end] for column in self)
        return Contents(*columns)


class Outcomes(NamedTuple):
    """What rating made of calls, a column for each field and an item for each call."""

    status: Sequence[int]
    unrated_reason: Sequence[int | None]
    bill_seconds: Sequence[int | None]
    cost_units: Sequence[int | None]
    cost_fraction_e4: Sequence[int | None]
    rate_version_id: Sequence[int | None]
    rate_revision: Sequence[int]

    def take(self, order: Sequence[int]) -> Outcomes:
        columns: Any = ([*map(column.__getitem__, order)] for column in self)
        return Outcomes(*columns)


class Recorded(NamedTuple):
    """A call as it is recorded."""

    cdr_id: int
    content: Content


_COLUMNS = (*Contents._fields, *Outcomes._fields, "upload_id", "created_at_ns")
_POSTGRESQL_TYPES = {"BIGINT": "int8", "INTEGER": "int4", "SMALLINT": "int2", "TEXT": "text"}
_COPY_TYPES = tuple(_POSTGRESQL_TYPES[str(CdrRow.__table__.c[name].type)] for name in _COLUMNS)
_COPY = f"COPY cdrs ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_INSERT = (
    f"INSERT INTO cdrs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
    " ON CONFLICT DO NOTHING"
)

_CONTENT_COLUMNS = tuple(CdrRow.__table__.c[name] for name in Contents._fields)
# As a literal: only so do the databases see that the index of the UNRATED calls will do.
IS_UNRATED = CdrRow.status == literal_column(str(int(RatingStatus.UNRATED)))


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows to insert, in key order and no key twice. ``upload_id`` 0 means none.

    Iterating makes the rows one at a time, in the order of _COLUMNS.
    """

    calls: Contents
    outcomes: Outcomes
    upload_id: int
    created_at_ns: int

    def __len__(self) -> int:
        return self.calls.size

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        columns: dict[str, Iterable[Any]] = {**self.calls._asdict(), **self.outcomes._asdict()}
        columns["extension_id"] = [one or None for one in self.calls.extension_id]
        columns["upload_id"] = repeat(self.upload_id or None)
        columns["created_at_ns"] = repeat(self.created_at_ns)
        return zip(*(columns[name] for name in _COLUMNS), strict=False)

    def keys(self) -> Iterator[Key]:
        return zip(self.calls.tenant_id, self.calls.call_id, strict=True)

    def take(self, order: Sequence[int]) -> NewRows:
        """The rows at these places."""
        return replace(self, calls=self.calls.take(order), outcomes=self.outcomes.take(order))


def insert_new(connection: Connection, new: NewRows) -> dict[Key, Recorded]:
    """Insert the rows whose key is not recorded yet; answer the recorded calls of the others.

    Waits for other transactions that are inserting one of the keys, so the answer holds whoever
    came first.
    """
    if connection.dialect.name == "sqlite":
        return _insert_sqlite(connection, new)
    return _copy_postgresql(connection, new)


def _insert_sqlite(connection: Connection, new: NewRows) -> dict[Key, Recorded]:
    # Nobody else writes meanwhile: what was there before has no higher id than this.
    newest = connection.execute(select(func.max(CdrRow.id))).scalar() or 0
    # Past SQLAlchemy, which takes only lists: ten thousand rows that live at once are work for the
    # garbage collector, as much as a third of the insert.
    cursor = connection.connection.cursor()
    try:
        cursor.executemany(_INSERT, new)  # type: ignore[arg-type]  # any iterable will do
        inserted = cursor.rowcount
    finally:
        cursor.close()
    if inserted == len(new):
        return {}
    found = find(connection, new.keys())
    return {key: recorded for key, recorded in found.items() if recorded.cdr_id <= newest}


def _copy_postgresql(connection: Connection, new: NewRows) -> dict[Key, Recorded]:
    """COPY is the fastest way in, but one taken key refuses all of its rows. Most chunks have none;
    the others are copied again without the rows whose keys were taken, which by then are committed
    and seen."""
    in_the_way: dict[Key, Recorded] = {}
    while len(new):
        try:
            with connection.begin_nested():
                _copy(connection, new)
            break
        except psycopg.errors.UniqueViolation:
            found = find(connection, new.keys())
            if not found:
                raise
            in_the_way |= found
            new = new.take([index for index, key in enumerate(new.keys()) if key not in found])
    return in_the_way


def _copy(connection: Connection, new: NewRows) -> None:
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_COPY_TYPES)
        for row in new:
            copy.write_row(row)


def find(connection: Connection, keys: Iterable[Key]) -> dict[Key, Recorded]:
    """The recorded calls among ``keys``."""
    call_ids: dict[int, list[str]] = {}
    for tenant_id, call_id in keys:
        call_ids.setdefault(tenant_id, []).append(call_id)
    found: dict[Key, Recorded] = {}
    for tenant_id, wanted in call_ids.items():
        query = select(CdrRow.id, *_CONTENT_COLUMNS).where(
            CdrRow.tenant_id == tenant_id,
            among(connection, CdrRow.__table__.c.call_id, wanted),
        )
        for row in connection.execute(query):
            recorded = _recorded(row)
            found[recorded.content[:2]] = recorded
    return found


def _recorded(row: Any) -> Recorded:
    cdr_id, tenant_id, call_id, extension_id, *others = row
    content: Any = (tenant_id, call_id, extension_id or 0, *others)
    return Recorded(cdr_id, content)


def hold_parties(
    connection: Connection, tenant_ids: Collection[int], extension_ids: Collection[int]
) -> tuple[set[int], dict[int, int]]:
    """Which of the tenants exist, and the owners of those of the extensions that do.

    None of them can be deleted, and no tenant get another currency, before this transaction ends:
    CDRs have no foreign keys, and a currency is free only while there are no CDRs in it. All other
    changes go on meanwhile: steady uploads would keep them waiting. (On SQLite a writing
    transaction is alone anyway.)
    """
    tenants = select(TenantRow.id).where(among(connection, TenantRow.__table__.c.id, tenant_ids))
    extensions = select(ExtensionRow.id, ExtensionRow.tenant_id).where(
        among(connection, ExtensionRow.__table__.c.id, extension_ids)
    )
    held = tenants.order_by(TenantRow.id).with_for_update(read=True, key_share=True)
    present = set(connection.execute(held).scalars())
    if not extension_ids:
        return present, {}
    held_too = extensions.order_by(ExtensionRow.id).with_for_update(read=True, key_share=True)
    return present, {row.id: row.tenant_id for row in connection.execute(held_too)}


def unrated(
    connection: Connection, wanted: CdrFilter, after: tuple[int, int] | None, limit: int
) -> list[Recorded]:
    """The next UNRATED calls of a tenant, by rising (started_at_ns, id), after the one with that.

    They stay UNRATED until this transaction ends, but for what it does itself. One that another
    transaction is just pricing is waited for, and left out once it is priced.
    """
    order = (CdrRow.started_at_ns, CdrRow.id)
    query = (
        select(CdrRow.id, *_CONTENT_COLUMNS)
        .where(
            IS_UNRATED,
            CdrRow.tenant_id == wanted.tenant_id,
            *started_between(wanted.started_after_ns, wanted.started_before_ns),
        )
        .order_by(*order)
        .limit(limit)
        .with_for_update()
    )
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    return [_recorded(row) for row in connection.execute(query)]


def next_tenant_with_unrated(connection: Connection, after_tenant_id: int) -> int | None:
    """The tenant with the least id above that one that has UNRATED calls."""
    query = select(func.min(CdrRow.tenant_id)).where(IS_UNRATED, CdrRow.tenant_id > after_tenant_id)
    return connection.execute(query).scalar()


def price(connection: Connection, outcomes: Sequence[tuple[int, Sequence[Any]]]) -> int:
    """Give the UNRATED CDRs with these ids these outcomes (in the order of Outcomes' fields), the
    one change that a CDR may see. Returns how many there were."""
    if not outcomes:
        return 0
    query = (
        update(CdrRow)
        .where(CdrRow.id == bindparam("cdr_id"), IS_UNRATED)
        .values({name: bindparam(f"new_{name}") for name in Outcomes._fields})
    )
    names = ("cdr_id", *(f"new_{name}" for name in Outcomes._fields))
    parameters = [dict(zip(names, (cdr_id, *values), strict=True)) for cdr_id, values in outcomes]
    return connection.execute(query, parameters).rowcount


def started_between(after_ns: int | None, before_ns: int | None) -> list[ColumnElement[bool]]:
    """started_at from ``after_ns`` (inclusive) to ``before_ns`` (exclusive). Bounds outside 64 bits
    are moved in, which changes nothing: no call starts there."""
    conditions: list[ColumnElement[bool]] = []
    if after_ns is not None:
        conditions.append(CdrRow.started_at_ns >= max(0, min(after_ns, MAX_STARTED_AT_NS + 1)))
    if before_ns is not None:
        conditions.append(CdrRow.started_at_ns < max(0, min(before_ns, MAX_STARTED_AT_NS + 1)))
    return conditions


def among(
    connection: Connection, column: ColumnElement[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """That ``column`` is one of ``values``: one parameter, however many they are."""
    if connection.dialect.name == "sqlite":
        listed = func.json_each(json.dumps(list(values), ensure_ascii=False))
        return column.in_(select(listed.table_valued("value").c.value))
    return column == any_(literal(list(values), ARRAY(column.type)))
