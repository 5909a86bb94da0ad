"""CdrService: calls recorded, found, added up. Each method parses, calls one thing, answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import grpc

from ratingcore.wire.rate_calls import MalformedRequest
from tollwire.service.domain.record_model import ChunkResult
from tollwire.service.record.cdrs import Cdrs
from tollwire.service.record.chunk_limiter import ChunkLimiter
from tollwire.service.record.explanations import Explanations
from tollwire.service.record.feed import Feed
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.reversals import Reversals
from tollwire.service.record.uploads import NewUpload, Uploads
from tollwire.service.record.verification import Verification
from tollwire.service.reports.usage import Usage
from tollwire.service.rpc.conversion import (
    calls,
    cdrs,
    explanations,
    fields,
    ledger,
    reversals,
    uploads,
    verification,
)
from tollwire.service.rpc.interceptors import malformed_request, on_bytes
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import cdr_service_pb2_grpc, types_pb2

Context = grpc.ServicerContext


class CdrServicer(cdr_service_pb2_grpc.CdrServiceServicer):
    def __init__(
        self,
        cdrs: Cdrs,
        uploads: Uploads,
        usage: Usage,
        reversals: Reversals,
        verification: Verification,
        explanations: Explanations,
        ledger: Ledger,
        feed: Feed,
        chunk_limiter: ChunkLimiter,
    ) -> None:
        """``chunk_limiter`` limits the chunks of all uploads together."""
        self._cdrs = cdrs
        self._uploads = uploads
        self._usage = usage
        self._reversals = reversals
        self._verification = verification
        self._explanations = explanations
        self._ledger = ledger
        self._feed = feed
        self._chunk_limiter = chunk_limiter

    def CreateCdr(self, request: pb.CreateCdrRequest, context: Context) -> types_pb2.Cdr:
        call = calls.required_call(request.call, present=request.HasField("call"), now_ns=None)
        return cdrs.cdr(self._cdrs.create(call))

    def GetCdr(self, request: pb.GetCdrRequest, context: Context) -> types_pb2.Cdr:
        return cdrs.cdr(self._cdrs.get(fields.required_id(request.id, "id")))

    def ExplainCdr(self, request: pb.ExplainCdrRequest, context: Context) -> pb.ExplainCdrResponse:
        found = self._explanations.explain_cdr(request.id, request.tenant_id, request.call_id)
        return explanations.explained_cdr(found)

    def ListCdrs(self, request: pb.ListCdrsRequest, context: Context) -> pb.ListCdrsResponse:
        wanted = cdrs.cdr_filter(request)
        page = self._cdrs.list(wanted, request.page_size, request.page_token)
        return pb.ListCdrsResponse(
            cdrs=map(cdrs.cdr, page.items), next_page_token=page.next_page_token
        )

    @on_bytes
    def UploadCdrs(self, request_iterator: Iterator[bytes], context: Context) -> Iterator[bytes]:
        # The next request is taken once the response before it is sent: a sender that is faster
        # than the database is slowed by the transport and not gathered in memory.
        upload_id = 0
        for request in request_iterator:
            # A stream that waits for its client has no slot: silent clients would block all others.
            new = NewUpload()
            result = self._chunk_limiter.run(
                partial(self._commit, request, upload_id, new), context.is_active
            )
            upload_id = result.upload_id
            yield uploads.chunk_result(result).SerializeToString()

    def _commit(self, request: bytes, upload_id: int, new: NewUpload) -> ChunkResult:
        try:
            named_id, offset, chunk = uploads.chunk(request)
        except MalformedRequest as error:
            raise malformed_request() from error
        return self._uploads.commit(named_id or upload_id, offset, chunk, new)

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

    def VerifyCdrs(
        self, request: pb.VerifyCdrsRequest, context: Context
    ) -> Iterator[pb.VerifyCdrsResponse]:
        wanted = verification.verification_filter(request)
        return map(verification.progress, self._verification.verify(wanted))

    def ExportCdrs(
        self, request: pb.ExportCdrsRequest, context: Context
    ) -> Iterator[pb.ExportCdrsResponse]:
        for part in self._cdrs.export(cdrs.cdr_filter(request)):
            yield pb.ExportCdrsResponse(cdrs=map(cdrs.cdr, part))

    def WatchCdrs(  # type: ignore[override]  # None: nothing to send, for the interceptor
        self, request: pb.WatchCdrsRequest, context: Context
    ) -> Iterator[pb.WatchCdrsResponse | None]:
        parts = self._feed.watch(
            *(request.tenant_id, request.cursor),
            from_now=request.from_now,
            follow=request.follow,
        )
        for part in parts:
            if part is None:
                yield None
                continue
            yield pb.WatchCdrsResponse(
                cdrs=map(cdrs.cdr, part.cdrs), cursor=part.cursor, caught_up=part.caught_up
            )

    def SummarizeUsage(
        self, request: pb.SummarizeUsageRequest, context: Context
    ) -> pb.SummarizeUsageResponse:
        return cdrs.usage(self._usage.summarize(cdrs.usage_query(request)))

    def ReverseCdr(self, request: pb.ReverseCdrRequest, context: Context) -> types_pb2.Reversal:
        asked = reversals.reversal_request(request)
        return reversals.reversal(self._reversals.reverse_cdr(request.id, asked))

    def ReverseUpload(
        self, request: pb.ReverseUploadRequest, context: Context
    ) -> pb.ReverseUploadResponse:
        asked = reversals.reversal_request(request)
        return reversals.upload_reversal(self._reversals.reverse_upload(request.upload_id, asked))

    def ReverseCdrs(
        self, request: pb.ReverseCdrsRequest, context: Context
    ) -> Iterator[pb.ReverseCdrsResponse]:
        wanted = reversals.cdrs_to_reverse(request)
        asked = reversals.reversal_request(request)
        found = self._reversals.reverse_cdrs(wanted, asked, dry_run=request.dry_run)
        return map(reversals.progress, found)

    def ListReversals(
        self, request: pb.ListReversalsRequest, context: Context
    ) -> pb.ListReversalsResponse:
        wanted = reversals.reversal_filter(request)
        page = self._reversals.list(wanted, request.page_size, request.page_token)
        return pb.ListReversalsResponse(
            reversals=map(reversals.reversal, page.items), next_page_token=page.next_page_token
        )

    def GetLedgerRoot(self, request: pb.GetLedgerRootRequest, context: Context) -> pb.LedgerRoot:
        return ledger.ledger_root(self._ledger.root())

    def VerifyLedger(
        self, request: pb.VerifyLedgerRequest, context: Context
    ) -> Iterator[pb.VerifyLedgerResponse]:
        yield from map(ledger.ledger_progress, self._ledger.verify(request.root))
