"""Tenants, their history, and their extensions, as rows."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Delete, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from tollwire.service.domain.model import Extension, Rounding, Tenant
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.owners import Within, of_tenants
from tollwire.service.storage.schema.record_tables import CdrRow
from tollwire.service.storage.schema.tenant_tables import ExtensionRow, TenantRow, TenantVersionRow


def tenant_from_row(row: Any) -> Tenant:
    """The tenant in a row of ``tenants`` or ``tenant_versions``."""
    return Tenant(
        id=getattr(row, "id", None) or row.tenant_id,
        name=row.name,
        currency=row.currency,
        rounding=Rounding(row.rounding),
        country_code=row.country_code,
        national_prefix=row.national_prefix,
        international_prefix=row.international_prefix,
        created_at_ns=row.created_at_ns,
        cost_decimals=row.cost_decimals,
    )


def extension_from_row(row: Any) -> Extension:
    return Extension(id=row.id, tenant_id=row.tenant_id, number=row.number, name=row.name)


def add(connection: Connection, tenant: Tenant) -> bool:
    """False where the id is taken."""
    return dialect_of(connection).insert_or_ignore(connection, TenantRow, asdict(tenant))


def add_version(connection: Connection, tenant: Tenant, revision: int) -> None:
    """Record what the tenant is from ``revision`` of its deck on."""
    values = asdict(tenant)
    values["tenant_id"] = values.pop("id")
    connection.execute(insert(TenantVersionRow).values(**values, revision=revision))


def get(connection: Connection, tenant_id: int) -> Tenant | None:
    row = connection.execute(select(TenantRow.__table__).where(TenantRow.id == tenant_id)).first()
    return None if row is None else tenant_from_row(row)


def existed(connection: Connection, tenant_id: int) -> bool:
    """Whether there is or was such a tenant: the history of a deleted one stays."""
    return _is_there(connection, TenantVersionRow.tenant_id == tenant_id)


def lock(connection: Connection, tenant_id: int, *, from_calls: bool) -> Tenant | None:
    """The tenant, held so that nobody else changes it before this transaction ends.

    ``from_calls``: nor records a call of it. That waits for a moment in which nobody does, which
    under steady uploads is long in coming. It must be the first lock that the transaction has on
    the tenant: where a weaker one is raised, PostgreSQL (18) at times lets in who records a call,
    because it looks whether there is a lock in its way, lets go of the row, and then no longer
    minds one that was only raised meanwhile.
    """
    query = select(TenantRow.__table__).where(TenantRow.id == tenant_id)
    row = connection.execute(query.with_for_update(key_share=not from_calls)).first()
    return None if row is None else tenant_from_row(row)


def keep(connection: Connection, tenant_id: int) -> bool:
    """Whether the tenant is there; it cannot be deleted then before this transaction ends."""
    query = select(TenantRow.id).where(TenantRow.id == tenant_id)
    return connection.execute(query.with_for_update(read=True, key_share=True)).first() is not None


def present(connection: Connection, tenant_ids: Set[int]) -> set[int]:
    """Which of these tenants are there."""
    query = select(TenantRow.id).where(TenantRow.id.in_(tenant_ids))
    return set(connection.execute(query).scalars())


def page(connection: Connection, after_id: int, size: int, within: Within = None) -> list[Tenant]:
    owned = of_tenants(connection, TenantRow.__table__.c.id, 0, within)
    query = select(TenantRow.__table__).where(TenantRow.id > after_id, *owned)
    query = query.order_by(TenantRow.id)
    return [tenant_from_row(row) for row in connection.execute(query.limit(size))]


def change(connection: Connection, tenant: Tenant) -> None:
    values = asdict(tenant)
    del values["id"]
    connection.execute(update(TenantRow).where(TenantRow.id == tenant.id).values(values))


def remove(connection: Connection, tenant_id: int) -> bool:
    """Removes its extensions as well; its history stays. False where a trigger has refused it,
    because CDRs refer to it; the transaction can then only be rolled back."""
    return _is_removed(connection, delete(TenantRow).where(TenantRow.id == tenant_id))


def has_cdrs(connection: Connection, tenant_id: int) -> bool:
    return _is_there(connection, CdrRow.tenant_id == tenant_id)


def add_extension(connection: Connection, extension: Extension) -> bool:
    """False where the id is taken."""
    return dialect_of(connection).insert_or_ignore(connection, ExtensionRow, asdict(extension))


def get_extension(connection: Connection, extension_id: int) -> Extension | None:
    query = select(ExtensionRow.__table__).where(ExtensionRow.id == extension_id)
    row = connection.execute(query).first()
    return None if row is None else extension_from_row(row)


def is_extension_number(
    connection: Connection, number: str, tenant_id: int, within: Within = None
) -> bool:
    """Whether an extension of the tenant (0: of any of those ``within``) has that number."""
    owned = of_tenants(connection, ExtensionRow.__table__.c.tenant_id, tenant_id, within)
    query = select(ExtensionRow.id).where(ExtensionRow.number == number, *owned)
    return connection.execute(query.limit(1)).first() is not None


def lock_extension(
    connection: Connection, extension_id: int, within: Within, *, from_calls: bool = False
) -> Extension | None:
    """The extension, held as ``lock`` holds a tenant, if it is of one of those ``within``; one of
    another tenant is not waited for."""
    owned = of_tenants(connection, ExtensionRow.__table__.c.tenant_id, 0, within)
    query = select(ExtensionRow.__table__).where(ExtensionRow.id == extension_id, *owned)
    row = connection.execute(query.with_for_update(key_share=not from_calls)).first()
    return None if row is None else extension_from_row(row)


def page_extensions(
    connection: Connection, tenant_id: int, after_id: int, size: int, within: Within = None
) -> list[Extension]:
    """``tenant_id`` 0: of all tenants ``within``."""
    owned = of_tenants(connection, ExtensionRow.__table__.c.tenant_id, tenant_id, within)
    query = select(ExtensionRow.__table__).where(ExtensionRow.id > after_id, *owned)
    rows = connection.execute(query.order_by(ExtensionRow.id).limit(size))
    return [extension_from_row(row) for row in rows]


def change_extension(connection: Connection, extension: Extension) -> None:
    connection.execute(
        update(ExtensionRow)
        .where(ExtensionRow.id == extension.id)
        .values(number=extension.number, name=extension.name)
    )


def remove_extension(connection: Connection, extension_id: int) -> bool:
    """False as ``remove``."""
    return _is_removed(connection, delete(ExtensionRow).where(ExtensionRow.id == extension_id))


def extension_has_cdrs(connection: Connection, extension_id: int) -> bool:
    return _is_there(connection, CdrRow.extension_id == extension_id)


def _is_removed(connection: Connection, statement: Delete) -> bool:
    try:
        connection.execute(statement)
    except IntegrityError:
        return False
    return True


def _is_there(connection: Connection, condition: Any) -> bool:
    return bool(connection.execute(select(exists().where(condition))).scalar_one())
