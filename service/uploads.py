"""Uploads: chunks of calls, each one transaction, settled once whatever is sent again.

An upload is a sequence of records; a chunk is a part of it, and ``offset`` says where. A chunk that
comes again, because its answer was lost, is answered from what is stored; what lies past the
committed records is the only part that is ever processed. Which calls are recorded, duplicates or
refused is decided in ``recording``.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Sequence

from service.checks import check_id, check_number, refuse
from service.decks import Decks
from service.errors import FailedPrecondition, NotFound, OutOfRange, Reason, invalid_field
from service.model import (
    MAX_BATCH_CALLS,
    MAX_ID,
    BadCall,
    Call,
    ChunkResult,
    Upload,
    UploadFailure,
)
from service.recording import Recorder, Recording
from service.storage import ids, uploads
from service.storage.engine import Connection, Database
from service.storage.uploads import StoredChunk


class Uploads:
    """What clients do with uploads. Thread-safe; chunks of one upload wait for each other."""

    def __init__(
        self, database: Database, decks: Decks, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._recorder = Recorder(decks, clock_ns)
        self._clock_ns = clock_ns

    def get(self, upload_id: int) -> Upload:
        refuse(check_id("upload_id", upload_id))
        with self._database.read() as connection:
            upload = uploads.get(connection, upload_id)
        if upload is None:
            raise _unknown(upload_id)
        return upload

    def commit(self, upload_id: int, offset: int, calls: Sequence[Call | BadCall]) -> ChunkResult:
        """Settle one chunk, durably. ``upload_id`` 0 with ``offset`` 0 starts an upload.

        ``offset`` is the index of the first call within the upload. The counts answered are of the
        part of the chunk that was not settled before; a chunk that comes again as it was is
        answered as it was. A ``BadCall`` is a rejected record.
        """
        _check_chunk(upload_id, offset, calls)
        if upload_id == 0 and offset > 0:
            raise _gap(upload_id, offset, expected=0)
        with self._database.write() as connection:
            if upload_id == 0:
                upload_id = ids.take(connection, "uploads")
                uploads.create(connection, upload_id, self._clock_ns())
                committed = 0
            else:
                committed = self._hold(connection, upload_id)
            if offset > committed:
                raise _gap(upload_id, offset, expected=committed)
            if offset < committed and calls:
                again = _settled_before(connection, upload_id, offset, calls)
                if again is not None:
                    return _answer(upload_id, again)
                calls = calls[committed - offset :]
            if not calls:
                return _answer(upload_id, StoredChunk(committed, 0, b""))
            chunk = self._settle(connection, upload_id, committed, calls)
        return _answer(upload_id, chunk)

    def _hold(self, connection: Connection, upload_id: int) -> int:
        """How many records are settled. Nobody else settles more before this transaction ends."""
        upload = uploads.get(connection, upload_id, hold=True)
        if upload is None:
            raise _unknown(upload_id)
        return upload.committed_offset

    def _settle(
        self,
        connection: Connection,
        upload_id: int,
        first_index: int,
        calls: Sequence[Call | BadCall],
    ) -> StoredChunk:
        good = [index for index, call in enumerate(calls) if isinstance(call, Call)]
        recording = self._recorder.record(
            connection, [call for call in calls if isinstance(call, Call)], upload_id
        )
        failures = _failures(first_index, calls, good, recording)
        chunk = StoredChunk(
            first_index=first_index,
            calls=len(calls),
            digest=digest(calls),
            created=recording.created,
            duplicates=recording.duplicates,
            conflicts=recording.conflicts,
            rejected=len(failures) - recording.conflicts,
            unrated=recording.unrated,
            failures=failures,
        )
        uploads.add_chunk(connection, upload_id, chunk, self._clock_ns())
        return chunk


def digest(calls: Sequence[Call | BadCall]) -> bytes:
    """SHA-256 of a chunk, by which it is known again.

    Column by column: the integers little-endian in 64 bits (-1 for no ended_at), then the texts
    with a NUL between, which none of them holds. Of a bad call what is wrong counts, but not the
    wording, which another release may put differently.
    """
    good = [call for call in calls if isinstance(call, Call)]
    bad = [
        (index, call.reason, call.field, call.call_id)
        for index, call in enumerate(calls)
        if isinstance(call, BadCall)
    ]
    hashed = hashlib.sha256(b"tollwire.chunk.1")
    hashed.update(json.dumps([len(good), bad]).encode())
    layout = f"<{len(good)}q"
    for integers in (
        [call.tenant_id for call in good],
        [call.extension_id for call in good],
        [call.direction for call in good],
        [call.disposition for call in good],
        [call.duration_seconds for call in good],
        [call.started_at_ns for call in good],
        [-1 if call.ended_at_ns is None else call.ended_at_ns for call in good],
    ):
        hashed.update(struct.pack(layout, *integers))
    for texts in (
        [call.caller_number for call in good],
        [call.destination_number for call in good],
        [call.call_id for call in good],
    ):
        hashed.update("\0".join(texts).encode())
        hashed.update(b"\0")
    return hashed.digest()


def _check_chunk(upload_id: int, offset: int, calls: Sequence[Call | BadCall]) -> None:
    refuse(
        [
            *check_id("upload_id", upload_id, required=False),
            *check_number("offset", offset, 0, MAX_ID),
        ]
    )
    if len(calls) > MAX_BATCH_CALLS:
        raise invalid_field("calls", f"at most {MAX_BATCH_CALLS} a chunk, got {len(calls)}")


def _settled_before(
    connection: Connection, upload_id: int, offset: int, calls: Sequence[Call | BadCall]
) -> StoredChunk | None:
    """The stored answer, where exactly this chunk was settled before; None where it was cut
    otherwise. Every settled chunk that begins where this one does, or lies within it, must be the
    same as when it was settled."""
    end = offset + len(calls)
    for chunk in uploads.chunks(connection, upload_id, offset, end):
        start = chunk.first_index - offset
        if chunk.first_index != offset and chunk.first_index + chunk.calls > end:
            continue  # only its beginning came again: nothing to compare it with
        if digest(calls[start : start + chunk.calls]) != chunk.digest:
            raise FailedPrecondition(
                Reason.UPLOAD_CHUNK_CHANGED,
                f"offset: the {chunk.calls} records from {chunk.first_index} on of upload"
                f" {upload_id} were settled with other content; go on at committed_offset",
                metadata={"upload_id": str(upload_id), "offset": str(chunk.first_index)},
            )
        if chunk.first_index == offset and chunk.calls == len(calls):
            return chunk
    return None


def _failures(
    first_index: int,
    calls: Sequence[Call | BadCall],
    good: Sequence[int],
    recording: Recording,
) -> tuple[UploadFailure, ...]:
    """One for each record that was not recorded and is no duplicate, by rising index."""
    failures = [
        UploadFailure(first_index + index, call.call_id, call.reason, _words(call))
        for index, call in enumerate(calls)
        if isinstance(call, BadCall)
    ]
    failures += [
        UploadFailure(
            first_index + good[refusal.position],
            refusal.call_id,
            refusal.reason.value,
            refusal.message,
        )
        for refusal in recording.refusals
    ]
    return tuple(sorted(failures, key=lambda failure: failure.index))


def _words(call: BadCall) -> str:
    return f"{call.field}: {call.message}" if call.field else call.message


def _answer(upload_id: int, chunk: StoredChunk) -> ChunkResult:
    return ChunkResult(
        upload_id=upload_id,
        committed_offset=chunk.first_index + chunk.calls,
        created=chunk.created,
        duplicates=chunk.duplicates,
        conflicts=chunk.conflicts,
        rejected=chunk.rejected,
        unrated=chunk.unrated,
        failures=chunk.failures,
    )


def _gap(upload_id: int, offset: int, *, expected: int) -> OutOfRange:
    upload = f"upload {upload_id}" if upload_id else "a new upload"
    return OutOfRange(
        Reason.UPLOAD_GAP,
        f"offset: {upload} goes on at {expected}, got {offset}",
        metadata={"upload_id": str(upload_id), "expected_offset": str(expected)},
    )


def _unknown(upload_id: int) -> NotFound:
    return NotFound(
        Reason.UPLOAD_NOT_FOUND,
        f"upload_id: there is no upload {upload_id}",
        metadata={"upload_id": str(upload_id)},
    )
