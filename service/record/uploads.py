"""Uploads: chunks of calls. Each chunk is one transaction, and each record is settled once.

An upload is a sequence of records; a chunk is a part of it at an ``offset``. If a chunk is sent
again because its response was lost, the response comes from the stored result; only records after
the committed ones are processed. settled_records.py compares records that are sent again;
recording.py decides which calls are recorded, duplicates or rejected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from operator import attrgetter
from typing import Any

from tollwire.service.cache.decks import Decks
from tollwire.service.domain import paging, scopes
from tollwire.service.domain.checks import check_id, check_number, refuse
from tollwire.service.domain.errors import (
    FailedPrecondition,
    FieldViolation,
    NotFound,
    OutOfRange,
    Reason,
    invalid_field,
)
from tollwire.service.domain.model import MAX_BATCH_CALLS, MAX_ID, Page
from tollwire.service.domain.record_model import ChunkResult, FailedRecord, Upload, UploadFailure
from tollwire.service.domain.thread_context import Work
from tollwire.service.observability.instruments import CHUNK_SECONDS
from tollwire.service.record import retention, settled_records
from tollwire.service.record.recording import (
    Recorder,
    Recording,
    count_recorded,
    count_refused,
    enter,
    expect_records,
    holding,
)
from tollwire.service.record.settled_records import Settled
from tollwire.service.record.upload_chunks import UploadChunk
from tollwire.service.storage import ids, upload_failures, uploads
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.parties import Parties
from tollwire.service.storage.uploads import StoredChunk

_METHOD = "CdrService/UploadCdrs"

# The reasons of failed records.
FAILURE_REASONS = (
    Reason.INVALID_FIELD,
    Reason.TENANT_NOT_FOUND,
    Reason.EXTENSION_NOT_FOUND,
    Reason.COST_OVERFLOW,
    Reason.CDR_CONFLICT,
    Reason.UNREADABLE_RECORD,
)


class NewUpload:
    """An upload that is being started, and its id when it has one. A failed attempt may have
    created the upload; the next attempt, with the same object, continues it."""

    id = 0


class Uploads:
    """Records chunks and lists uploads. Thread-safe; chunks of one upload run one after the
    other."""

    def __init__(
        self,
        database: Database,
        decks: Decks,
        clock_ns: Callable[[], int] = time.time_ns,
        failure_retention_days: int = 0,
    ) -> None:
        """``failure_retention_days``: the days for which failed records are listed; 0: no limit."""
        self._database = database
        self._decks = decks
        self._recorder = Recorder(decks, clock_ns)
        expect_records(_METHOD)
        self._clock_ns = clock_ns
        self._failure_retention_days = failure_retention_days

    def get(self, upload_id: int) -> Upload:
        refuse(check_id("upload_id", upload_id))
        with self._database.read() as connection:
            return visible_upload(connection, upload_id)

    def list(self, page_size: int, page_token: str) -> Page[Upload]:
        """One page of the uploads that the caller may see, the newest first."""
        size = paging.page_size(page_size)
        wanted = ("uploads", scopes.within())
        before = paging.decode_token(page_token, wanted, (int,))
        before_id = before[0] if before else None
        with self._database.read() as connection:
            found = uploads.page(connection, before_id, size + 1, scopes.within())
        return paging.cut(found, size, wanted, paging.by_id)

    def list_failures(
        self, upload_id: int, reason: str, page_size: int, page_token: str
    ) -> Page[FailedRecord]:
        """One page of an upload's failed records that are still kept, by ascending index.
        ``reason`` "": any reason. Pages with long records have fewer records."""
        refuse([*check_id("upload_id", upload_id), *_check_reason(reason)])
        size = paging.page_size(page_size)
        listed = (upload_id, reason, scopes.within())
        after = paging.decode_token(page_token, listed, (int,))
        kept_since_ns = retention.kept_since_ns(self._failure_retention_days, self._clock_ns())
        wanted = upload_failures.Wanted(upload_id, reason, kept_since_ns)
        with self._database.read(work=Work.LONG) as connection:
            visible_upload(connection, upload_id)
            found = upload_failures.outlines(
                connection, wanted, after[0] if after else -1, size + 1
            )
            page = paging.cut(
                found, size, listed, lambda one: (one.record_index,), attrgetter("most_bytes")
            )
            if not page.items:
                return Page([])
            first, last = page.items[0].record_index, page.items[-1].record_index
            failed = upload_failures.between(connection, wanted, first, last)
        return Page(failed, page.next_page_token)

    def commit(
        self,
        upload_id: int,
        offset: int,
        chunk: UploadChunk,
        new: NewUpload | None = None,
        *,
        was_visible: bool = False,
    ) -> ChunkResult:
        """Settle one chunk durably. ``upload_id`` 0 with ``offset`` 0 starts an upload; pass
        ``new`` if the call may be repeated after a failure. ``was_visible``: a chunk of this upload
        was settled for the same caller before.

        ``offset`` is the index of the first call within the upload. If exactly the same chunk is
        sent again, the response is the same. If the records are sent in other chunks, settled calls
        only count as ``already_settled``, and only the others are processed. An invalid call is a
        rejected record.
        """
        _check_chunk(upload_id, offset, chunk)
        if upload_id == 0 and offset > 0:
            raise _gap(upload_id, offset, expected=0)
        began = time.perf_counter()
        # A caller never waits for the lock of an upload that it may not see.
        if upload_id and chunk.control_totals is None and (was_visible or scopes.within() is None):
            result, recording = self._commit_next(upload_id, offset, chunk)
        else:
            result, recording = self._commit_any(upload_id, offset, chunk, new or NewUpload())
        if recording is not None:
            CHUNK_SECONDS.observe(time.perf_counter() - began)
            count_recorded(_METHOD, recording)
            count_refused(_METHOD, result.conflicts, result.rejected)
        return result

    def _commit_next(
        self, upload_id: int, offset: int, chunk: UploadChunk
    ) -> tuple[ChunkResult, Recording | None]:
        """``commit`` of a chunk that only continues its upload, in fewer round trips."""
        hold = holding(chunk.records, scopes.scope(), upload_id)
        with self._decks.recording(hold) as (connection, parties):
            upload = _if_visible(parties.upload, upload_id)
            return self._commit(connection, upload, offset, chunk, parties)

    def _commit_any(
        self, upload_id: int, offset: int, chunk: UploadChunk, new: NewUpload
    ) -> tuple[ChunkResult, Recording | None]:
        starts = upload_id == 0
        if starts:
            tried = new.id > 0
            upload_id = new.id = new.id or self._new_id()
        with self._decks.writing() as connection:
            if starts and not (tried and uploads.get(connection, upload_id)):
                uploads.create(connection, upload_id, self._clock_ns(), scopes.scope())
            upload = visible_upload(connection, upload_id, lock=True)
            if chunk.control_totals is not None:
                uploads.state_totals(connection, upload_id, chunk.control_totals)
                upload = replace(
                    upload,
                    stated_calls=chunk.control_totals.calls,
                    stated_duration_seconds=chunk.control_totals.duration_seconds,
                )
            result, recording = self._commit(connection, upload, offset, chunk)
            if chunk.control_totals is not None:
                upload = visible_upload(connection, upload_id, lock=True)
            if recording is None and (starts or chunk.control_totals is not None):
                state = uploads.changed(connection, upload_id)
                uploads.enter(connection, state, self._clock_ns())
        if chunk.control_totals is not None:
            result = replace(
                result,
                settled_totals=upload.settled_totals,
                control_totals_match=upload.control_totals_match,
            )
        return result, recording

    def _new_id(self) -> int:
        # In a separate transaction: the counter stays locked until the commit, and uploads that
        # start at the same time would wait for each other's first chunk.
        with self._database.write() as connection:
            return ids.take(connection, "uploads")

    def _commit(
        self,
        connection: Connection,
        upload: Upload,
        offset: int,
        chunk: UploadChunk,
        parties: Parties | None = None,
    ) -> tuple[ChunkResult, Recording | None]:
        """Settle the new records of the chunk; ``upload`` is locked. ``parties``: those of the
        chunk, if they are locked too and nothing more is to be written. Also returns the recording,
        if there were new records."""
        committed = upload.committed_offset
        if offset > committed:
            raise _gap(upload.id, offset, expected=committed)
        old = min(committed - offset, len(chunk))
        again = None
        if old:
            again = settled_records.compare(connection, upload.id, offset, chunk, old)
            if again.chunk is not None:
                return _answered_again(_answer(upload.id, again.chunk), again), None
        if old == len(chunk):
            nothing = _answer(upload.id, StoredChunk(committed, 0))
            return _answered_again(nothing, again), None
        if upload.reversed_at_ns is not None:
            raise _reversed(upload.id)
        if old or parties is None:
            chunk = chunk.part(old, len(chunk))
            parties = self._recorder.hold(connection, chunk.records, upload.scope)
            is_last = False
        else:
            parties = parties.within(upload.scope)
            is_last = True
        result, recording = self._settle(connection, upload, chunk, parties, is_last=is_last)
        return _answered_again(result, again), recording

    def _settle(
        self,
        connection: Connection,
        upload: Upload,
        chunk: UploadChunk,
        parties: Parties,
        *,
        is_last: bool,
    ) -> tuple[ChunkResult, Recording]:
        """Settle a chunk that begins at the upload's committed offset."""
        duration_seconds = chunk.duration_seconds()
        if upload.duration_seconds + duration_seconds > MAX_ID:
            raise invalid_field(
                "calls", f"the sum of durations must be at most {MAX_ID}; start another upload"
            )
        first_index = upload.committed_offset
        now_ns = self._clock_ns()

        def values(recording: Recording) -> dict[str, Any]:
            stored = _stored(first_index, chunk, recording)
            return uploads.chunk_values(upload, stored, duration_seconds, now_ns)

        def with_entry(recording: Recording) -> dict[str, Any]:
            assert parties.upload_head is not None
            return uploads.with_entry(connection, upload, values(recording), parties.upload_head)

        # A chunk that has no chain for its upload's entry is not written with its calls.
        can_join = parties.upload_head is not None

        rated = self._recorder.rate(connection, chunk.records, parties)
        recording = self._recorder.write(
            connection,
            rated,
            upload.id,
            chunk=with_entry if can_join else None,
            commits=is_last and can_join and not chunk.bad,
            meanwhile=chunk.record_digests,
        )
        failures = chunk.failures(first_index, recording)
        if failures:
            source = chunk.records.source
            failed = (
                FailedRecord(one, source(one.index - first_index), now_ns) for one in failures
            )
            upload_failures.add(connection, upload.id, failed)
        if not recording.has_chunk:
            hold_chain = recording.created > 0 and not recording.is_entered
            head, state = uploads.add_chunk(
                connection, upload, values(recording), hold_chain=hold_chain
            )
            enter(connection, recording, head)
            uploads.enter(connection, state, now_ns, commits=is_last)
        return _answer(upload.id, _stored(first_index, chunk, recording), failures), recording


