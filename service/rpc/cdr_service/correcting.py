"""The methods of CdrService that reverse CDRs and list reversals."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from tollwire.service.record.reversals import Reversals
from tollwire.service.rpc.conversion import reversals
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import cdr_service_pb2_grpc, types_pb2

Context = grpc.ServicerContext


class CdrCorrecting(cdr_service_pb2_grpc.CdrServiceServicer):
    def __init__(self, reversals: Reversals) -> None:
        self._reversals = reversals

    def ReverseCdr(self, request: pb.ReverseCdrRequest, context: Context) -> types_pb2.Reversal:
        stated = reversals.reversal_request(request)
        return reversals.reversal(self._reversals.reverse_cdr(request.id, stated))

    def ReverseUpload(
        self, request: pb.ReverseUploadRequest, context: Context
    ) -> pb.ReverseUploadResponse:
        stated = reversals.reversal_request(request)
        return reversals.upload_reversal(self._reversals.reverse_upload(request.upload_id, stated))

    def ReverseCdrs(
        self, request: pb.ReverseCdrsRequest, context: Context
    ) -> Iterator[pb.ReverseCdrsResponse]:
        wanted = reversals.cdrs_to_reverse(request)
        stated = reversals.reversal_request(request)
        found = self._reversals.reverse_cdrs(wanted, stated, dry_run=request.dry_run)
        return map(reversals.progress, found)

    def ListReversals(
        self, request: pb.ListReversalsRequest, context: Context
    ) -> pb.ListReversalsResponse:
        wanted = reversals.reversal_filter(request)
        page = self._reversals.list(wanted, request.page_size, request.page_token)
        return pb.ListReversalsResponse(
            reversals=map(reversals.reversal, page.items), next_page_token=page.next_page_token
        )
