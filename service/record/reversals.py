"""Corrections: a CDR that should not be billed is reversed by a separate entry.

The CDR itself does not change (rating rule 9). Reversing a reversed CDR changes nothing and returns
the stored reversal. The requester is a field of the request; this module does not use the caller's
identity for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tollwire.service.accounts import audit
from tollwire.service.accounts.tenants import require_tenant
from tollwire.service.domain import paging, scopes
from tollwire.service.domain.checks import check_id, check_period, check_text, refuse
from tollwire.service.domain.errors import FieldViolation
from tollwire.service.domain.model import (
    MAX_REQUESTED_BY_CHARS,
    MAX_REVERSAL_REASON_CHARS,
    Cdr,
    CdrFilter,
    Page,
    ReversalRequest,
)
from tollwire.service.domain.record_model import ReversalFilter, ReversalProgress, UploadReversal
from tollwire.service.domain.thread_context import Work
from tollwire.service.record.cdrs import check_filter, most_bytes, unknown_cdr
from tollwire.service.record.digests import digest_of_reversals
from tollwire.service.record.reversal_parts import (
    Parts,
    ReversalTotals,
    check_chosen,
    check_present,
    chunks_of_a_part,
    cost_taken_back,
)
from tollwire.service.record.uploads import visible_upload
from tollwire.service.storage import cdr_lists, ledger, reversals, uploads
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.ledger import EntryKind
from tollwire.service.storage.reversals import Chosen, Conditions, IdRange

PROGRESS_SECONDS = 1.0

_REVERSE_UPLOAD = "ReverseUpload"


class Reversals:
    """Reverses CDRs and lists reversals. Thread-safe."""

    def __init__(
        self,
        database: Database,
        clock_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._clock_ns = clock_ns
        self._clock = clock

    def reverse_cdr(self, cdr_id: int, request: ReversalRequest) -> Cdr:
        """Reverse one CDR, unless it is reversed. Returns it with the stored reversal."""
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
        """Reverse all CDRs that an upload created and that are not reversed, and close the upload.

        Works in transactions of about PART_CDRS CDRs. It may be interrupted and repeated, or run
        twice at the same time; no CDR is reversed twice.
        """
        refuse([*check_id("upload_id", upload_id), *_check_request(request)])
        resource = f"upload/{upload_id}"
        with self._database.write() as connection:
            upload = visible_upload(connection, upload_id, lock=True)
            now_ns = self._clock_ns()
            if reversals.mark_upload(connection, upload_id, now_ns):
                audit.enter(
                    connection,
                    action=_REVERSE_UPLOAD,
                    resource=resource,
                    now_ns=now_ns,
                    tenant_id=audit.sole_tenant(upload.scope),
                    after={"reversed_at": audit.time_text(now_ns)},
                )
                uploads.enter(connection, uploads.changed(connection, upload_id), now_ns)
        reversed_now, last_chunk = 0, -1
        while True:
            with self._database.write() as connection:
                # Another reversal of this upload waits here, not in the middle of a part.
                visible_upload(connection, upload_id, lock=True)
                part = chunks_of_a_part(connection, upload_id, last_chunk)
                if not part:
                    break
                made = [cdrs for _, cdrs in part]
                rows = self._reverse(connection, made, request, _REVERSE_UPLOAD, resource)
                reversed_now += len(rows)
            last_chunk = part[-1][0]
        return UploadReversal(upload.created, reversed_now, upload.created - reversed_now)

    def reverse_cdrs(
        self, wanted: CdrFilter, request: ReversalRequest, *, dry_run: bool
    ) -> Iterator[ReversalProgress]:
        """Reverse all CDRs that match and are not reversed; ``dry_run``: only count them and their
        costs. Yields the progress about every second; the last element is ``done``.

        Works in transactions of about PART_CDRS CDRs, each with its own entry in the ledger. It may
        be interrupted and repeated, or run twice at the same time; no CDR is reversed twice.

        NotFound TENANT_NOT_FOUND, UPLOAD_NOT_FOUND, EXTENSION_NOT_FOUND, CDR_NOT_FOUND.
        """
        check_filter(wanted)
        refuse([*check_chosen(wanted), *_check_request(request, required=not dry_run)])
        wanted = replace(
            wanted,
            within=scopes.within(),
            ids=tuple(sorted(set(wanted.ids))),
            call_ids=tuple(sorted(set(wanted.call_ids))),
        )
        with self._database.read() as connection:
            check_present(connection, wanted)
        return self._progress(wanted, request, dry_run)

    def _progress(
        self, wanted: CdrFilter, request: ReversalRequest, dry_run: bool
    ) -> Iterator[ReversalProgress]:
        parts, totals = Parts(wanted), ReversalTotals()
        said = self._clock()
        work = self._count_part if dry_run else partial(self._reverse_part, request=request)
        while work(parts, totals):
            if self._clock() - said >= PROGRESS_SECONDS:
                said = self._clock()
                yield totals.progress(done=False)
        yield totals.progress(done=True)

    def _count_part(self, parts: Parts, totals: ReversalTotals) -> bool:
        """Whether there was one more part."""
        with self._database.read(work=Work.LONG) as connection:
            part = parts.next(connection)
            if part is None:
                return False
            for found in reversals.sums(connection, *part):
                totals.cdrs += found.cdrs
                totals.add(found.tenant_id, found.standing, found.cost_e8, found.unrated)
            totals.look_up_currencies(connection)
        return True

    def _reverse_part(self, parts: Parts, totals: ReversalTotals, request: ReversalRequest) -> bool:
        """Whether there was one more part."""
        with self._database.write() as connection:
            part = parts.next(connection)
            if part is None:
                return False
            rows = self._reverse(connection, part[0], request, "ReverseCdrs", "", part[1])
            cdrs = sum(found.cdrs for found in reversals.sums(connection, *part))
            totals.look_up_currencies(connection, {row.tenant_id for row in rows})
        totals.cdrs += cdrs
        for row in rows:
            totals.add(row.tenant_id, 1, *cost_taken_back(row))
        return True

    def _reverse(
        self,
        connection: Connection,
        chosen: Chosen,
        request: ReversalRequest,
        action: str,
        resource: str,
        conditions: Conditions = (),
    ) -> Sequence[Any]:
        """Reverse the CDRs that are not reversed. Writes an entry to the ledger and, for each
        tenant, to the audit log (without the reason, which is in the reversals). Returns the new
        rows. ``resource`` "": the tenant."""
        now_ns = self._clock_ns()
        rows = reversals.add(connection, chosen, request, now_ns, conditions)
        for tenant_id, count in sorted(Counter(row.tenant_id for row in rows).items()):
            audit.enter(
                connection,
                action=action,
                resource=resource or f"tenant/{tenant_id}",
                now_ns=now_ns,
                tenant_id=tenant_id,
                after={"reversed": count},
            )
        if rows:
            digest = digest_of_reversals(rows)
            ledger.append(connection, EntryKind.REVERSED, rows[0].id, len(rows), digest, now_ns)
        return rows

    def list(self, wanted: ReversalFilter, page_size: int, page_token: str) -> Page[Cdr]:
        """One page of reversed CDRs, the newest reversal first. NotFound TENANT_NOT_FOUND,
        UPLOAD_NOT_FOUND."""
        refuse(_check_filter(wanted))
        wanted = replace(wanted, within=scopes.within())
        size = paging.page_size(page_size)
        after = paging.decode_token(page_token, wanted, (int, int))
        with self._database.read() as connection:
            require_tenant(connection, wanted.tenant_id)
            if wanted.upload_id:
                visible_upload(connection, wanted.upload_id)
            found = cdr_lists.page_of_reversed(connection, wanted, after, size + 1)
        return paging.cut(found, size, wanted, _position, most_bytes)


def _check_request(request: ReversalRequest, *, required: bool = True) -> Iterator[FieldViolation]:
    yield from check_text("reason", request.reason, MAX_REVERSAL_REASON_CHARS, required=required)
    yield from check_text(
        "requested_by", request.requested_by, MAX_REQUESTED_BY_CHARS, required=required
    )


def _check_filter(wanted: ReversalFilter) -> Iterator[FieldViolation]:
    yield from check_id("tenant_id", wanted.tenant_id, required=False)
    yield from check_id("upload_id", wanted.upload_id, required=False)
    yield from check_period(wanted.created_after_ns, wanted.created_before_ns, "created")


def _position(cdr: Cdr) -> tuple[int, int]:
    assert cdr.reversal is not None
    return cdr.reversal.created_at_ns, cdr.reversal.id
