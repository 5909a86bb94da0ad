"""Corrections: a CDR that should not have been is taken back by an entry of its own.

The CDR itself stays as it is (rating rule 9). Reversing what is reversed changes nothing and is
answered with what is stored. Who asks is what the request says; this module does not know who sent
it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from service import audit, paging, scopes
from service.cdrs import most_bytes, unknown_cdr
from service.checks import check_id, check_period, check_text, refuse
from service.digests import digest_of_reversals
from service.errors import FieldViolation
from service.model import (
    MAX_BATCH_CALLS,
    MAX_REQUESTED_BY_CHARS,
    MAX_REVERSAL_REASON_CHARS,
    Cdr,
    Page,
    ReversalRequest,
)
from service.record_model import ReversalFilter, UploadReversal
from service.storage import cdr_lists, ledger, reversals, uploads
from service.storage.engine import Connection, Database
from service.storage.ledger import EntryKind
from service.storage.reversals import IdRange
from service.uploads import is_visible, visible_upload

# What one transaction of ``reverse_upload`` takes of an upload: whole chunks, one at least.
PART_CDRS = MAX_BATCH_CALLS
PART_CHUNKS = 100

_REVERSE_UPLOAD = "ReverseUpload"


class Reversals:
    """What clients do with reversals. Thread-safe."""

    def __init__(self, database: Database, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns

    def reverse_cdr(self, cdr_id: int, request: ReversalRequest) -> Cdr:
        """Reverse one CDR, unless it is; answers it with the reversal that is stored."""
        refuse([*check_id("id", cdr_id), *_check_request(request)])
        with self._database.write() as connection:
            if not reversals.hold_cdr(connection, cdr_id, scopes.within()):
                raise unknown_cdr(cdr_id)
            just_this = [IdRange(cdr_id, cdr_id)]
            self._reverse(connection, just_this, request, "ReverseCdr", f"cdr/{cdr_id}")
        with self._database.read() as connection:
            cdr = cdr_lists.by_id(connection, cdr_id)
        assert cdr is not None
        return cdr

    def reverse_upload(self, upload_id: int, request: ReversalRequest) -> UploadReversal:
        """Reverse all CDRs that an upload created and that are not reversed, and let no more in.

        In transactions of PART_CDRS at most: it may be broken off and started again, or run twice
        at once, and no CDR is reversed twice.
        """
        refuse([*check_id("upload_id", upload_id), *_check_request(request)])
        resource = f"upload/{upload_id}"
        with self._database.write() as connection:
            upload = visible_upload(connection, upload_id, hold=True)
            now_ns = self._clock_ns()
            if reversals.mark_upload(connection, upload_id, now_ns):
                audit.enter(
                    *(connection, _REVERSE_UPLOAD, resource, now_ns),
                    tenant_id=audit.sole_tenant(upload.scope),
                    after={"reversed_at": audit.time_text(now_ns)},
                )
        reversed_now, last_chunk = 0, -1
        while True:
            with self._database.write() as connection:
                # Another that reverses this upload waits here, and not half-way through a part.
                visible_upload(connection, upload_id, hold=True)
                part = _part(reversals.made_by(connection, upload_id, last_chunk, PART_CHUNKS))
                if not part:
                    break
                made = [cdrs for _, cdrs in part]
                reversed_now += self._reverse(connection, made, request, _REVERSE_UPLOAD, resource)
            last_chunk = part[-1][0]
        return UploadReversal(upload.created, reversed_now, upload.created - reversed_now)

    def _reverse(
        self,
        connection: Connection,
        ranges: Sequence[IdRange],
        request: ReversalRequest,
        action: str,
        resource: str,
    ) -> int:
        """Reverse those CDRs that are not yet, and enter it in the ledger and, for each tenant, in
        the audit log; returns how many. Reasons stand in the reversals themselves."""
        now_ns = self._clock_ns()
        rows = reversals.add(connection, ranges, request, now_ns)
        for tenant_id, count in sorted(Counter(row.tenant_id for row in rows).items()):
            audit.enter(
                *(connection, action, resource, now_ns),
                tenant_id=tenant_id,
                after={"reversed": count},
            )
        if rows:
            digest = digest_of_reversals(rows)
            ledger.append(connection, EntryKind.REVERSED, rows[0].id, len(rows), digest, now_ns)
        return len(rows)

    def list(self, wanted: ReversalFilter, page_size: int, page_token: str) -> Page[Cdr]:
        """One page of reversed CDRs, the newest reversal first."""
        refuse(_check_filter(wanted))
        wanted = replace(wanted, within=scopes.within())
        size = paging.page_size(page_size)
        after = paging.decode_token(page_token, wanted, (int, int))
        with self._database.read() as connection:
            if not _is_shown(connection, wanted):
                return Page([])
            found = cdr_lists.page_of_reversed(connection, wanted, after, size + 1)
        shown = paging.fitting(found, size, most_bytes)
        if len(shown) == len(found):
            return Page(found)
        return Page(shown, paging.encode_token(wanted, _position(shown[-1])))


def _check_request(request: ReversalRequest) -> Iterator[FieldViolation]:
    yield from check_text("reason", request.reason, MAX_REVERSAL_REASON_CHARS, required=True)
    yield from check_text(
        "requested_by", request.requested_by, MAX_REQUESTED_BY_CHARS, required=True
    )


def _check_filter(wanted: ReversalFilter) -> Iterator[FieldViolation]:
    yield from check_id("tenant_id", wanted.tenant_id, required=False)
    yield from check_id("upload_id", wanted.upload_id, required=False)
    yield from check_period(wanted.created_after_ns, wanted.created_before_ns, "created")


def _is_shown(connection: Connection, wanted: ReversalFilter) -> bool:
    """Of an upload that the caller may not see nothing is, as of one that is not there."""
    if wanted.within is None or not wanted.upload_id:
        return True
    return is_visible(uploads.get(connection, wanted.upload_id))


def _part(chunks: Sequence[tuple[int, IdRange]]) -> Sequence[tuple[int, IdRange]]:
    """As many of the first chunks as are one part."""
    totals = accumulate(cdrs.size for _, cdrs in chunks)
    return chunks[: max(1, sum(total <= PART_CDRS for total in totals))]


def _position(cdr: Cdr) -> tuple[int, int]:
    assert cdr.reversal is not None
    return cdr.reversal.created_at_ns, cdr.reversal.id
