"""The client of the integration tests: stubs with deadlines, messages, expected refusals.

It uses the generated stubs and nothing of the service: the tests see the same as any client.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import access_service_pb2_grpc as access_grpc
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import cdr_service_pb2_grpc as cdr_grpc
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import rating_service_pb2_grpc as rating_grpc
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import tenant_service_pb2_grpc as tenant_grpc
from tollwire.v1 import types_pb2 as types
from tollwire.v1.error_reason_pb2 import ErrorReason

SECOND_NS = 10**9
DAY_SECONDS = 86_400
# 2026-03-02T10:00:00Z, a Monday: when calls start unless a test says otherwise.
NOON_SECONDS = 1_772_445_600
NOON_NS = NOON_SECONDS * SECOND_NS

RATED = types.RATING_STATUS_RATED
NOT_BILLABLE = types.RATING_STATUS_NOT_BILLABLE
UNRATED = types.RATING_STATUS_UNRATED
OUTBOUND = types.DIRECTION_OUTBOUND
INBOUND = types.DIRECTION_INBOUND
INTERNAL = types.DIRECTION_INTERNAL
ANSWERED = types.DISPOSITION_ANSWERED
BUSY = types.DISPOSITION_BUSY
NO_ANSWER = types.DISPOSITION_NO_ANSWER

MAX_MESSAGE_BYTES = 64 * 2**20
# Every method has a deadline: a server that hangs fails the test and does not block it.
DEADLINE_SECONDS = 45


class Client:
    """One connection of its own to a server, with a stub for each service. No RPC takes longer than
    ``deadline_seconds``, whatever time-out it is given."""

    def __init__(self, address: str, deadline_seconds: int = DEADLINE_SECONDS) -> None:
        self.address = address
        config = {"methodConfig": [{"name": [{}], "timeout": f"{deadline_seconds}s"}]}
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.service_config", json.dumps(config)),
            ],
        )
        self.rating = rating_grpc.RatingServiceStub(self.channel)
        self.cdrs = cdr_grpc.CdrServiceStub(self.channel)
        self.tenants = tenant_grpc.TenantServiceStub(self.channel)
        self.access = access_grpc.AccessServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Resources.

    def new_token(self, tenant_id: int) -> access_pb.Token:
        request = access_pb.CreateTokenRequest(token=make_token(tenant_id))
        return self.access.CreateToken(request).token

    def new_tenant(self, **fields: Any) -> types.Tenant:
        fields.setdefault("name", "Acme")
        return self.tenants.CreateTenant(
            tenant_pb.CreateTenantRequest(tenant=types.Tenant(**fields))
        )

    def new_extension(self, tenant_id: int, number: str = "101", **fields: Any) -> types.Extension:
        extension = types.Extension(tenant_id=tenant_id, number=number, **fields)
        return self.tenants.CreateExtension(tenant_pb.CreateExtensionRequest(extension=extension))

    def new_rate(self, tenant_id: int, prefix: str, *args: Any, **fields: Any) -> types.Rate:
        rate = make_rate(prefix, *args, tenant_id=tenant_id, **fields)
        return self.rating.CreateRate(rating_pb.CreateRateRequest(rate=rate))

    def update_rate(self, rate: types.Rate, *paths: str) -> types.Rate:
        request = rating_pb.UpdateRateRequest(rate=rate)
        request.update_mask.paths.extend(paths)
        return self.rating.UpdateRate(request)

    # Rating and recording.

    def rate(self, call: types.Call) -> types.RatedCall:
        return self.rating.RateCall(rating_pb.RateCallRequest(call=call)).rated

    def batch(self, calls: Iterable[types.Call]) -> list[types.RatedCall]:
        return list(self.rating.BatchRateCalls(rating_pb.BatchRateCallsRequest(calls=calls)).rated)

    def create_cdr(self, call: types.Call) -> types.Cdr:
        return self.cdrs.CreateCdr(cdr_pb.CreateCdrRequest(call=call))

    def get_cdr(self, cdr_id: int) -> types.Cdr:
        return self.cdrs.GetCdr(cdr_pb.GetCdrRequest(id=cdr_id))

    def upload(self, *chunks: cdr_pb.UploadCdrsRequest) -> list[cdr_pb.UploadCdrsResponse]:
        """All the chunks in one stream, sent without waiting for the responses in between."""
        return list(self.cdrs.UploadCdrs(iter(chunks)))

    def get_upload(self, upload_id: int) -> cdr_pb.GetUploadResponse:
        return self.cdrs.GetUpload(cdr_pb.GetUploadRequest(upload_id=upload_id))

    def verify(self, **filters: Any) -> cdr_pb.VerifyCdrsResponse:
        """The last response of VerifyCdrs, with all differences in it."""
        *before, last = self.cdrs.VerifyCdrs(cdr_pb.VerifyCdrsRequest(**filters))
        assert last.done
        assert not any(answer.done for answer in before)
        named = [one for answer in before for one in answer.differences]
        last.differences.extend(named)
        return last

    def list_cdrs(self, **filters: Any) -> list[types.Cdr]:
        """All pages."""
        found: list[types.Cdr] = []
        token = ""
        while True:
            page = self.cdrs.ListCdrs(cdr_pb.ListCdrsRequest(page_token=token, **filters))
            found.extend(page.cdrs)
            token = page.next_page_token
            if not token:
                return found

    def list_rates(self, **filters: Any) -> list[types.Rate]:
        """All pages."""
        found: list[types.Rate] = []
        token = ""
        while True:
            page = self.rating.ListRates(rating_pb.ListRatesRequest(page_token=token, **filters))
            found.extend(page.rates)
            token = page.next_page_token
            if not token:
                return found

    def import_rates(
        self,
        tenant_id: int,
        rates: Sequence[types.Rate],
        mode: Any = types.IMPORT_MODE_MERGE,
        *,
        dry_run: bool = False,
        messages: int = 1,
        allow_gap: bool = False,
    ) -> rating_pb.ImportRatesResponse:
        """``messages``: the number of parts of the deck."""
        size = max(1, -(-len(rates) // messages))
        parts = [rates[at : at + size] for at in range(0, len(rates), size)] or [[]]
        requests = [rating_pb.ImportRatesRequest(rates=part) for part in parts]
        requests[0].tenant_id = tenant_id
        requests[0].mode = mode
        requests[0].dry_run = dry_run
        requests[0].allow_gap = allow_gap
        return self.rating.ImportRates(iter(requests))

    def export_rates(self, tenant_id: int) -> list[types.Rate]:
        request = rating_pb.ExportRatesRequest(tenant_id=tenant_id)
        return [rate for part in self.rating.ExportRates(request) for rate in part.rates]


def make_token(tenant_id: int) -> access_pb.Token:
    return access_pb.Token(
        name="desk",
        role=access_pb.ROLE_READER,
        tenant_ids=[tenant_id],
        expires_at=timestamp(NOON_NS + 100 * 365 * 86_400 * 10**9),
    )


def make_rate(
    prefix: str, cost_per_minute: str = "0.0600", billing_increment: int = 60, **fields: Any
) -> types.Rate:
    for name in ("effective_from", "effective_to"):
        if isinstance(fields.get(name), int):
            fields[name] = timestamp(fields[name])
    return types.Rate(
        prefix=prefix,
        cost_per_minute=cost_per_minute,
        billing_increment=billing_increment,
        **fields,
    )


def make_call(
    tenant_id: int,
    destination_number: str = "447911123456",
    duration_seconds: int | None = 60,
    **fields: Any,
) -> types.Call:
    """An answered outbound call at NOON, unless ``fields`` say otherwise. Times: nanoseconds."""
    fields.setdefault("direction", OUTBOUND)
    fields.setdefault("disposition", ANSWERED)
    fields.setdefault("started_at", NOON_NS)
    for name in ("started_at", "ended_at"):
        if isinstance(fields.get(name), int):
            fields[name] = timestamp(fields[name])
    return types.Call(
        tenant_id=tenant_id,
        destination_number=destination_number,
        duration_seconds=duration_seconds,
        **fields,
    )


def chunk(
    calls: Iterable[types.Call], offset: int = 0, upload_id: int = 0
) -> cdr_pb.UploadCdrsRequest:
    return cdr_pb.UploadCdrsRequest(upload_id=upload_id, offset=offset, calls=calls)


def outcome(rated: types.RatedCall) -> tuple[int, int, int | None, str | None]:
    """status, unrated_reason, bill_seconds, cost"""
    return (
        rated.status,
        rated.unrated_reason,
        rated.bill_seconds if rated.HasField("bill_seconds") else None,
        rated.cost if rated.HasField("cost") else None,
    )


def timestamp(ns: int) -> Timestamp:
    return Timestamp(seconds=ns // SECOND_NS, nanos=ns % SECOND_NS)


def nanoseconds(at: Timestamp) -> int:
    return at.seconds * SECOND_NS + at.nanos


@dataclass
class Refusal:
    """An error as a client sees it."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)


