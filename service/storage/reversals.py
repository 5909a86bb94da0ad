"""Reversals of CDRs, as rows.

The database copies each row from its CDR (INSERT … SELECT), so a million of them need no Python
objects. The row of the CDR does not change.

An UNRATED CDR can still change, so it is locked before it is read: it is priced and then reversed,
or reversed and then never priced. Every other CDR is final. If two transactions reverse the same
CDR, the unique index refuses one of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute

from tollwire.service.domain.model import ReversalRequest
from tollwire.service.storage import ids
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.owners import Within, of_tenants
from tollwire.service.storage.schema.record_tables import (
    IS_UNRATED,
    CdrReversalRow,
    CdrRow,
    UploadChunkRow,
    UploadRow,
)
from tollwire.service.storage.schema.tenant_tables import TenantRow

_TABLE = "cdr_reversals"
_E8 = 10**8
_SPLIT = 10**6
ROW_FIELDS = (
    "id",
    "cdr_id",
    "tenant_id",
    "started_at_ns",
    "cost_units",
    "cost_fraction_e8",
    "created_at_ns",
    "upload_id",
    "reason",
    "requested_by",
)
_COLUMNS = tuple(CdrReversalRow.__table__.c[name] for name in ROW_FIELDS)


class IdRange(NamedTuple):
    """The CDRs from id ``first`` to id ``last``, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class IdSet(NamedTuple):
    """The CDRs with these ids."""

    ids: Sequence[int]


# The CDRs that a transaction examines.
Chosen = Sequence[IdRange] | IdSet
# Further conditions on them.
Conditions = Sequence[ColumnElement[bool]]


class PartSums(NamedTuple):
    """CDRs of one tenant: their number; the number of CDRs that are not reversed, the cost of
    these, and how many of these have no cost."""

    tenant_id: int
    cdrs: int
    standing: int
    cost_e8: int
    unrated: int


def hold_cdr(connection: Connection, cdr_id: int, within: Within = None) -> bool:
    """Lock the CDR; whether it exists and its tenant is ``within``. Does not wait for CDRs of other
    tenants. Other transactions neither reverse nor price it before this one ends."""
    owned = of_tenants(connection, CdrRow.__table__.c.tenant_id, 0, within)
    query = select(CdrRow.id).where(CdrRow.id == cdr_id, *owned).with_for_update()
    return connection.execute(query).first() is not None


def add(
    connection: Connection,
    chosen: Chosen,
    request: ReversalRequest,
    now_ns: int,
    conditions: Conditions = (),
) -> Sequence[Any]:
    """Reverse the chosen CDRs that match and are not reversed. Returns the new rows as they are
    stored, with ROW_FIELDS, by their consecutive ids."""
    hold_unrated(connection, chosen)
    first_id, count = _insert(connection, chosen, request, now_ns, conditions)
    return stored(connection, first_id, count) if count else []


def hold_unrated(connection: Connection, chosen: Chosen) -> None:
    """Lock the chosen CDRs that are UNRATED, in the same order as RateUnrated. (SQLite has one
    writer at a time.)"""
    if dialect_of(connection).has_one_writer:
        return
    query = (
        select(CdrRow.id)
        .where(IS_UNRATED, _among(connection, CdrRow.id, chosen))
        .order_by(CdrRow.tenant_id, CdrRow.started_at_ns, CdrRow.id)
        .with_for_update()
    )
    connection.execute(query).all()


def _insert(
    connection: Connection,
    chosen: Chosen,
    request: ReversalRequest,
    now_ns: int,
    conditions: Conditions,
) -> tuple[int, int]:
    """The first id and the number of the rows; their ids are consecutive."""
    most = len(chosen.ids) if isinstance(chosen, IdSet) else sum(one.size for one in chosen)
    while True:
        first_id = ids.take_rows(connection, _TABLE, most)
        try:
            with connection.begin_nested():
                query = _insert_query(connection, chosen, request, first_id, now_ns, conditions)
                return first_id, connection.execute(query).rowcount
        except IntegrityError as error:
            # Another transaction has reversed one of them and is committed by now; the next attempt
            # leaves it out.
            if not dialect_of(connection).violates(error, "uq_cdr_reversals_cdr_id"):
                raise


def _insert_query(
    connection: Connection,
    chosen: Chosen,
    request: ReversalRequest,
    first_id: int,
    now_ns: int,
    conditions: Conditions,
) -> Any:
    number = func.row_number().over(order_by=CdrRow.id)
    new = select(
        number + literal(first_id - 1, BigInteger),
        CdrRow.id,
        CdrRow.tenant_id,
        CdrRow.started_at_ns,
        -CdrRow.cost_units,
        -CdrRow.cost_fraction_e8,
        literal(now_ns, BigInteger),
        CdrRow.upload_id,
        literal(request.reason, Text),
        literal(request.requested_by, Text),
    ).where(_among(connection, CdrRow.id, chosen), ~_is_reversed(connection, chosen), *conditions)
    query = insert(CdrReversalRow).from_select(ROW_FIELDS, new)
    # Otherwise SQLAlchemy does not keep the number of inserted rows.
    return query.execution_options(preserve_rowcount=True)


def _is_reversed(connection: Connection, chosen: Chosen) -> ColumnElement[bool]:
    """That a chosen CDR is reversed. The condition on the reversals seems redundant, but without it
    PostgreSQL reads all reversals for each part of an upload."""
    of_it = CdrReversalRow.cdr_id == CdrRow.id
    among_them = _among(connection, CdrReversalRow.cdr_id, chosen)
    return select(CdrReversalRow.id).where(of_it, among_them).exists()


