"""Uploads: chunks, their results, and the state of an upload."""

from __future__ import annotations

from ratingcore.record.upload import read_upload
from tollwire.service.domain.model import MAX_BATCH_CALLS
from tollwire.service.domain.record_model import ChunkResult, ControlTotals, FailedRecord, Upload
from tollwire.service.domain.thread_context import stop_if_over
from tollwire.service.record import upload_warnings
from tollwire.service.record.upload_chunks import UploadChunk
from tollwire.service.rpc.conversion import calls, fields
from tollwire.v1 import cdr_service_pb2, types_pb2


def chunk(request: bytes) -> tuple[int, int, UploadChunk]:
    """upload_id, offset and calls of an UploadCdrsRequest. InvalidInput if it has too many calls;
    MalformedRequest if the bytes are not such a message. Ends with the client."""
    upload_id, offset, call_count, records, totals = read_upload(request, MAX_BATCH_CALLS)
    calls.check_count(call_count)
    bad = {}
    for position, data in records.bad():
        stop_if_over()
        bad[position] = calls.bad_call(data)
    stated = None if totals is None else ControlTotals(*totals)
    return upload_id, offset, UploadChunk(records, bad, stated)


def chunk_result(result: ChunkResult) -> cdr_service_pb2.UploadCdrsResponse:
    return cdr_service_pb2.UploadCdrsResponse(
        upload_id=result.upload_id,
        committed_offset=result.committed_offset,
        created=result.created,
        duplicates=result.duplicates,
        conflicts=result.conflicts,
        rejected=result.rejected,
        unrated=result.unrated,
        failures=[
            cdr_service_pb2.UploadFailure(
                index=failure.index,
                call_id=failure.call_id,
                reason=failure.reason,
                message=failure.message,
            )
            for failure in result.failures
        ],
        settled_totals=_control_totals(result.settled_totals),
        control_totals_match=result.control_totals_match,
        already_settled=result.already_settled,
        recorded_again=result.recorded_again,
        duplicates_of_reversed=result.duplicates_of_reversed,
        derived_call_ids=result.derived_call_ids,
        derived_duplicates=result.derived_duplicates,
        warnings=upload_warnings.of_chunk(result),
    )


def upload(state: Upload) -> cdr_service_pb2.GetUploadResponse:
    return cdr_service_pb2.GetUploadResponse(
        upload_id=state.id,
        committed_offset=state.committed_offset,
        created=state.created,
        duplicates=state.duplicates,
        conflicts=state.conflicts,
        rejected=state.rejected,
        unrated=state.unrated,
        created_at=fields.timestamp(state.created_at_ns),
        updated_at=fields.timestamp(state.updated_at_ns),
        duration_seconds=state.duration_seconds,
        control_totals=_control_totals(state.control_totals),
        control_totals_match=state.control_totals_match,
        reversed_at=fields.timestamp(state.reversed_at_ns),
        recorded_again=state.recorded_again,
        derived_call_ids=state.derived_call_ids,
        derived_duplicates=state.derived_duplicates,
        reversed=state.reversed,
        warnings=upload_warnings.of_upload(state),
    )


def _control_totals(totals: ControlTotals | None) -> cdr_service_pb2.ControlTotals | None:
    if totals is None:
        return None
    return cdr_service_pb2.ControlTotals(
        calls=totals.calls, duration_seconds=totals.duration_seconds
    )


def failed_record(failed: FailedRecord) -> cdr_service_pb2.FailedRecord:
    call = types_pb2.Call.FromString(failed.content)
    # Unknown fields may be nested so deeply that the message cannot be parsed or serialised inside
    # another message, which is one level deeper than it was sent.
    call.DiscardUnknownFields()
    return cdr_service_pb2.FailedRecord(
        index=failed.failure.index,
        call_id=failed.failure.call_id,
        reason=failed.failure.reason,
        message=failed.failure.message,
        call=call,
        created_at=fields.timestamp(failed.created_at_ns),
    )
