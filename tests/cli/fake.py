"""A server for the command's own tests: keeps uploads and decks in memory, and fails on demand.

It is built from the generated servicers and shares no code with the service. Its rules for records
are simple on purpose: an upload settles every call, and rejects those without a destination.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tollwire.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    cdr_service_pb2,
    cdr_service_pb2_grpc,
    rating_service_pb2,
    rating_service_pb2_grpc,
    tenant_service_pb2_grpc,
    types_pb2,
)


def refuse(
    context: grpc.ServicerContext,
    code: int,
    reason: str,
    message: str,
    violations: dict[str, str] | None = None,
) -> None:
    """End the RPC as the service does: with a google.rpc.Status and its details."""
    status = status_pb2.Status(code=code, message=message)
    details: list[object] = [error_details_pb2.ErrorInfo(reason=reason, domain="tollwire")]
    if violations:
        bad = error_details_pb2.BadRequest()
        for name, description in violations.items():
            bad.field_violations.add(field=name, description=description)
        details.append(bad)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))


def _reason(call: types_pb2.Call) -> str:
    return "UNREADABLE_RECORD" if call.HasField("unreadable") else "INVALID_FIELD"


def _message(call: types_pb2.Call) -> str:
    if call.HasField("unreadable"):
        return f"line {call.unreadable.line}: {call.unreadable.message}"
    return "no destination"


@dataclass
class FakeCdrs(cdr_service_pb2_grpc.CdrServiceServicer):
    """Uploads.

    ``breaks`` defines, by the number of the chunk in order of arrival (from 1, without the empty
    one that begins an upload), how the stream ends at this chunk: "before" the chunk is settled, or
    "after" it, without its response.
    """

    breaks: dict[int, str] = field(default_factory=dict)
    code: int = code_pb2.UNAVAILABLE
    uploads: dict[int, list[types_pb2.Call]] = field(default_factory=dict)
    # The chunks that were answered, by upload and offset.
    answers: dict[tuple[int, int], cdr_service_pb2.UploadCdrsResponse] = field(default_factory=dict)
    stated: dict[int, cdr_service_pb2.ControlTotals] = field(default_factory=dict)
    extra: cdr_service_pb2.GetUploadResponse | None = (
        None  # added to every upload's state, but not to the totals
    )
    lost_calls: int = 0  # that the totals do not count
    listed: list[cdr_service_pb2.ListUploadFailuresRequest] = field(default_factory=list)
    arrived: int = 0
    streams: int = 0

    def UploadCdrs(
        self,
        request_iterator: Iterator[cdr_service_pb2.UploadCdrsRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[cdr_service_pb2.UploadCdrsResponse]:
        self.streams += 1
        for request in request_iterator:
            upload_id = request.upload_id
            if not upload_id:
                upload_id = len(self.uploads) + 1
                self.uploads[upload_id] = []
            calls = self.uploads[upload_id]
            if request.calls:
                self.arrived += 1
                if self.breaks.get(self.arrived) == "before":
                    refuse(context, self.code, "SHUTTING_DOWN", "the server is stopping")
            if request.calls:
                yield self._settle(request, upload_id, context)
                continue
            if request.HasField("control_totals"):
                self.stated[upload_id] = request.control_totals
            yield cdr_service_pb2.UploadCdrsResponse(
                upload_id=upload_id, committed_offset=len(calls)
            )

    def _settle(
        self,
        request: cdr_service_pb2.UploadCdrsRequest,
        upload_id: int,
        context: grpc.ServicerContext,
    ) -> cdr_service_pb2.UploadCdrsResponse:
        calls = self.uploads[upload_id]
        if (upload_id, request.offset) in self.answers:
            return self.answers[upload_id, request.offset]
        if request.offset != len(calls):
            refuse(context, code_pb2.OUT_OF_RANGE, "UPLOAD_GAP", f"expected {len(calls)}")
        calls.extend(request.calls)
        failures = [
            cdr_service_pb2.UploadFailure(
                index=request.offset + i, reason=_reason(call), message=_message(call)
            )
            for i, call in enumerate(request.calls)
            if not call.destination_number
        ]
        answer = cdr_service_pb2.UploadCdrsResponse(
            upload_id=upload_id,
            committed_offset=len(calls),
            created=len(request.calls) - len(failures),
            rejected=len(failures),
            failures=failures,
        )
        self.answers[upload_id, request.offset] = answer
        if self.breaks.get(self.arrived) == "after":
            refuse(context, self.code, "SHUTTING_DOWN", "the server is stopping")
        return answer

    def ListUploads(
        self, request: cdr_service_pb2.ListUploadsRequest, context: grpc.ServicerContext
    ) -> cdr_service_pb2.ListUploadsResponse:
        ids = sorted(self.uploads, reverse=True)
        return cdr_service_pb2.ListUploadsResponse(uploads=map(self._state, ids))

    def ListUploadFailures(
        self, request: cdr_service_pb2.ListUploadFailuresRequest, context: grpc.ServicerContext
    ) -> cdr_service_pb2.ListUploadFailuresResponse:
        """One item a page, so that every reader has to fetch pages."""
        self.listed.append(request)
        failed = [
            cdr_service_pb2.FailedRecord(
                index=index, reason=_reason(call), message=_message(call), call=call
            )
            for index, call in enumerate(self.uploads[request.upload_id])
            if not call.destination_number and request.reason in ("", _reason(call))
        ]
        begin = int(request.page_token or 0)
        more = begin + 1 < len(failed)
        return cdr_service_pb2.ListUploadFailuresResponse(
            failures=failed[begin : begin + 1], next_page_token=str(begin + 1) if more else ""
        )

    def GetUpload(
        self, request: cdr_service_pb2.GetUploadRequest, context: grpc.ServicerContext
    ) -> cdr_service_pb2.GetUploadResponse:
        if request.upload_id not in self.uploads:
            refuse(context, code_pb2.NOT_FOUND, "UPLOAD_NOT_FOUND", "no such upload")
        return self._state(request.upload_id)

    def _state(self, upload_id: int) -> cdr_service_pb2.GetUploadResponse:
        calls = self.uploads[upload_id]
        created = sum(1 for call in calls if call.destination_number)
        state = cdr_service_pb2.GetUploadResponse(
            upload_id=upload_id,
            committed_offset=len(calls) - self.lost_calls,
            created=created,
            rejected=len(calls) - created,
            duration_seconds=sum(call.duration_seconds for call in calls),
            control_totals=self.stated.get(upload_id),
        )
        if self.extra is not None:
            state.MergeFrom(self.extra)
        if upload_id in self.stated:
            stated = self.stated[upload_id]
            state.control_totals_match = (stated.calls, stated.duration_seconds) == (
                state.committed_offset,
                state.duration_seconds,
            )
        return state


@dataclass
class FakeRating(rating_service_pb2_grpc.RatingServiceServicer):
    """Decks. A rate with the cost "bad" is rejected; so is a deck without a count of its rates, or
    with another number of rates. RateCall fails with ``refusal``."""

    requests: list[rating_service_pb2.ImportRatesRequest] = field(default_factory=list)
    taken: list[list[types_pb2.Rate]] = field(default_factory=list)
    dry_runs: int = 0
    incomplete: int = 0
    refusal: tuple[int, str, str, dict[str, str]] | None = None
    delay_seconds: float = 0

    def RateCall(
        self, request: rating_service_pb2.RateCallRequest, context: grpc.ServicerContext
    ) -> rating_service_pb2.RateCallResponse:
        time.sleep(self.delay_seconds)
        if self.refusal is not None:
            refuse(context, *self.refusal)
        return rating_service_pb2.RateCallResponse()

    def ImportRates(
        self,
        request_iterator: Iterator[rating_service_pb2.ImportRatesRequest],
        context: grpc.ServicerContext,
    ) -> rating_service_pb2.ImportRatesResponse:
        deck: list[types_pb2.Rate] = []
        stated = None
        for request in request_iterator:
            self.requests.append(request)
            deck.extend(request.rates)
            if request.HasField("rate_count"):
                stated = request.rate_count
        first = self.requests[-1]
        if stated != len(deck):
            self.incomplete += 1
            message = f"the deck should have {stated} rates, but {len(deck)} came"
            refuse(context, code_pb2.FAILED_PRECONDITION, "IMPORT_INCOMPLETE", message)
        if first.tenant_id == 404:
            refuse(context, code_pb2.NOT_FOUND, "TENANT_NOT_FOUND", "tenant 404 does not exist")
        errors = [
            rating_service_pb2.ImportError(index=i, field="cost_per_minute", message="is bad")
            for i, rate in enumerate(deck)
            if rate.cost_per_minute == "bad"
        ]
        if first.dry_run:
            self.dry_runs += 1
        elif not errors:
            self.taken.append(deck)
        return rating_service_pb2.ImportRatesResponse(
            created=0 if errors else len(deck), rejected=len(errors), errors=errors
        )

    def ExportRates(
        self, request: rating_service_pb2.ExportRatesRequest, context: grpc.ServicerContext
    ) -> Iterator[rating_service_pb2.ExportRatesResponse]:
        for deck in self.taken:
            yield rating_service_pb2.ExportRatesResponse(rates=deck)


@dataclass
class FakeTokens(access_service_pb2_grpc.AccessServiceServicer):
    """Records the token of each request, and accepts none."""

    headers: list[str] = field(default_factory=list)

    def GetToken(
        self, request: access_service_pb2.GetTokenRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Token:
        sent = dict(context.invocation_metadata())
        self.headers.append(str(sent.get("authorization")))
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "")


class FakeServer:
    """The fake services on a port of their own; plain text if there are no credentials."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.cdrs = FakeCdrs()
        self.rating = FakeRating()
        self.tokens = FakeTokens()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        cdr_service_pb2_grpc.add_CdrServiceServicer_to_server(self.cdrs, self._server)
        rating_service_pb2_grpc.add_RatingServiceServicer_to_server(self.rating, self._server)
        tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(
            tenant_service_pb2_grpc.TenantServiceServicer(), self._server
        )
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(self.tokens, self._server)
        any_port = "127.0.0.1:0"
        if credentials is None:
            port = self._server.add_insecure_port(any_port)
        else:
            port = self._server.add_secure_port(any_port, credentials)
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()
