"""Lists of CDRs: found by filters, page by page, each with its tenant, extension, rate and
reversal.
A page takes five queries, whatever its size, and one more for each tenant with corrections.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_

from tollwire.service.domain.case_folding import matches
from tollwire.service.domain.model import (
    Call,
    Cdr,
    CdrFilter,
    Direction,
    Disposition,
    Extension,
    Rate,
    RatingStatus,
    Reversal,
    ReversalRequest,
    Tenant,
    UnratedReason,
)
from tollwire.service.domain.record_model import ReversalFilter
from tollwire.service.storage.cdr_rows import Key
from tollwire.service.storage.conditions import IS_REVERSED, in_period
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.owners import Within, newest_of, of_tenants
from tollwire.service.storage.rates import rate_from_row
from tollwire.service.storage.schema.record_tables import (
    IS_UNRATED,
    CdrReversalRow,
    CdrRow,
    UploadChunkRow,
)
from tollwire.service.storage.schema.tenant_tables import (
    ExtensionRow,
    RateVersionRow,
    TenantRow,
    TenantVersionRow,
)
from tollwire.service.storage.tenants import tenant_from_row

_E8 = 10**8


def page(
    connection: Connection, wanted: CdrFilter, after: Sequence[int] | None, limit: int
) -> list[Cdr]:
    """CDRs by falling (started_at_ns, id). ``after`` has these values of the last CDR of the page
    before."""
    table = CdrRow.__table__
    order = (table.c.started_at_ns, table.c.id)
    query = select(table).where(*conditions(connection, wanted))
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    asked = (table.c.tenant_id, wanted.tenant_id, wanted.within, order, limit)
    query = newest_of(connection, query, *asked)
    return _complete(connection, list(connection.execute(query)))


def page_of_reversed(
    connection: Connection, wanted: ReversalFilter, after: Sequence[int] | None, limit: int
) -> list[Cdr]:
    """Reversed CDRs by falling (created_at_ns, id) of their reversals. ``after`` has these values
    of the last reversal of the page before."""
    reversal = CdrReversalRow.__table__.c
    order = (reversal.created_at_ns, reversal.id)
    query = select(reversal.cdr_id, *order).where(
        *in_period(CdrReversalRow.created_at_ns, wanted.created_after_ns, wanted.created_before_ns)
    )
    if wanted.upload_id:
        query = query.where(CdrReversalRow.upload_id == wanted.upload_id)
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    asked = (reversal.tenant_id, wanted.tenant_id, wanted.within, order, limit)
    ids = list(connection.execute(newest_of(connection, query, *asked)).scalars())
    if not ids:
        return []
    table = CdrRow.__table__
    rows = connection.execute(select(table).where(dialect_of(connection).among(table.c.id, ids)))
    found = {cdr.id: cdr for cdr in _complete(connection, list(rows))}
    return [found[cdr_id] for cdr_id in ids]


def by_id(connection: Connection, cdr_id: int, within: Within = None) -> Cdr | None:
    """The CDR, if its tenant is ``within``."""
    owned = of_tenants(connection, CdrRow.__table__.c.tenant_id, 0, within)
    return _one(connection, CdrRow.id == cdr_id, *owned)


def by_ids(connection: Connection, ids: Sequence[int]) -> list[Cdr]:
    """The CDRs with these ids, in their order."""
    if not ids:
        return []
    table = CdrRow.__table__
    rows = connection.execute(select(table).where(dialect_of(connection).among(table.c.id, ids)))
    found = {cdr.id: cdr for cdr in _complete(connection, list(rows))}
    return [found[cdr_id] for cdr_id in ids if cdr_id in found]


def owned_ids(
    connection: Connection, ids: Sequence[int], tenant_id: int, within: Within
) -> set[int]:
    """The ids that belong to CDRs of the tenant (0: of any) ``within``."""
    if not ids:
        return set()
    table = CdrRow.__table__
    owned = of_tenants(connection, table.c.tenant_id, tenant_id, within)
    query = select(table.c.id).where(dialect_of(connection).among(table.c.id, ids), *owned)
    return set(connection.execute(query).scalars())


def by_key(connection: Connection, key: Key) -> Cdr | None:
    """The newest generation of the call."""
    return _one(connection, CdrRow.tenant_id == key[0], CdrRow.call_id == key[1])


def same_call(connection: Connection, key: Key) -> list[tuple[int, bool]]:
    """The CDRs of a call in the order of recording: the id, and whether it is reversed."""
    query = (
        select(CdrRow.id, IS_REVERSED.label("is_reversed"))
        .where(CdrRow.tenant_id == key[0], CdrRow.call_id == key[1])
        .order_by(CdrRow.generation)
    )
    return [(row.id, row.is_reversed) for row in connection.execute(query)]


def _one(connection: Connection, *conditions: ColumnElement[bool]) -> Cdr | None:
    query = select(CdrRow.__table__).where(*conditions).order_by(CdrRow.generation.desc()).limit(1)
    rows = connection.execute(query)
    found = _complete(connection, list(rows))
    return found[0] if found else None


def conditions(connection: Connection, wanted: CdrFilter) -> list[ColumnElement[bool]]:
    """The conditions of the filter, without those on the tenant."""
    found = in_period(CdrRow.started_at_ns, wanted.started_after_ns, wanted.started_before_ns)
    if wanted.ids:
        found.append(dialect_of(connection).among(CdrRow.__table__.c.id, wanted.ids))
    if wanted.call_id or wanted.call_ids:
        found.append(_has_call_id(connection, wanted))
    if wanted.extension_id:
        found.append(CdrRow.extension_id == wanted.extension_id)
    if wanted.extension_number:
        owned = of_tenants(
            connection, ExtensionRow.__table__.c.tenant_id, wanted.tenant_id, wanted.within
        )
        numbered = select(ExtensionRow.id).where(
            ExtensionRow.number == wanted.extension_number, *owned
        )
        found.append(CdrRow.extension_id.in_(numbered))
    if wanted.direction is not None:
        found.append(CdrRow.direction == int(wanted.direction))
    if wanted.disposition is not None:
        found.append(CdrRow.disposition == int(wanted.disposition))
    if wanted.status is not None:
        is_unrated = wanted.status == RatingStatus.UNRATED
        found.append(IS_UNRATED if is_unrated else CdrRow.status == int(wanted.status))
    if wanted.unrated_reason is not None:
        found += [IS_UNRATED, CdrRow.unrated_reason == int(wanted.unrated_reason)]
    if wanted.is_reversed is not None:
        found.append(IS_REVERSED if wanted.is_reversed else ~IS_REVERSED)
    if wanted.rate_id or wanted.matched_prefix:
        found.append(_is_priced_by(wanted.rate_id, wanted.matched_prefix))
    if wanted.upload_id:
        found += _is_of_upload(wanted.upload_id)
    if wanted.search:
        found.append(_search(connection, wanted.search))
    return found


def conditions_with_tenants(connection: Connection, wanted: CdrFilter) -> list[ColumnElement[bool]]:
    """All conditions of the filter."""
    owner = CdrRow.__table__.c.tenant_id
    owned = of_tenants(connection, owner, wanted.tenant_id, wanted.within)
    return [*owned, *conditions(connection, wanted)]


def _has_call_id(connection: Connection, wanted: CdrFilter) -> ColumnElement[bool]:
    """That a CDR has the call_id, or one of several. In the index call_ids follow their tenants, so
    if no tenant is given the query names all tenants."""
    call_id = CdrRow.__table__.c.call_id
    has_it = call_id == wanted.call_id
    if wanted.call_ids:
        has_it = dialect_of(connection).among(call_id, wanted.call_ids)
    if wanted.tenant_id:
        # Without the hint SQLite reads all calls of the tenant, because they are in the order of
        # the list.
        return dialect_of(connection).unlikely(has_it)
    owned = of_tenants(connection, TenantRow.__table__.c.id, 0, wanted.within)
    return and_(CdrRow.tenant_id.in_(select(TenantRow.id).where(*owned)), has_it)


def _is_priced_by(rate_id: int, matched_prefix: str) -> ColumnElement[bool]:
    version = select(RateVersionRow.version_id).where(
        RateVersionRow.version_id == CdrRow.rate_version_id
    )
    if rate_id:
        version = version.where(RateVersionRow.rate_id == rate_id)
    if matched_prefix:
        version = version.where(RateVersionRow.prefix == matched_prefix)
    return version.exists()


def _is_of_upload(upload_id: int) -> list[ColumnElement[bool]]:
    """That the upload created the CDR. Its id is then in the range of the upload's chunks."""
    created = (UploadChunkRow.upload_id == upload_id, UploadChunkRow.created > 0)
    first = select(func.min(UploadChunkRow.first_cdr_id)).where(*created)
    last = select(func.max(UploadChunkRow.first_cdr_id + UploadChunkRow.created - 1)).where(
        *created
    )
    return [
        CdrRow.upload_id == upload_id,
        CdrRow.id.between(first.scalar_subquery(), last.scalar_subquery()),
    ]


