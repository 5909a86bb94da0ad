"""Compares records that are sent again with the settled records of an upload, one by one.

The records may be sent again in chunks of other sizes. Each settled chunk has a digest of each of
its records (ratingcore/record/record_digest.pyx). Older releases stored one digest of the whole
chunk: a part of such a chunk is compared with the resulting CDRs and failed records. This shows
that each record was settled, but not that it was settled at this index.
"""

from __future__ import annotations

from dataclasses import dataclass

from ratingcore.record.record_digest import DIGEST_SIZE, digest_of_bad
from tollwire.service.domain.errors import FailedPrecondition, Reason
from tollwire.service.domain.record_model import UploadFailure
from tollwire.service.record.upload_chunks import UploadChunk
from tollwire.service.storage import cdrs, upload_failures, uploads
from tollwire.service.storage.engine import Connection
from tollwire.service.storage.uploads import StoredChunk


@dataclass(frozen=True, slots=True)
class Settled:
    """The first ``calls`` records of a chunk, which were settled before. ``chunk``: the stored
    chunk, if exactly this one is sent again. ``of_reversed``: the number of these calls whose CDR
    is reversed now."""

    calls: int
    chunk: StoredChunk | None
    failures: tuple[UploadFailure, ...]
    of_reversed: int


def compare(
    connection: Connection, upload_id: int, offset: int, sent: UploadChunk, calls: int
) -> Settled:
    """Compare the first ``calls`` records of ``sent`` with the records that were settled from
    ``offset``. FailedPrecondition UPLOAD_CHUNK_CHANGED with the first index that differs."""
    end = offset + calls
    digests = sent.record_digests()
    stored = uploads.chunks(connection, upload_id, offset, end)
    for chunk in stored:
        begin = max(offset, chunk.first_index)
        stop = min(end, chunk.first_index + chunk.calls)
        part = sent.part(begin - offset, stop - offset)
        if chunk.record_digests is None:
            _compare_whole(connection, upload_id, chunk, begin, part)
        else:
            new = digests[(begin - offset) * DIGEST_SIZE : (stop - offset) * DIGEST_SIZE]
            first = begin - chunk.first_index
            old = chunk.record_digests[first * DIGEST_SIZE : (first + len(part)) * DIGEST_SIZE]
            _compare_records(upload_id, begin, part, old, new)
    failures = tuple(upload_failures.of_chunk(connection, upload_id, offset, end))
    first_chunk = stored[0]
    is_exact = (first_chunk.first_index, first_chunk.calls) == (offset, len(sent))
    return Settled(
        calls=calls,
        chunk=first_chunk if is_exact else None,
        failures=failures,
        of_reversed=_count_reversed(connection, offset, sent, calls, failures),
    )


def _compare_records(upload_id: int, begin: int, part: UploadChunk, old: bytes, new: bytes) -> None:
    if old == new:
        return
    for position in range(len(part)):
        place = slice(position * DIGEST_SIZE, (position + 1) * DIGEST_SIZE)
        if old[place] != new[place] and not _was_bad(part, position, old[place]):
            raise _changed(upload_id, begin + position)


def _was_bad(part: UploadChunk, position: int, old: bytes) -> bool:
    """Whether a record that is valid now was settled, with the same bytes, as an invalid record of
    an older release."""
    source = part.records.source(position)
    return position not in part.bad and bool(source) and digest_of_bad(source) == old


def _compare_whole(
    connection: Connection, upload_id: int, chunk: StoredChunk, begin: int, part: UploadChunk
) -> None:
    """Compare with a chunk that has only one digest. Of an invalid record that digest contains only
    the error."""
    end = begin + len(part)
    failed = {
        record.failure.index: record.content
        for record in upload_failures.kept(connection, upload_id, begin, end)
    }
    if len(part) == chunk.calls and part.digest() == chunk.digest:
        for index, content in sorted(failed.items()):
            if part.records.source(index - begin) != content:
                raise _changed(upload_id, index)
        return
    kept = upload_failures.count(connection, upload_id, chunk.first_index, chunk.calls)
    good = [at for at in range(len(part)) if at not in part.bad]
    recorded = cdrs.contents(connection, map(part.records.key, good))
    for position in range(len(part)):
        index = begin + position
        if index in failed:
            same = part.records.source(position) == failed[index]
        else:
            same = position not in part.bad and part.records.content(position) in recorded
        if not same and kept < chunk.conflicts + chunk.rejected:
            raise _unknown(upload_id, index, chunk)
        if not same:
            raise _changed(upload_id, index)
    if len(part) == chunk.calls:
        # The same records in another order, or another record instead of one sent twice.
        raise _unknown(upload_id, begin, chunk)


def _count_reversed(
    connection: Connection,
    offset: int,
    sent: UploadChunk,
    calls: int,
    failures: tuple[UploadFailure, ...],
) -> int:
    failed = {failure.index - offset for failure in failures}
    key = sent.records.key
    keys = [key(at) for at in range(calls) if at not in sent.bad and at not in failed]
    reversed_keys = cdrs.reversed_among(connection, keys)
    return sum(one in reversed_keys for one in keys) if reversed_keys else 0


def _changed(upload_id: int, index: int) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.UPLOAD_CHUNK_CHANGED,
        f"calls: record {index} of upload {upload_id} was settled with other content; nothing in"
        " this chunk was recorded; send the settled records unchanged, or continue at"
        " committed_offset",
        metadata={"upload_id": str(upload_id), "index": str(index)},
    )


def _unknown(upload_id: int, index: int, chunk: StoredChunk) -> FailedPrecondition:
    first, last = chunk.first_index, chunk.first_index + chunk.calls - 1
    return FailedPrecondition(
        Reason.UPLOAD_CHUNK_CHANGED,
        f"calls: record {index} of upload {upload_id} cannot be compared: an older release settled"
        f" records {first} to {last} as one chunk; send exactly these records as one chunk, or"
        " continue at committed_offset",
        metadata={"upload_id": str(upload_id), "index": str(index)},
    )
