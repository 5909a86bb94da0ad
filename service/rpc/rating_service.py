"""RatingService: rates calls and manages rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import grpc
from google.protobuf.empty_pb2 import Empty

from tollwire.service.observability import tallies
from tollwire.service.rating.calls import Calls
from tollwire.service.rating.rates import Rates
from tollwire.service.rpc.batches import AdmittedRpc
from tollwire.service.rpc.bulk_rating import BulkRating
from tollwire.service.rpc.call_rating import CallRating
from tollwire.service.rpc.conversion import fields, rates
from tollwire.service.rpc.conversion.imports import IncomingRequests
from tollwire.service.rpc.endpoints import in_batches, malformed_request, on_bytes
from tollwire.service.rpc.streams import Requests
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import rating_service_pb2_grpc, types_pb2

Context = grpc.ServicerContext


class RatingServicer(rating_service_pb2_grpc.RatingServiceServicer):
    def __init__(self, calls: Calls, rates: Rates) -> None:
        self._rates = rates
        self._call = CallRating(calls)
        self._bulk = BulkRating(calls)

    @on_bytes
    @in_batches("rate_batch")
    def RateCall(self, request: bytes, context: Context) -> bytes:
        return self._call.rate(request)

    def rate_batch(self, batch: Sequence[AdmittedRpc]) -> None:
        self._call.rate_batch(batch)

    @on_bytes
    def BatchRateCalls(self, request: bytes, context: Context) -> bytes:
        return self._bulk.rate(request, tallies.BATCH_RATE_CALLS)

    @on_bytes
    def StreamRateCalls(self, requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        return map(partial(self._bulk.rate, tally=tallies.STREAM_RATE_CALLS), requests)

    def CreateRate(self, request: pb.CreateRateRequest, context: Context) -> types_pb2.Rate:
        return rates.rate(self._rates.create(rates.rate_to_create(request)))

    def GetRate(self, request: pb.GetRateRequest, context: Context) -> types_pb2.Rate:
        return rates.rate(self._rates.get(fields.required_id(request.id, "id")))

    def ListRates(self, request: pb.ListRatesRequest, context: Context) -> pb.ListRatesResponse:
        page = self._rates.list(
            request.tenant_id, request.search, request.page_size, request.page_token
        )
        return pb.ListRatesResponse(
            rates=map(rates.rate, page.items), next_page_token=page.next_page_token
        )

    def UpdateRate(self, request: pb.UpdateRateRequest, context: Context) -> types_pb2.Rate:
        rate, changed = rates.rate_to_update(request)
        return rates.rate(self._rates.update(rate, changed, request.rate.etag))

    def DeleteRate(self, request: pb.DeleteRateRequest, context: Context) -> Empty:
        self._rates.delete(*rates.rate_to_delete(request))
        return Empty()

    @on_bytes
    def ImportRates(self, requests: Requests[bytes], context: Context) -> bytes:
        def has_all() -> None:
            requests.end_counts = False

        deck = IncomingRequests(requests, malformed_request, has_all)
        outcome = self._rates.import_deck(deck.plan, deck.fill)
        return rates.import_outcome(outcome).SerializeToString()

    def ExportRates(
        self, request: pb.ExportRatesRequest, context: Context
    ) -> Iterator[pb.ExportRatesResponse]:
        tenant_id = fields.required_id(request.tenant_id, "tenant_id")
        for part in self._rates.export(tenant_id):
            yield pb.ExportRatesResponse(rates=map(rates.rate, part))
