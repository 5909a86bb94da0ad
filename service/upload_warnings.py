"""What an upload's answers warn of, for people: records that bill nothing, or replace a bill,
although nothing failed."""

from __future__ import annotations

from collections.abc import Iterator

from service.record_model import ChunkResult, Upload


def of_chunk(result: ChunkResult) -> list[str]:
    if result.duplicates_of_reversed:
        reversed_calls = (
            f"{_calls(result.duplicates_of_reversed)} of this chunk settled before and reversed"
            " since: nothing is billed for them; send them in a new upload to record them again"
        )
        return [reversed_calls, *_common(result)]
    return list(_common(result))


def of_upload(upload: Upload) -> list[str]:
    if upload.reversed:
        reversed_calls = (
            f"{_calls(upload.reversed)} of this upload reversed: nothing is billed for them unless"
            " another upload or CreateCdr records them again"
        )
        return [reversed_calls, *_common(upload)]
    return list(_common(upload))


def _common(counts: ChunkResult | Upload) -> Iterator[str]:
    if counts.recorded_again:
        yield (
            f"{_calls(counts.recorded_again)} recorded again: each follows a reversed CDR of the"
            " same call_id"
        )
    if counts.derived_duplicates:
        yield (
            f"{_calls(counts.derived_duplicates)} without a call_id not recorded, because the"
            " content equals that of a recorded call: the same record sent twice, or another call;"
            " Call.occurrence tells such calls apart"
        )


def _calls(count: int) -> str:
    return "1 call was" if count == 1 else f"{count} calls were"