def _search(connection: Connection, term: str) -> ColumnElement[bool]:
    """That a number, or the name of the direction or disposition, contains the term."""
    dialect = dialect_of(connection)
    directions = [int(value) for value in Direction if matches(term, value.name)]
    dispositions = [int(value) for value in Disposition if matches(term, value.name)]
    return or_(
        dialect.contains(CdrRow.caller_number, term),
        dialect.contains(CdrRow.destination_number, term),
        CdrRow.direction.in_(directions),
        CdrRow.disposition.in_(dispositions),
    )


def _complete(connection: Connection, rows: Sequence[Any]) -> list[Cdr]:
    """The CDRs of the rows, with the resources that they refer to."""
    tenants = _tenants(connection, {(row.tenant_id, row.rate_revision) for row in rows})
    extensions = _extensions(connection, {row.extension_id for row in rows} - {None})
    rates = _rates(connection, {row.rate_version_id for row in rows} - {None})
    reversals = _reversals(connection, [row.id for row in rows])
    same_calls = _same_calls(connection, rows, reversals)
    return [
        Cdr(
            id=row.id,
            call=_call(row),
            tenant=tenants[row.tenant_id, row.rate_revision],
            extension=extensions.get(row.extension_id),
            status=RatingStatus(row.status),
            unrated_reason=row.unrated_reason and UnratedReason(row.unrated_reason),
            bill_seconds=row.bill_seconds,
            cost_e8=_cost_e8(row),
            rate=rates.get(row.rate_version_id),
            rate_revision=row.rate_revision,
            upload_id=row.upload_id or 0,
            created_at_ns=row.created_at_ns,
            reversal=reversals.get(row.id),
            generation=row.generation,
            replaces_cdr_id=same_calls.get((*_key(row), row.generation - 1), 0),
            replaced_by_cdr_id=same_calls.get((*_key(row), row.generation + 1), 0),
        )
        for row in rows
    ]


