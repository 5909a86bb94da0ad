"""Uploads and their committed chunks, as rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    bindparam,
    func,
    insert,
    select,
    update,
)

from tollwire.service.domain.record_model import ControlTotals, Upload
from tollwire.service.domain.request import EVERY_TENANT, Scope
from tollwire.service.storage import covered_rows, ledger
from tollwire.service.storage.dialects.base import COUNTS, UPLOAD_COLUMNS, LedgerHead
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.owners import Within
from tollwire.service.storage.schema.record_tables import (
    HAS_SHORT_SCOPE,
    CdrReversalRow,
    UploadChunkRow,
    UploadRow,
)


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A committed chunk: its position, the number of its calls, their digests and their outcomes.

    ``first_index`` is the index in the upload. The created CDRs have consecutive ids from
    ``first_cdr_id`` on.
    """

    first_index: int
    calls: int
    created: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    unrated: int = 0
    first_cdr_id: int = 0
    record_digests: bytes | None = None  # 8 bytes each; None: written by a release without them
    digest: bytes = b""  # of the whole chunk, if it has no record_digests
    recorded_again: int = 0
    derived_call_ids: int = 0
    derived_duplicates: int = 0


# Every chunk runs these. To build a statement takes several times as long as to run it.
_UPLOADS = cast(Table, UploadRow.__table__)
_FIND_UPLOAD = select(_UPLOADS).where(_UPLOADS.c.id == bindparam("of_upload"))
_LOCK_UPLOAD = _FIND_UPLOAD.with_for_update()
_CHANGE_UPLOAD = (
    update(_UPLOADS)
    .where(_UPLOADS.c.id == bindparam("of_upload"))
    .values(revision=_UPLOADS.c.revision + 1)
    .returning(*(_UPLOADS.c[name] for name in covered_rows.UPLOADS.columns))
)


class UploadState(NamedTuple):
    """A revision of an upload, and its digest for the ledger. ``head``: the end of a chain that is
    locked for the entry; None: none is."""

    upload_id: int
    revision: int
    digest: bytes
    head: LedgerHead | None = None


def create(
    connection: Connection, upload_id: int, now_ns: int, scope: Scope = EVERY_TENANT
) -> None:
    """``scope``: that of the caller who starts it."""
    connection.execute(
        insert(UploadRow).values(
            id=upload_id,
            committed_offset=0,
            created=0,
            duplicates=0,
            conflicts=0,
            rejected=0,
            unrated=0,
            duration_seconds=0,
            created_at_ns=now_ns,
            updated_at_ns=now_ns,
            scope_tenant_ids=None if scope.tenant_ids is None else _scope_text(scope.tenant_ids),
            recorded_again=0,
            derived_call_ids=0,
            derived_duplicates=0,
        )
    )


def get(connection: Connection, upload_id: int, *, hold: bool = False) -> Upload | None:
    """The upload. ``hold`` locks it until this transaction ends; its reversed CDRs are not counted
    then."""
    query = _LOCK_UPLOAD if hold else _FIND_UPLOAD
    row = connection.execute(query, {"of_upload": upload_id}).one_or_none()
    if row is None:
        return None
    return of_row(row, 0 if hold else _reversed_of(connection, [upload_id]).get(upload_id, 0))


