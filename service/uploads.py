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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import cast

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
from service.recording import Recorder, Recording, contents_of
from service.storage import ids, uploads
from service.storage.cdrs import Contents
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
        starts = upload_id == 0
        if starts:
            # In a transaction of its own: the counter stays locked until the commit, and uploads
            # that start at once would wait for each other's first chunk.
            with self._database.write() as connection:
                upload_id = ids.take(connection, "uploads")
        with self._database.write() as connection:
            if starts:
                uploads.create(connection, upload_id, self._clock_ns())
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
        chunk = _Chunk.of(calls)
        recording = self._recorder.record(connection, chunk.good, upload_id)
        failures = chunk.failures(first_index, recording)
        settled = StoredChunk(
            first_index=first_index,
            calls=len(calls),
            digest=chunk.digest(),
            created=recording.created,
            duplicates=recording.duplicates,
            conflicts=recording.conflicts,
            rejected=len(failures) - recording.conflicts,
            unrated=recording.unrated,
            failures=failures,
        )
        uploads.add_chunk(connection, upload_id, settled, self._clock_ns())
        return settled


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The records of a chunk, the valid ones apart from the others."""

    good: Contents
    good_indexes: Sequence[int]
    bad: Mapping[int, BadCall]  # by index

    @classmethod
    def of(cls, records: Sequence[Call | BadCall]) -> _Chunk:
        if BadCall not in set(map(type, records)):
            return cls(contents_of(cast(Sequence[Call], records)), range(len(records)), {})
        bad = {index: call for index, call in enumerate(records) if isinstance(call, BadCall)}
        good_indexes = [index for index in range(len(records)) if index not in bad]
        good = [record for record in records if isinstance(record, Call)]
        return cls(contents_of(good), good_indexes, bad)

    def digest(self) -> bytes:
        """SHA-256, by which the chunk is known again.

        Column by column: the integers little-endian in 64 bits (-1 for no ended_at), then the texts
        with a NUL between, which none of them holds. Of a bad record what is wrong counts, but not
        the wording, which another release may put differently.
        """
        bad = [(index, call.reason, call.field, call.call_id) for index, call in self.bad.items()]
        hashed = hashlib.sha256(b"tollwire.chunk.1")
        hashed.update(json.dumps([self.good.size, bad]).encode())
        layout = f"<{self.good.size}q"
        for integers in (
            self.good.tenant_id,
            self.good.extension_id,
            self.good.direction,
            self.good.disposition,
            self.good.duration_seconds,
            self.good.started_at_ns,
            [-1 if ended_at_ns is None else ended_at_ns for ended_at_ns in self.good.ended_at_ns],
        ):
            hashed.update(struct.pack(layout, *integers))
        for texts in (self.good.caller_number, self.good.destination_number, self.good.call_id):
            hashed.update("\0".join(texts).encode() + b"\0")
        return hashed.digest()

    def failures(self, first_index: int, recording: Recording) -> tuple[UploadFailure, ...]:
        """One for each record that was not recorded and is no duplicate, by rising index."""
        failures = [
            UploadFailure(first_index + index, call.call_id, call.reason, _words(call))
            for index, call in self.bad.items()
        ]
        failures += [
            UploadFailure(
                first_index + self.good_indexes[refusal.position],
                refusal.call_id,
                refusal.reason.value,
                refusal.message,
            )
            for refusal in recording.refusals
        ]
        return tuple(sorted(failures, key=attrgetter("index")))


def digest(records: Sequence[Call | BadCall]) -> bytes:
    """What a chunk of these records is known by."""
    return _Chunk.of(records).digest()


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
