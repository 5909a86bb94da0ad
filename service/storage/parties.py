"""Locks the tenants and extensions that calls name while their CDRs are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from tollwire.service.domain.model import Extension
from tollwire.service.domain.record_model import Upload
from tollwire.service.domain.request import Scope
from tollwire.service.storage import uploads
from tollwire.service.storage.dialects.base import LedgerHead
from tollwire.service.storage.dialects.lookup import dialect_of


class Parties(NamedTuple):
    """Those that exist; and what was read when they were held: the number of the last committed
    change of decks, and the first of the ids for CDRs. ``ledger_head``: the end of the chain that
    is locked for the entry of these CDRs, if one is. ``upload``: the upload that is locked, without
    the number of its reversed CDRs; ``upload_head``: the end of the chain that is locked for its
    entry, if one is."""

    tenant_ids: set[int]
    extensions: Mapping[int, Extension]
    change_seq: int
    first_cdr_id: int
    ledger_head: LedgerHead | None
    upload: Upload | None
    upload_head: LedgerHead | None

    def within(self, scope: Scope) -> Parties:
        """Without the tenants outside ``scope``, and their extensions."""
        if scope.tenant_ids is None:
            return self
        return self._replace(
            tenant_ids=self.tenant_ids & scope.tenant_ids,
            extensions={
                extension_id: one
                for extension_id, one in self.extensions.items()
                if one.tenant_id in scope.tenant_ids
            },
        )


def hold_parties(
    connection: Connection,
    tenant_ids: Collection[int],
    extension_ids: Collection[int],
    *,
    cdr_count: int,
    only_theirs: bool = False,
    upload_id: int = 0,
) -> Parties:
    """The tenants and extensions that exist. ``only_theirs``: extensions of other tenants count as
    missing. Also takes ids for up to ``cdr_count`` CDRs; unused ones remain a gap. Before the
    tenants it locks this upload, if ``upload_id`` is not 0 and it exists. May be the opening of a
    transaction (``Database.write``).

    Until this transaction ends none of them is deleted and no tenant gets another currency: CDRs
    have no foreign keys, and a currency may change only while no CDR has it. Other changes need not
    wait, because uploads that follow each other would block them. (SQLite has one writer at a
    time.)
    """
    held = dialect_of(connection).hold_parties(
        connection,
        tenant_ids,
        extension_ids,
        only_theirs=only_theirs,
        cdr_count=cdr_count,
        upload_id=upload_id,
    )
    return Parties(
        held.tenant_ids,
        {row.id: Extension(*row) for row in held.extensions},
        held.change_seq,
        held.first_cdr_id,
        held.ledger_head,
        None if held.upload is None else uploads.of_row(held.upload),
        held.upload_head,
    )