def refusal_of(error: grpc.RpcError) -> Refusal:
    """Reads google.rpc.Status from the trailers; fails if it is absent or disagrees with the
    code."""
    assert isinstance(error, grpc.Call)
    code = error.code()
    status = rpc_status.from_call(error)
    assert status is not None, f"no google.rpc.Status in the trailers: {code} {error.details()}"
    assert status.code == code.value[0], (status.code, code)
    assert status.message == error.details()
    refusal = Refusal(code, status.message)
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(info):
            refusal.reason = info.reason
            refusal.domain = info.domain
            refusal.metadata = dict(info.metadata)
        elif detail.Unpack(bad_request):
            for violation in bad_request.field_violations:
                refusal.violations[violation.field] = violation.description
    assert refusal.domain == "tollwire", status
    assert ErrorReason.Value(f"ERROR_REASON_{refusal.reason}") > 0
    assert refusal.message, "an error without a message"
    return refusal


@contextmanager
def refused(code: grpc.StatusCode, reason: str, *fields: str) -> Iterator[Refusal]:
    """Expects the block to be refused with this code, this reason and exactly these bad fields."""
    caught = Refusal()
    try:
        yield caught
    except grpc.RpcError as error:
        found = refusal_of(error)
        assert (found.code, found.reason) == (code, reason), found
        assert sorted(found.violations) == sorted(fields), found
        assert all(found.violations.values()), f"a violation without a description: {found}"
        caught.__dict__.update(found.__dict__)
    else:
        raise AssertionError(f"not refused; expected {code.name} {reason}")


def invalid(*fields: str) -> Any:
    """Expects INVALID_ARGUMENT, INVALID_FIELD, naming exactly these fields."""
    return refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", *fields)


def not_found(reason: str) -> Any:
    return refused(grpc.StatusCode.NOT_FOUND, reason)
