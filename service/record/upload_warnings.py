"""The warnings in responses to an upload, for people: records that were not billed, or replace a
bill, although no error occurred."""

from __future__ import annotations

from collections.abc import Iterator

from tollwire.service.domain.record_model import ChunkResult, Upload


def of_chunk(result: ChunkResult) -> list[str]:
    return [*_reversed_since(result.duplicates_of_reversed), *_common(result)]


def of_upload(upload: Upload) -> list[str]:
    return [*_reversed_now(upload.reversed), *_common(upload)]


def _reversed_since(count: int) -> Iterator[str]:
    if count:
        calls = _number(count, "call of this chunk was", "calls of this chunk were")
        yield (
            f"{calls} settled before and reversed later: nothing is billed for them; send them in a"
            " new upload to record them again"
        )


def _reversed_now(count: int) -> Iterator[str]:
    if count:
        cdrs = _number(count, "CDR of this upload is", "CDRs of this upload are")
        yield f"{cdrs} reversed: nothing is billed for them"


def _common(counts: ChunkResult | Upload) -> Iterator[str]:
    if counts.recorded_again:
        calls = _number(counts.recorded_again, "call was", "calls were")
        yield f"{calls} recorded again: the earlier CDR with the same call_id is reversed"
    if counts.derived_duplicates:
        calls = _number(counts.derived_duplicates, "call was", "calls were")
        yield (
            f"{calls} not recorded because the content equals that of a recorded call and there is"
            " no call_id: either the same record was sent twice, or two calls have equal content;"
            " use Call.occurrence to distinguish them"
        )


def _number(count: int, one: str, several: str) -> str:
    return f"1 {one}" if count == 1 else f"{count:,} {several}"
