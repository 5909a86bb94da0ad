"""The rows of CDRs: writing them in bulk, and finding them again.

A row to insert begins with the call's content and ends with its outcome; what is compared to tell a
duplicate from a conflict is the content alone (rating rule 10). The rating core makes the rows;
what is in them is agreed on in ROW_FIELDS.

Inserting sorts nothing and rates nothing: rows come in key order, so that two transactions that
insert the same calls meet them in the same order and never wait for each other in a circle.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

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
from sqlalchemy.orm import InstrumentedAttribute

from tollwire.service.domain.model import CdrFilter, RatingStatus
from tollwire.service.storage import ids
from tollwire.service.storage.schema.record_tables import CdrReversalRow, CdrRow
from tollwire.service.storage.schema.tenant_tables import ExtensionRow, TenantRow

_MAX_INT64 = 2**63 - 1
Key = tuple[int, str]  # tenant_id, call_id


class Content(NamedTuple):
    """What two calls must share to be one and the same: a call as its CDR stores it, in the order
    of ratingcore's ``Records.content``."""

    tenant_id: int
    call_id: str
    extension_id: int  # 0: none
    caller_number: str
    destination_number: str
    direction: int
    disposition: int
    duration_seconds: int
    started_at_ns: int
    ended_at_ns: int | None


# What rating made of a call.
OUTCOME_FIELDS = (
    "status",
    "unrated_reason",
    "bill_seconds",
    "cost_units",
    "cost_fraction_e8",
    "rate_version_id",
    "rate_revision",
)
ROW_FIELDS = (*Content._fields, *OUTCOME_FIELDS, "upload_id", "created_at_ns", "generation")


class NewRows(Protocol):
    """Rows to insert, in key order and no key twice."""

    def __len__(self) -> int: ...

    def keys(self) -> Iterator[Key]: ...

    def tuples(self) -> Iterable[tuple[Any, ...]]:
        """The values of ROW_FIELDS of each."""

    def copy_data(self, first_id: int) -> bytes:
        """The same, behind ids from ``first_id`` on, as PostgreSQL's binary COPY data: integers as
        wide as their columns."""

    def without(self, keys: Collection[Key]) -> NewRows:
        """Those whose key is not among ``keys``."""

    def following(self, generations: Mapping[Key, int]) -> None:
        """From here on each row is of the generation after the one that its key has there."""


class Recorded(NamedTuple):
    """A call as it is recorded: the newest generation of its key."""

    cdr_id: int
    content: Content
    generation: int
    is_reversed: bool


class Unrated(NamedTuple):
    """A call that was recorded without a price, and why it had none by the rates of then."""

    cdr_id: int
    content: Content
    unrated_reason: int
    rate_revision: int


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

_CONTENT_COLUMNS = tuple(CdrRow.__table__.c[name] for name in Content._fields)
# As a literal: only so do the databases see that the index of the UNRATED calls will do.
IS_UNRATED = CdrRow.status == literal_column(str(int(RatingStatus.UNRATED)))
IS_REVERSED = select(CdrReversalRow.id).where(CdrReversalRow.cdr_id == CdrRow.id).exists()


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
        query = select(CdrRow.generation, IS_REVERSED, CdrRow.id, *_CONTENT_COLUMNS).where(
            CdrRow.tenant_id == tenant_id,
            among(connection, CdrRow.__table__.c.call_id, wanted),
        )
        for generation, is_reversed, *row in connection.execute(query):
            cdr_id, content = _recorded(row)
            before = found.get(content[:2])
            if before is None or before.generation < generation:
                found[content[:2]] = Recorded(cdr_id, content, generation, bool(is_reversed))
    return found


def contents(connection: Connection, keys: Iterable[Key]) -> set[Content]:
    """What is recorded under these keys, reversed or not."""
    found: set[Content] = set()
    for tenant_id, wanted in _by_tenant(keys).items():
        query = select(CdrRow.id, *_CONTENT_COLUMNS).where(
            CdrRow.tenant_id == tenant_id,
            among(connection, CdrRow.__table__.c.call_id, wanted),
        )
        found |= {_recorded(row)[1] for row in connection.execute(query)}
    return found


def reversed_among(connection: Connection, keys: Iterable[Key]) -> set[Key]:
    """Those of the keys whose newest CDR is reversed."""
    return {key for key, one in find(connection, keys).items() if one.is_reversed}


def _by_tenant(keys: Iterable[Key]) -> dict[int, list[str]]:
    call_ids: dict[int, list[str]] = {}
    for tenant_id, call_id in keys:
        call_ids.setdefault(tenant_id, []).append(call_id)
    return call_ids


def _recorded(row: Any) -> tuple[int, Content]:
    """The CDR's id, and the call."""
    cdr_id, tenant_id, call_id, extension_id, *others = row
    return cdr_id, Content(tenant_id, call_id, extension_id or 0, *others)


