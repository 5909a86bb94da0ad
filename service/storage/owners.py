"""Narrows queries to the tenants that a caller may see.

One tenant is compared by ``=``, so the query equals one for that tenant; several are one parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    false,
    select,
    union_all,
)

from tollwire.service.storage.dialects.lookup import dialect_of

# Tenants, by rising id; None: all.
Within = tuple[int, ...] | None


def of_tenants(
    connection: Connection, column: ColumnElement[int], tenant_id: int, within: Within
) -> list[ColumnElement[bool]]:
    """That a row belongs to the tenant (0: to any) and to one ``within``."""
    if tenant_id:
        is_of_it = column == tenant_id
        return [is_of_it] if within is None or tenant_id in within else [is_of_it, false()]
    if within is None:
        return []
    return [
        column == within[0] if len(within) == 1 else dialect_of(connection).among(column, within)
    ]


def newest_of(
    connection: Connection,
    query: Select[Any],
    owner: ColumnElement[int],
    tenant_id: int,
    within: Within,
    order: Sequence[ColumnElement[Any]],
    limit: int,
) -> Select[Any]:
    """The first ``limit`` rows of ``query``, narrowed like ``of_tenants``, by falling ``order``.
    The columns of ``order`` are in the query, and an index has them for each owner.

    The rows of several tenants are read by one query for each and merged, up to
    ``Dialect.most_merged_tenants``.
    """
    query = query.order_by(*(column.desc() for column in order)).limit(limit)
    most = dialect_of(connection).most_merged_tenants
    if tenant_id or within is None or not 1 < len(within) <= most:
        return query.where(*of_tenants(connection, owner, tenant_id, within))
    parts = union_all(*(query.where(owner == one) for one in within)).subquery()
    falling = (parts.c[str(column.key)].desc() for column in order)
    return select(parts).order_by(*falling).limit(limit)