def _cost_e8(row: Any) -> int | None:
    """The cost of a CDR, or of a reversal: both of its parts are negative."""
    return None if row.cost_units is None else row.cost_units * _E8 + row.cost_fraction_e8


def _call(row: Any) -> Call:
    return Call(
        tenant_id=row.tenant_id,
        destination_number=row.destination_number,
        direction=Direction(row.direction),
        disposition=Disposition(row.disposition),
        duration_seconds=row.duration_seconds,
        started_at_ns=row.started_at_ns,
        ended_at_ns=row.ended_at_ns,
        extension_id=row.extension_id or 0,
        caller_number=row.caller_number,
        call_id=row.call_id,
    )


def _tenants(connection: Connection, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], Tenant]:
    """The tenants as they were at those revisions of their decks."""
    if not wanted:
        return {}
    query = (
        select(TenantVersionRow.__table__)
        .where(
            dialect_of(connection).among(
                TenantVersionRow.__table__.c.tenant_id,
                {tenant_id for tenant_id, _ in wanted},
            ),
            TenantVersionRow.revision <= max(revision for _, revision in wanted),
        )
        .order_by(TenantVersionRow.revision)
    )
    histories: dict[int, list[Any]] = {}
    for row in connection.execute(query):
        histories.setdefault(row.tenant_id, []).append(row)
    found = {}
    for tenant_id, revision in wanted:
        history = histories[tenant_id]
        as_of = bisect_right(history, revision, key=lambda row: row.revision) - 1
        found[tenant_id, revision] = tenant_from_row(history[as_of])
    return found


