"""Locks the tenants and extensions that calls name while their CDRs are written."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select

from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.schema.tenant_tables import ExtensionRow, TenantRow


def hold_parties(
    connection: Connection,
    tenant_ids: Collection[int],
    extension_ids: Collection[int],
    *,
    only_theirs: bool = False,
) -> tuple[set[int], dict[int, int]]:
    """The tenants that exist, and the owners of the extensions that exist, by their ids.
    ``only_theirs``: extensions of other tenants count as missing.

    Until this transaction ends none of them is deleted and no tenant gets another currency: CDRs
    have no foreign keys, and a currency may change only while no CDR has it. Other changes need not
    wait, because uploads that follow each other would block them. (On SQLite nobody else writes
    meanwhile.)
    """
    among = dialect_of(connection).among
    tenants = select(TenantRow.id).where(among(TenantRow.__table__.c.id, tenant_ids))
    extensions = select(ExtensionRow.id, ExtensionRow.tenant_id).where(
        among(ExtensionRow.__table__.c.id, extension_ids)
    )
    if only_theirs:
        owner = ExtensionRow.__table__.c.tenant_id
        extensions = extensions.where(among(owner, tenant_ids))
    held = tenants.order_by(TenantRow.id).with_for_update(read=True, key_share=True)
    present = set(connection.execute(held).scalars())
    if not extension_ids:
        return present, {}
    held_too = extensions.order_by(ExtensionRow.id).with_for_update(read=True, key_share=True)
    return present, {row.id: row.tenant_id for row in connection.execute(held_too)}
