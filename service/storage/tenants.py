"""Tenants, their history, and their extensions, as rows."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Delete, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from tollwire.service.domain.model import Extension, Rounding, Tenant
from tollwire.service.storage import covered_rows
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.owners import Within, of_tenants
from tollwire.service.storage.schema.record_tables import CdrRow
from tollwire.service.storage.schema.tenant_tables import ExtensionRow, TenantRow, TenantVersionRow


def tenant_from_row(row: Any) -> Tenant:
    """The tenant of a row of ``tenants`` or ``tenant_versions``."""
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
    """False if the id is taken."""
    return dialect_of(connection).insert_or_ignore(connection, TenantRow, asdict(tenant))


def add_version(connection: Connection, tenant: Tenant, revision: int, now_ns: int) -> None:
    """Store the state of the tenant from ``revision`` of its deck on, and enter it in the
    ledger."""
    values = asdict(tenant) | {"revision": revision}
    values["tenant_id"] = values.pop("id")
    connection.execute(insert(TenantVersionRow).values(values))
    covered = covered_rows.TENANT_VERSIONS
    digest = covered_rows.digest_of_values(covered, values)
    covered_rows.enter_at_end(
        connection, covered, now_ns, tenant.id, revision=revision, digest=digest
    )


def get(connection: Connection, tenant_id: int) -> Tenant | None:
    row = connection.execute(select(TenantRow.__table__).where(TenantRow.id == tenant_id)).first()
    return None if row is None else tenant_from_row(row)


def existed(connection: Connection, tenant_id: int) -> bool:
    """Whether the tenant exists or existed: the history of a deleted tenant stays."""
    return _exists(connection, TenantVersionRow.tenant_id == tenant_id)


def lock(connection: Connection, tenant_id: int, *, from_calls: bool) -> Tenant | None:
    """The tenant, locked so that no other transaction changes it before this one ends.

    ``from_calls``: other transactions cannot record its calls either. This lock waits until no
    transaction records a call of the tenant, which takes long under steady uploads. It must be the
    first lock of this transaction on the tenant. If it strengthens a weaker lock, PostgreSQL (18)
    sometimes lets a transaction record a call: that transaction checks for a conflicting lock,
    releases the row, and then ignores a lock that was only strengthened meanwhile.
    """
    query = select(TenantRow.__table__).where(TenantRow.id == tenant_id)
    row = connection.execute(query.with_for_update(key_share=not from_calls)).first()
    return None if row is None else tenant_from_row(row)


def keep(connection: Connection, tenant_id: int) -> bool:
    """Whether the tenant exists; it is not deleted before this transaction ends."""
    query = select(TenantRow.id).where(TenantRow.id == tenant_id)
    return connection.execute(query.with_for_update(read=True, key_share=True)).first() is not None


def present(connection: Connection, tenant_ids: Set[int]) -> set[int]:
    """The ids of the tenants that exist."""
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
    """Delete the tenant and its extensions; its history stays. False if a trigger refuses it
    because CDRs refer to it; roll back the transaction then."""
    return _is_removed(connection, delete(TenantRow).where(TenantRow.id == tenant_id))


def has_cdrs(connection: Connection, tenant_id: int) -> bool:
    return _exists(connection, CdrRow.tenant_id == tenant_id)


def add_extension(connection: Connection, extension: Extension) -> bool:
    """False if the id is taken."""
    return dialect_of(connection).insert_or_ignore(connection, ExtensionRow, asdict(extension))


def get_extension(connection: Connection, extension_id: int) -> Extension | None:
    query = select(ExtensionRow.__table__).where(ExtensionRow.id == extension_id)
    row = connection.execute(query).first()
    return None if row is None else extension_from_row(row)


def is_extension_number(
    connection: Connection, number: str, tenant_id: int, within: Within = None
) -> bool:
    """Whether an extension of the tenant (0: of any ``within``) has that number."""
    owned = of_tenants(connection, ExtensionRow.__table__.c.tenant_id, tenant_id, within)
    query = select(ExtensionRow.id).where(ExtensionRow.number == number, *owned)
    return connection.execute(query.limit(1)).first() is not None


def lock_extension(
    connection: Connection, extension_id: int, within: Within, *, from_calls: bool = False
) -> Extension | None:
    """The extension, locked as ``lock`` locks a tenant, if its tenant is ``within``. Does not wait
    for extensions of other tenants."""
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
    """False if a trigger refuses it, as in ``remove``."""
    return _is_removed(connection, delete(ExtensionRow).where(ExtensionRow.id == extension_id))


def extension_has_cdrs(connection: Connection, extension_id: int) -> bool:
    return _exists(connection, CdrRow.extension_id == extension_id)


def _is_removed(connection: Connection, statement: Delete) -> bool:
    try:
        connection.execute(statement)
    except IntegrityError:
        return False
    return True


def _exists(connection: Connection, condition: Any) -> bool:
    return bool(connection.execute(select(exists().where(condition))).scalar_one())