def _among(
    connection: Connection, cdr_id: InstrumentedAttribute[int], chosen: Chosen
) -> ColumnElement[bool]:
    if isinstance(chosen, IdSet):
        column: ColumnElement[Any] = cdr_id.expression
        return dialect_of(connection).among(column, chosen.ids)
    return or_(*(cdr_id.between(first, last) for first, last in chosen))


def sums(connection: Connection, chosen: Chosen, conditions: Conditions) -> list[PartSums]:
    """The sums over the chosen CDRs that match, by tenant. Costs are summed in two integers, which
    cannot overflow for one part."""
    stands = ~_is_reversed(connection, chosen)
    parts = (
        select(
            CdrRow.tenant_id,
            stands.label("stands"),
            func.count().label("cdrs"),
            func.sum(CdrRow.cost_units // _SPLIT).label("high"),
            func.sum(CdrRow.cost_units % _SPLIT).label("low"),
            func.sum(CdrRow.cost_fraction_e8).label("fraction"),
            func.sum(case((IS_UNRATED, 1), else_=0)).label("unrated"),
        )
        .where(_among(connection, CdrRow.id, chosen), *conditions)
        .group_by(CdrRow.tenant_id, "stands")
    )
    found: dict[int, PartSums] = {}
    for row in connection.execute(parts):
        before = found.get(row.tenant_id, PartSums(row.tenant_id, 0, 0, 0, 0))
        if row.stands:
            units = int(row.high or 0) * _SPLIT + int(row.low or 0)
            cost_e8 = units * _E8 + int(row.fraction or 0)
            before = before._replace(standing=row.cdrs, cost_e8=cost_e8, unrated=int(row.unrated))
        found[row.tenant_id] = before._replace(cdrs=before.cdrs + row.cdrs)
    return [found[tenant_id] for tenant_id in sorted(found)]


def matching(
    connection: Connection,
    tenant_id: int,
    conditions: Conditions,
    after: tuple[int, int] | None,
    limit: int,
) -> list[tuple[int, int]]:
    """started_at_ns and id of the next CDRs of a tenant that match, in this order, after
    ``after``."""
    order = (CdrRow.started_at_ns, CdrRow.id)
    query = select(*order).where(CdrRow.tenant_id == tenant_id, *conditions)
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    found = connection.execute(query.order_by(*order).limit(limit))
    return [(started_at_ns, cdr_id) for started_at_ns, cdr_id in found]


def ids_of(connection: Connection, conditions: Conditions) -> list[int]:
    """The ids of the CDRs that match, by rising id."""
    query = select(CdrRow.id).where(*conditions).order_by(CdrRow.id)
    return list(connection.execute(query).scalars())


def present_ids(
    connection: Connection, wanted: Collection[int], tenant_id: int, within: Within
) -> set[int]:
    """The ids of these CDRs that exist and belong to the tenant (0: to any ``within``)."""
    column = CdrRow.__table__.c
    owned = of_tenants(connection, column.tenant_id, tenant_id, within)
    query = select(CdrRow.id).where(dialect_of(connection).among(column.id, wanted), *owned)
    return set(connection.execute(query).scalars())


def present_call_ids(connection: Connection, wanted: Collection[str], tenant_id: int) -> set[str]:
    """The call_ids of which the tenant has CDRs."""
    named = dialect_of(connection).among(CdrRow.__table__.c.call_id, wanted)
    query = select(CdrRow.call_id).where(CdrRow.tenant_id == tenant_id, named)
    return set(connection.execute(query).scalars())


def currencies(connection: Connection, tenant_ids: Collection[int]) -> dict[int, tuple[str, int]]:
    """The currency of each tenant, which never changes once it has CDRs, and the number of decimals
    of its costs, as it is now."""
    column = TenantRow.__table__.c.id
    query = select(TenantRow.id, TenantRow.currency, TenantRow.cost_decimals).where(
        dialect_of(connection).among(column, tenant_ids)
    )
    return {row.id: (row.currency, row.cost_decimals) for row in connection.execute(query)}


def stored(connection: Connection, first_id: int, count: int) -> Sequence[Any]:
    """The rows with ``count`` ids from ``first_id`` on, with ROW_FIELDS, by rising id."""
    query = (
        select(*_COLUMNS)
        .where(CdrReversalRow.id.between(first_id, first_id + count - 1))
        .order_by(CdrReversalRow.id)
    )
    return connection.execute(query).all()


def mark_upload(connection: Connection, upload_id: int, now_ns: int) -> bool:
    """Refuse further chunks of the upload. Returns whether they were accepted before. The
    transaction must hold a lock on the upload."""
    marked = connection.execute(
        update(UploadRow)
        .where(UploadRow.id == upload_id, UploadRow.reversed_at_ns.is_(None))
        .values(reversed_at_ns=now_ns)
    )
    return marked.rowcount > 0


def made_by(
    connection: Connection, upload_id: int, after_index: int, limit: int
) -> list[tuple[int, IdRange]]:
    """The upload's next chunks that created CDRs, at most ``limit``, after the chunk that begins at
    ``after_index``: the first index of each, and its CDRs."""
    query = (
        select(UploadChunkRow.first_index, UploadChunkRow.first_cdr_id, UploadChunkRow.created)
        .where(
            UploadChunkRow.upload_id == upload_id,
            UploadChunkRow.first_index > after_index,
            UploadChunkRow.created > 0,
        )
        .order_by(UploadChunkRow.first_index)
        .limit(limit)
    )
    return [
        (first_index, IdRange(first, first + created - 1))
        for first_index, first, created in connection.execute(query)
    ]