def hold_parties(
    connection: Connection,
    tenant_ids: Collection[int],
    extension_ids: Collection[int],
    *,
    only_theirs: bool = False,
) -> tuple[set[int], dict[int, int]]:
    """Which of the tenants exist, and the owners of those of the extensions that do;
    ``only_theirs``: as if there were no extensions but those tenants'.

    None of them can be deleted, and no tenant get another currency, before this transaction ends:
    CDRs have no foreign keys, and a currency is free only while there are no CDRs in it. All other
    changes go on meanwhile: steady uploads would keep them waiting. (On SQLite a writing
    transaction is alone anyway.)
    """
    tenants = select(TenantRow.id).where(among(connection, TenantRow.__table__.c.id, tenant_ids))
    extensions = select(ExtensionRow.id, ExtensionRow.tenant_id).where(
        among(connection, ExtensionRow.__table__.c.id, extension_ids)
    )
    if only_theirs:
        owner = ExtensionRow.__table__.c.tenant_id
        extensions = extensions.where(among(connection, owner, tenant_ids))
    held = tenants.order_by(TenantRow.id).with_for_update(read=True, key_share=True)
    present = set(connection.execute(held).scalars())
    if not extension_ids:
        return present, {}
    held_too = extensions.order_by(ExtensionRow.id).with_for_update(read=True, key_share=True)
    return present, {row.id: row.tenant_id for row in connection.execute(held_too)}


def unrated(
    connection: Connection, wanted: CdrFilter, after: tuple[int, int] | None, limit: int
) -> list[Unrated]:
    """The next UNRATED calls of a tenant that are not reversed, by rising (started_at_ns, id),
    after the one with that.

    They stay so until this transaction ends, but for what it does itself. One that another
    transaction is just pricing or reversing is waited for, and left out once that is done.
    """
    order = (CdrRow.started_at_ns, CdrRow.id)
    query = (
        select(CdrRow.unrated_reason, CdrRow.rate_revision, CdrRow.id, *_CONTENT_COLUMNS)
        .where(
            IS_UNRATED,
            ~IS_REVERSED,
            CdrRow.tenant_id == wanted.tenant_id,
            *in_period(CdrRow.started_at_ns, wanted.started_after_ns, wanted.started_before_ns),
        )
        .order_by(*order)
        .limit(limit)
        .with_for_update(of=CdrRow)
    )
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    while True:
        found = [
            Unrated(*_recorded(row), reason, revision)
            for reason, revision, *row in connection.execute(query)
        ]
        # A statement does not see what was committed while it waited for a lock; the next one does.
        if not found or not _are_any_reversed(connection, found):
            return found


def _are_any_reversed(connection: Connection, calls: Sequence[Unrated]) -> bool:
    table = CdrReversalRow.__table__
    of_these = among(connection, table.c.cdr_id, [one.cdr_id for one in calls])
    return connection.execute(select(table.c.id).where(of_these).limit(1)).first() is not None


def next_tenant_with_unrated(connection: Connection, after_tenant_id: int) -> int | None:
    """The tenant with the least id above that one that has UNRATED calls."""
    query = select(func.min(CdrRow.tenant_id)).where(IS_UNRATED, CdrRow.tenant_id > after_tenant_id)
    return connection.execute(query).scalar()


def price(connection: Connection, outcomes: Sequence[tuple[int, Sequence[Any]]]) -> int:
    """Give the UNRATED CDRs with these ids these outcomes (in the order of OUTCOME_FIELDS), the
    one change that a CDR may see. Returns how many there were."""
    if not outcomes:
        return 0
    query = (
        update(CdrRow)
        .where(CdrRow.id == bindparam("cdr_id"), IS_UNRATED)
        .values({name: bindparam(f"new_{name}") for name in OUTCOME_FIELDS})
    )
    names = ("cdr_id", *(f"new_{name}" for name in OUTCOME_FIELDS))
    parameters = [dict(zip(names, (cdr_id, *values), strict=True)) for cdr_id, values in outcomes]
    return connection.execute(query, parameters).rowcount


def in_period(
    moment_ns: InstrumentedAttribute[int], after_ns: int | None, before_ns: int | None
) -> list[ColumnElement[bool]]:
    """A time from ``after_ns`` (inclusive) to ``before_ns`` (exclusive). Bounds outside 64 bits are
    moved in, which changes nothing: no call starts there, and nothing is written there."""
    conditions: list[ColumnElement[bool]] = []
    if after_ns is not None:
        conditions.append(moment_ns >= max(0, min(after_ns, _MAX_INT64)))
    if before_ns is not None:
        conditions.append(moment_ns < max(0, min(before_ns, _MAX_INT64)))
    return conditions


def among(
    connection: Connection, column: ColumnElement[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """That ``column`` is one of ``values``: one parameter, however many they are."""
    if connection.dialect.name == "sqlite":
        listed = func.json_each(json.dumps(list(values), ensure_ascii=False))
        return column.in_(select(listed.table_valued("value").c.value))
    return column == any_(literal(list(values), ARRAY(column.type)))