def _stored(first_index: int, chunk: UploadChunk, recording: Recording) -> StoredChunk:
    """What is stored of a chunk."""
    return StoredChunk(
        first_index=first_index,
        calls=len(chunk),
        record_digests=chunk.record_digests(),
        created=recording.created,
        duplicates=recording.duplicates,
        conflicts=recording.conflicts,
        rejected=len(chunk.bad) + len(recording.refusals) - recording.conflicts,
        unrated=recording.unrated,
        first_cdr_id=recording.first_id,
        recorded_again=recording.recorded_again,
        derived_call_ids=chunk.records.derived(),
        derived_duplicates=recording.derived_duplicates,
    )


def _check_chunk(upload_id: int, offset: int, chunk: UploadChunk) -> None:
    violations = [
        *check_id("upload_id", upload_id, required=False),
        *check_number("offset", offset, 0, MAX_ID),
    ]
    if chunk.control_totals is not None:
        for name, number in asdict(chunk.control_totals).items():
            violations += check_number(f"control_totals.{name}", number, 0, MAX_ID)
    refuse(violations)
    if len(chunk) > MAX_BATCH_CALLS:
        raise invalid_field("calls", f"at most {MAX_BATCH_CALLS} a chunk, got {len(chunk)}")


def _check_reason(reason: str) -> Iterator[FieldViolation]:
    if reason and reason not in FAILURE_REASONS:
        yield FieldViolation("reason", f"must be empty or one of {', '.join(FAILURE_REASONS)}")


