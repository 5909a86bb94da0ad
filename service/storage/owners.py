"""Whose rows: queries narrowed to the tenants that somebody may see.

The tenants are handed in. One is compared by itself, so that such a query is the one that asks for
a tenant; several are one parameter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    TableValuedAlias,
    false,
    func,
    literal,
    select,
    union_all,
)

from tollwire.service.storage.conditions import among

# Tenants, by rising id; None: all.
Within = tuple[int, ...] | None

# Above that a statement is planned for longer than it runs.
MERGED_TENANTS = 50


def of_tenants(
    connection: Connection, column: ColumnElement[int], tenant_id: int, within: Within
) -> list[ColumnElement[bool]]:
    """That a row is of the tenant (0: of any) and of one of those ``within``."""
    if tenant_id:
        is_of_it = column == tenant_id
        return [is_of_it] if within is None or tenant_id in within else [is_of_it, false()]
    if within is None:
        return []
    return [column == within[0] if len(within) == 1 else among(connection, column, within)]


def newest_of(
    connection: Connection,
    query: Select[Any],
    owner: ColumnElement[int],
    tenant_id: int,
    within: Within,
    order: Sequence[ColumnElement[Any]],
    limit: int,
) -> Select[Any]:
    """The first ``limit`` rows of ``query``, narrowed as ``of_tenants`` does. They come by falling
    ``order``, which is among the query's columns; for each owner an index has it.

    Of several tenants PostgreSQL would read everybody's rows in that order and leave most out, and
    all that there are where those tenants have called long ago or never. So each is asked for its
    own, as far as they are few. (SQLite does so by itself.)
    """
    query = query.order_by(*(column.desc() for column in order)).limit(limit)
    is_merged = connection.dialect.name == "postgresql" and not tenant_id and within is not None
    if not is_merged or within is None or not 1 < len(within) <= MERGED_TENANTS:
        return query.where(*of_tenants(connection, owner, tenant_id, within))
    parts = union_all(*(query.where(owner == one) for one in within)).subquery()
    falling = (parts.c[str(column.key)].desc() for column in order)
    return select(parts).order_by(*falling).limit(limit)


def listed(connection: Connection, within: Sequence[int]) -> TableValuedAlias:
    """The tenants as rows, with one column."""
    if connection.dialect.name == "sqlite":
        return func.json_each(json.dumps(list(within))).table_valued("value")
    ids = literal(list(within), ARRAY(BigInteger))
    return func.unnest(ids).table_valued("value").render_derived()