def _extensions(connection: Connection, ids: set[int]) -> dict[int, Extension]:
    if not ids:
        return {}
    table = ExtensionRow.__table__
    query = select(table).where(dialect_of(connection).among(table.c.id, ids))
    return {row.id: Extension(**row._mapping) for row in connection.execute(query)}


def _rates(connection: Connection, version_ids: set[int]) -> dict[int, Rate]:
    if not version_ids:
        return {}
    table = RateVersionRow.__table__
    query = select(table).where(dialect_of(connection).among(table.c.version_id, version_ids))
    return {row.version_id: rate_from_row(row) for row in connection.execute(query)}


class RateCache:
    """Versions of rates by their ids, the most recently used ones. A version never changes.
    Thread-safe."""

    def __init__(self, max_rates: int = 10_000) -> None:
        self._max_rates = max_rates
        self._found: dict[int, Rate] = {}

    def find(self, connection: Connection, version_ids: set[int]) -> dict[int, Rate]:
        """The versions with these ids, all of which exist."""
        # A thread that drops all rates replaces the dictionary and leaves this one as it is.
        known = self._found
        found = {one: known[one] for one in version_ids if one in known}
        missing = version_ids - found.keys()
        if missing:
            read = _rates(connection, missing)
            if len(known) + len(read) > self._max_rates:
                self._found = read
            else:
                known.update(read)
            found |= read
        return found


def _key(row: Any) -> Key:
    return row.tenant_id, row.call_id


def _same_calls(
    connection: Connection, rows: Sequence[Any], reversed_ids: Container[int]
) -> dict[tuple[int, str, int], int]:
    """The ids of the CDRs of calls that may have several, by tenant_id, call_id and generation.
    Only a reversed CDR can have a successor."""
    call_ids: dict[int, set[str]] = {}
    for row in rows:
        if row.generation or row.id in reversed_ids:
            call_ids.setdefault(row.tenant_id, set()).add(row.call_id)
    table = CdrRow.__table__.c
    among = dialect_of(connection).among
    found: dict[tuple[int, str, int], int] = {}
    for tenant_id, wanted in call_ids.items():
        query = select(table.id, table.call_id, table.generation).where(
            table.tenant_id == tenant_id, among(table.call_id, wanted)
        )
        for cdr_id, call_id, generation in connection.execute(query):
            found[tenant_id, call_id, generation] = cdr_id
    return found


def _reversals(connection: Connection, cdr_ids: Sequence[int]) -> dict[int, Reversal]:
    if not cdr_ids:
        return {}
    table = CdrReversalRow.__table__
    query = select(table).where(dialect_of(connection).among(table.c.cdr_id, cdr_ids))
    return {
        row.cdr_id: Reversal(
            id=row.id,
            request=ReversalRequest(row.reason, row.requested_by),
            cost_e8=_cost_e8(row),
            created_at_ns=row.created_at_ns,
        )
        for row in connection.execute(query)
    }