def _answer(
    upload_id: int, chunk: StoredChunk, failures: Sequence[UploadFailure] = ()
) -> ChunkResult:
    return ChunkResult(
        upload_id=upload_id,
        committed_offset=chunk.first_index + chunk.calls,
        created=chunk.created,
        duplicates=chunk.duplicates,
        conflicts=chunk.conflicts,
        rejected=chunk.rejected,
        unrated=chunk.unrated,
        failures=tuple(failures),
        recorded_again=chunk.recorded_again,
        derived_call_ids=chunk.derived_call_ids,
        derived_duplicates=chunk.derived_duplicates,
    )


def _answered_again(result: ChunkResult, again: Settled | None) -> ChunkResult:
    """Add the number of settled calls to the result, unless it is the stored result."""
    if again is None:
        return result
    return replace(
        result,
        already_settled=0 if again.chunk is not None else again.calls,
        failures=again.failures + result.failures,
        duplicates_of_reversed=again.of_reversed,
    )


def _gap(upload_id: int, offset: int, *, expected: int) -> OutOfRange:
    upload = f"upload {upload_id}" if upload_id else "a new upload"
    return OutOfRange(
        Reason.UPLOAD_GAP,
        f"offset: {upload} continues at {expected}, got {offset}",
        metadata={"upload_id": str(upload_id), "expected_offset": str(expected)},
    )


def _reversed(upload_id: int) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.UPLOAD_REVERSED,
        f"upload_id: upload {upload_id} is reversed and accepts no more records; start a new one",
        metadata={"upload_id": str(upload_id)},
    )


def visible_upload(connection: Connection, upload_id: int, *, lock: bool = False) -> Upload:
    """The current state of the upload. ``lock``: lock it until the end of this transaction.
    NotFound UPLOAD_NOT_FOUND, also if the caller may not see all tenants that may be in it."""
    if lock and scopes.within() is not None:
        visible_upload(connection, upload_id)  # do not wait for the lock of an invisible upload
    return _if_visible(uploads.get(connection, upload_id, hold=lock), upload_id)


def _if_visible(upload: Upload | None, upload_id: int) -> Upload:
    if upload is None or not is_visible(upload):
        raise _unknown_upload(upload_id)
    return upload


def is_visible(upload: Upload | None) -> bool:
    """Whether the upload exists and the caller may see it."""
    return upload is not None and scopes.scope().covers_all_of(upload.scope)


def _unknown_upload(upload_id: int) -> NotFound:
    return NotFound(
        Reason.UPLOAD_NOT_FOUND,
        f"upload_id: there is no upload {upload_id}",
        metadata={"upload_id": str(upload_id)},
    )