def page(
    connection: Connection, before_id: int | None, limit: int, within: Within = None
) -> list[Upload]:
    """Uploads by falling id, from below ``before_id`` on if it is given, that can only have calls
    of tenants ``within``."""
    query = select(UploadRow.__table__).order_by(UploadRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(UploadRow.id < before_id)
    query = query.where(*_is_visible(connection, within))
    rows = connection.execute(query).all()
    reversed_of = _reversed_of(connection, [row.id for row in rows])
    return [of_row(row, reversed_of.get(row.id, 0)) for row in rows]


def _reversed_of(connection: Connection, upload_ids: Collection[int]) -> dict[int, int]:
    """The number of reversed CDRs of each upload; uploads without any are left out."""
    if not upload_ids:
        return {}
    table = CdrReversalRow.__table__
    query = (
        select(table.c.upload_id, func.count())
        .where(dialect_of(connection).among(table.c.upload_id, upload_ids))
        .group_by(table.c.upload_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _is_visible(connection: Connection, within: Within) -> list[ColumnElement[bool]]:
    if within is None:
        return []
    allowed = _scope_text(within)
    if len(within) == 1:
        return [UploadRow.scope_tenant_ids == allowed, HAS_SHORT_SCOPE]
    return [dialect_of(connection).is_subset(UploadRow.scope_tenant_ids, allowed)]


def _scope_text(tenant_ids: Collection[int]) -> str:
    return json.dumps(sorted(tenant_ids), separators=(",", ":"))


def of_row(row: Sequence[Any], reversed_cdrs: int = 0) -> Upload:
    """``row``: by the columns of the table."""
    values = dict(zip(UPLOAD_COLUMNS, row, strict=True))
    scope = values.pop("scope_tenant_ids")
    if scope is not None:
        values["scope"] = Scope(frozenset(json.loads(scope)))
    return Upload(**values, reversed=reversed_cdrs)


def chunks(
    connection: Connection, upload_id: int, first_index: int, end_index: int
) -> list[StoredChunk]:
    """The committed chunks with records from ``first_index`` on and before ``end_index``."""
    begins_before = select(func.max(UploadChunkRow.first_index)).where(
        UploadChunkRow.upload_id == upload_id, UploadChunkRow.first_index <= first_index
    )
    query = (
        select(UploadChunkRow.__table__)
        .where(
            UploadChunkRow.upload_id == upload_id,
            UploadChunkRow.first_index >= begins_before.scalar_subquery(),
            UploadChunkRow.first_index < end_index,
        )
        .order_by(UploadChunkRow.first_index)
    )
    return [
        StoredChunk(
            first_index=row.first_index,
            calls=row.calls,
            digest=row.digest,
            created=row.created,
            duplicates=row.duplicates,
            conflicts=row.conflicts,
            rejected=row.rejected,
            unrated=row.unrated,
            first_cdr_id=row.first_cdr_id,
            record_digests=row.record_digests,
            recorded_again=row.recorded_again,
            derived_call_ids=row.derived_call_ids,
            derived_duplicates=row.derived_duplicates,
        )
        for row in connection.execute(query)
    ]


def chunk_values(
    upload: Upload, chunk: StoredChunk, duration_seconds: int, now_ns: int
) -> dict[str, Any]:
    """What is stored for a chunk that begins at the committed offset of the upload, and added to
    the totals of the upload. ``duration_seconds``: the sum over all its calls."""
    values = {
        "upload_id": upload.id,
        **asdict(chunk),
        "duration_seconds": duration_seconds,
        "now_ns": now_ns,
    }
    return values | {"chunks_hash": covered_rows.chunks_hash(upload.chunks_hash, values)}


def add_chunk(
    connection: Connection, upload: Upload, values: Mapping[str, Any], *, hold_chain: bool = False
) -> tuple[LedgerHead | None, UploadState]:
    """Store a chunk, given by ``chunk_values``. With ``hold_chain`` a chain of the ledger may be
    locked for the calls in the same round trip; returns its end if it is. Until the commit no other
    transaction adds to this chain. Also returns the new state of the upload; call ``enter`` with it
    later in the transaction."""
    head, upload_head = dialect_of(connection).add_upload_chunk(
        connection, values, hold_chain=hold_chain
    )
    return head, UploadState(
        upload.id, upload.revision + 1, _digest_after(upload, values), upload_head
    )


def with_entry(
    connection: Connection, upload: Upload, values: Mapping[str, Any], head: LedgerHead
) -> dict[str, Any]:
    """The chunk with the entry of its upload, for a chain that this transaction has locked."""
    entry = ledger.entry_after(
        connection,
        head,
        covered_rows.UPLOADS.kind,
        upload.id,
        1,
        _digest_after(upload, values),
        values["now_ns"],
        revision=upload.revision + 1,
    )
    return {**values, "entry": entry._asdict()}


def _digest_after(upload: Upload, values: Mapping[str, Any]) -> bytes:
    """The digest of the row of the upload after the chunk with these ``values``."""
    before = {name: getattr(upload, name, None) for name in covered_rows.UPLOADS.columns}
    tenant_ids = upload.scope.tenant_ids
    after = before | {
        "committed_offset": upload.committed_offset + values["calls"],
        "updated_at_ns": values["now_ns"],
        "scope_tenant_ids": None if tenant_ids is None else _scope_text(tenant_ids),
        "revision": upload.revision + 1,
        "chunks_hash": values["chunks_hash"],
        **{name: getattr(upload, name) + values[name] for name in COUNTS},
    }
    return covered_rows.digest_of_rows(covered_rows.UPLOADS, [list(after.values())])


def changed(connection: Connection, upload_id: int) -> UploadState:
    """The state of an upload that was created or changed otherwise. Call ``enter`` later in the
    transaction."""
    row = connection.execute(_CHANGE_UPLOAD, {"of_upload": upload_id}).one()
    digest = covered_rows.digest_of_rows(covered_rows.UPLOADS, [row])
    return UploadState(row.id, row.revision, digest)


def enter(
    connection: Connection, state: UploadState, now_ns: int, *, commits: bool = False
) -> None:
    """Enter the state of an upload in the ledger. Call it last before the commit: other
    transactions may wait for the chain. ``commits``: nothing follows in the transaction, which may
    be committed with the entry."""
    upload_id, revision, digest, head = state
    covered_rows.enter(
        connection,
        covered_rows.UPLOADS,
        now_ns,
        upload_id,
        revision=revision,
        digest=digest,
        head=head,
        commits=commits,
    )


def state_totals(connection: Connection, upload_id: int, stated: ControlTotals) -> None:
    """Store the control totals that the client states for the whole upload."""
    connection.execute(
        update(UploadRow)
        .where(UploadRow.id == upload_id)
        .values(stated_calls=stated.calls, stated_duration_seconds=stated.duration_seconds)
    )
