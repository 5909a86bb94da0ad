"""The methods of CdrService that get, list, export, watch and explain CDRs."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from tollwire.service.record.cdrs import Cdrs
from tollwire.service.record.explanations import Explanations
from tollwire.service.record.feed import Feed
from tollwire.service.rpc.conversion import cdrs, explanations, fields
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import cdr_service_pb2_grpc, types_pb2

Context = grpc.ServicerContext


class CdrReading(cdr_service_pb2_grpc.CdrServiceServicer):
    def __init__(self, cdrs: Cdrs, explanations: Explanations, feed: Feed) -> None:
        self._cdrs = cdrs
        self._explanations = explanations
        self._feed = feed

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

    def ExportCdrs(
        self, request: pb.ExportCdrsRequest, context: Context
    ) -> Iterator[pb.ExportCdrsResponse]:
        for part in self._cdrs.export(cdrs.cdr_filter(request)):
            yield pb.ExportCdrsResponse(cdrs=map(cdrs.cdr, part))

    def WatchCdrs(  # type: ignore[override]  # yields None when there is nothing to send
        self, request: pb.WatchCdrsRequest, context: Context
    ) -> Iterator[pb.WatchCdrsResponse | None]:
        parts = self._feed.watch(
            request.tenant_id,
            request.cursor,
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
