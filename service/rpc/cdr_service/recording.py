"""CDRs recorded: one by one, in uploads, and rated again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import grpc
from google.protobuf.message import DecodeError

from ratingcore.record.records import Records
from ratingcore.record.single_calls import read_single_call
from ratingcore.wire.rate_calls import MalformedRequest
from tollwire.service.domain.model import Call, Cdr
from tollwire.service.domain.record_model import ChunkResult
from tollwire.service.domain.thread_context import current_request
from tollwire.service.record.cdrs import Cdrs
from tollwire.service.record.chunk_limiter import ChunkLimiter
from tollwire.service.record.group_commit import Submission
from tollwire.service.record.single_calls import RecordedCall
from tollwire.service.record.uploads import NewUpload, Uploads
from tollwire.service.rpc.batches import AdmittedRpc
from tollwire.service.rpc.conversion import calls, cdrs, fields, uploads
from tollwire.service.rpc.endpoints import in_batches, malformed_request, on_bytes
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import cdr_service_pb2_grpc

Context = grpc.ServicerContext


class CdrRecording(cdr_service_pb2_grpc.CdrServiceServicer):
    def __init__(self, cdrs: Cdrs, uploads: Uploads, chunk_limiter: ChunkLimiter) -> None:
        """``chunk_limiter`` limits the chunks of all uploads together."""
        self._cdrs = cdrs
        self._uploads = uploads
        self._chunk_limiter = chunk_limiter

    @on_bytes
    @in_batches("create_batch", ends_later=True)
    def CreateCdr(self, request: bytes, context: Context) -> bytes:
        records = read_single_call(request)
        if records is None:
            return cdrs.cdr(self._cdrs.create(_call(request))).SerializeToString()
        return _answer(self._cdrs.record(records))

    def create_batch(self, batch: Sequence[AdmittedRpc]) -> None:
        """Records calls that were received together as one group, without a thread for each."""
        submissions: list[Submission[Records, RecordedCall | Cdr]] = []
        for one in batch:
            records = read_single_call(one.request)
            if records is None:
                one.run_alone()
            else:
                submissions.append(Submission(records, one.rpc.request, partial(_finish, one)))
        self._cdrs.submit(submissions, batch[0].run_in_pool)

    @on_bytes
    def UploadCdrs(self, request_iterator: Iterator[bytes], context: Context) -> Iterator[bytes]:
        # The next request is taken once the response before it is sent: a sender that is faster
        # than the database is slowed by the transport and not gathered in memory.
        upload_id = 0
        for request in request_iterator:
            # A stream that waits for its client has no slot: silent clients would block all others.
            new = NewUpload()
            result = self._chunk_limiter.run(
                partial(self._commit, request, upload_id, new), current_request().is_wanted
            )
            upload_id = result.upload_id
            yield uploads.chunk_result(result).SerializeToString()

    def _commit(self, request: bytes, upload_id: int, new: NewUpload) -> ChunkResult:
        try:
            named_id, offset, chunk = uploads.chunk(request)
        except MalformedRequest as error:
            raise malformed_request() from error
        return self._uploads.commit(
            named_id or upload_id,
            offset,
            chunk,
            new,
            was_visible=upload_id != 0 and named_id in (0, upload_id),
        )

    def GetUpload(self, request: pb.GetUploadRequest, context: Context) -> pb.GetUploadResponse:
        upload_id = fields.required_id(request.upload_id, "upload_id")
        return uploads.upload(self._uploads.get(upload_id))

    def ListUploads(
        self, request: pb.ListUploadsRequest, context: Context
    ) -> pb.ListUploadsResponse:
        page = self._uploads.list(request.page_size, request.page_token)
        return pb.ListUploadsResponse(
            uploads=map(uploads.upload, page.items), next_page_token=page.next_page_token
        )

    def ListUploadFailures(
        self, request: pb.ListUploadFailuresRequest, context: Context
    ) -> pb.ListUploadFailuresResponse:
        page = self._uploads.list_failures(
            request.upload_id, request.reason, request.page_size, request.page_token
        )
        return pb.ListUploadFailuresResponse(
            failures=map(uploads.failed_record, page.items), next_page_token=page.next_page_token
        )

    def RateUnrated(
        self, request: pb.RateUnratedRequest, context: Context
    ) -> pb.RateUnratedResponse:
        outcome = self._cdrs.rate_unrated(*cdrs.unrated_filter(request))
        return pb.RateUnratedResponse(
            examined=outcome.examined,
            rated=outcome.rated,
            still_unrated=outcome.still_unrated,
            reason_corrected=outcome.reason_corrected,
        )


def _answer(recorded: RecordedCall | Cdr) -> bytes:
    if isinstance(recorded, RecordedCall):
        return cdrs.recorded_call(recorded)
    return cdrs.cdr(recorded).SerializeToString()


def _finish(one: AdmittedRpc, outcome: RecordedCall | Cdr | Exception) -> None:
    try:
        answer = outcome if isinstance(outcome, Exception) else _answer(outcome)
    except Exception as error:
        answer = error
    one.finish(answer)


def _call(data: bytes) -> Call:
    """The call of a CreateCdrRequest. InvalidInput if it is malformed or breaks a rule."""
    try:
        request = pb.CreateCdrRequest.FromString(data)
    except DecodeError as error:
        raise malformed_request() from error
    return calls.required_call(request.call, present=request.HasField("call"), now_ns=None)
