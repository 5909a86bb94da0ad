"""The entries of the audit log, as rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, insert, select

from tollwire.service.domain.record_model import AuditEntry, AuditFilter
from tollwire.service.storage import covered_rows
from tollwire.service.storage.conditions import in_period
from tollwire.service.storage.owners import of_tenants
from tollwire.service.storage.schema.access_tables import AuditEntryRow

_TABLE = AuditEntryRow.__table__


def add(connection: Connection, entry: AuditEntry) -> None:
    """Store an entry, for which the database assigns the id, and enter it in the ledger."""
    values = asdict(entry)
    del values["id"]
    added = insert(AuditEntryRow).values(values).returning(AuditEntryRow.id)
    values["id"] = connection.execute(added).scalar_one()
    digest = covered_rows.digest_of_values(covered_rows.AUDITED, values)
    covered_rows.enter_at_end(
        connection, covered_rows.AUDITED, entry.created_at_ns, values["id"], digest=digest
    )


def page(
    connection: Connection, wanted: AuditFilter, before_id: int | None, size: int
) -> list[AuditEntry]:
    """Entries by falling id, from below ``before_id`` on."""
    conditions = of_tenants(connection, _TABLE.c.tenant_id, wanted.tenant_id, wanted.within)
    if wanted.action:
        conditions.append(_TABLE.c.action == wanted.action)
    conditions += in_period(
        AuditEntryRow.created_at_ns, wanted.created_after_ns, wanted.created_before_ns
    )
    if before_id is not None:
        conditions.append(_TABLE.c.id < before_id)
    query = select(_TABLE).where(*conditions).order_by(_TABLE.c.id.desc()).limit(size)
    return [_from_row(row) for row in connection.execute(query)]


def _from_row(row: Any) -> AuditEntry:
    return AuditEntry(**row._mapping)
