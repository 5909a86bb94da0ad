"""Whose rows: queries narrowed to the tenants that somebody may see.

The tenants are handed in. One is compared by itself, so that such a query is the one that asks for
a tenant; several are one parameter.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, false

from service.storage.cdrs import among

# Tenants, by rising id; None: all.
Within = tuple[int, ...] | None


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
