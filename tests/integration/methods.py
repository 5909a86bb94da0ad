"""Every method of the contract according to its descriptor, each with a correct request.

The bad-input tests start from these requests and break them in one place at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.integration.client import (
    NOON_NS,
    Client,
    chunk,
    make_call,
    make_rate,
    make_token,
    timestamp,
)
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

SERVICES = [
    rating_pb.DESCRIPTOR.services_by_name["RatingService"],
    cdr_pb.DESCRIPTOR.services_by_name["CdrService"],
    tenant_pb.DESCRIPTOR.services_by_name["TenantService"],
    access_pb.DESCRIPTOR.services_by_name["AccessService"],
]
METHODS: dict[str, MethodDescriptor] = {
    method.name: method for service in SERVICES for method in service.methods
}


@dataclass(frozen=True)
class Scene:
    """The objects that a correct request refers to."""

    tenant_id: int
    extension_id: int
    rate_id: int
    cdr_id: int
    upload_id: int
    upload_offset: int
    token_id: int


def set_scene(client: Client) -> Scene:
    tenant = client.new_tenant()
    extension = client.new_extension(tenant.id)
    rate = client.new_rate(tenant.id, "44", "0.0200", 6)
    [upload] = client.upload(chunk([make_call(tenant.id, call_id="first")]))
    return Scene(
        tenant.id,
        extension.id,
        rate.id,
        client.list_cdrs(tenant_id=tenant.id)[0].id,
        upload.upload_id,
        upload.committed_offset,
        client.new_token(tenant.id).id,
    )


def full_call(scene: Scene) -> types.Call:
    return make_call(
        scene.tenant_id,
        "447911123456",
        63,
        extension_id=scene.extension_id,
        caller_number="101",
        ended_at=NOON_NS + 63_000_000_000,
        call_id="full",
    )


def full_rate(scene: Scene, prefix: str) -> types.Rate:
    rate = make_rate(
        prefix,
        "0.1000",
        6,
        tenant_id=scene.tenant_id,
        destination="Somewhere",
        connect_fee="0.0100",
        minimum_seconds=1,
        effective_from=NOON_NS,
        effective_to=NOON_NS + 1,
        intervals=[types.Interval(start_seconds=60, cost_per_minute="0.0500", billing_increment=1)],
    )
    for name in ("created_at", "updated_at"):
        getattr(rate, name).CopyFrom(timestamp(NOON_NS))
    return rate


def full_tenant() -> types.Tenant:
    return types.Tenant(
        name="Acme",
        currency="USD",
        rounding=types.ROUNDING_UP,
        country_code="44",
        national_prefix="0",
        international_prefix="00",
        created_at=timestamp(NOON_NS),
    )


def _window() -> dict[str, Any]:
    return {"started_after": timestamp(NOON_NS), "started_before": timestamp(NOON_NS + 1)}


def _why() -> dict[str, str]:
    return {"reason": "the switch was in test", "requested_by": "anna@noc"}


def _cdr_filters(scene: Scene) -> dict[str, Any]:
    return {
        "tenant_id": scene.tenant_id,
        "search": "44",
        "extension_id": scene.extension_id,
        "status": types.RATING_STATUS_UNRATED,
        "unrated_reason": types.UNRATED_REASON_NO_RATE,
        "call_id": "first",
        "direction": types.DIRECTION_OUTBOUND,
        "disposition": types.DISPOSITION_ANSWERED,
        "reversed": False,
        "rate_id": scene.rate_id,
        "matched_prefix": "44",
        "upload_id": scene.upload_id,
        **_window(),
    }


def _update_tenant(scene: Scene) -> Message:
    request = tenant_pb.UpdateTenantRequest(tenant=full_tenant())
    request.tenant.id = scene.tenant_id
    return request


def _update_rate(scene: Scene) -> Message:
    rate = full_rate(scene, "44")
    rate.id = scene.rate_id
    return rating_pb.UpdateRateRequest(rate=rate)


def _extension(scene: Scene, **fields: Any) -> types.Extension:
    return types.Extension(tenant_id=scene.tenant_id, number="101", name="Desk", **fields)


def _import(scene: Scene) -> Message:
    return rating_pb.ImportRatesRequest(
        tenant_id=scene.tenant_id,
        mode=types.IMPORT_MODE_MERGE,
        dry_run=True,
        rates=[full_rate(scene, "45")],
    )


RIGHT: dict[str, Callable[[Scene], Message]] = {
    "RateCall": lambda s: rating_pb.RateCallRequest(call=full_call(s), explain=True),
    "BatchRateCalls": lambda s: rating_pb.BatchRateCallsRequest(calls=[full_call(s)]),
    "StreamRateCalls": lambda s: rating_pb.StreamRateCallsRequest(calls=[full_call(s)]),
    "CreateRate": lambda s: rating_pb.CreateRateRequest(rate=full_rate(s, "46")),
    "GetRate": lambda s: rating_pb.GetRateRequest(id=s.rate_id),
    "ListRates": lambda s: rating_pb.ListRatesRequest(tenant_id=s.tenant_id, search="4"),
    "UpdateRate": _update_rate,
    "DeleteRate": lambda s: rating_pb.DeleteRateRequest(id=s.rate_id, etag="v0"),
    "ImportRates": _import,
    "ExportRates": lambda s: rating_pb.ExportRatesRequest(tenant_id=s.tenant_id),
    "CreateCdr": lambda s: cdr_pb.CreateCdrRequest(call=full_call(s)),
    "GetCdr": lambda s: cdr_pb.GetCdrRequest(id=s.cdr_id),
    "ExplainCdr": lambda s: cdr_pb.ExplainCdrRequest(tenant_id=s.tenant_id, call_id="first"),
    "ListCdrs": lambda s: cdr_pb.ListCdrsRequest(**_cdr_filters(s)),
    "UploadCdrs": lambda s: cdr_pb.UploadCdrsRequest(
        calls=[full_call(s)],
        control_totals=cdr_pb.ControlTotals(calls=1, duration_seconds=63),
    ),
    "GetUpload": lambda s: cdr_pb.GetUploadRequest(upload_id=s.upload_id),
    "ListUploads": lambda s: cdr_pb.ListUploadsRequest(page_size=10),
    "ListUploadFailures": lambda s: cdr_pb.ListUploadFailuresRequest(
        upload_id=s.upload_id, reason="INVALID_FIELD"
    ),
    "RateUnrated": lambda s: cdr_pb.RateUnratedRequest(tenant_id=s.tenant_id, **_window()),
    "VerifyCdrs": lambda s: cdr_pb.VerifyCdrsRequest(
        tenant_id=s.tenant_id, upload_id=s.upload_id, **_window()
    ),
    "ExportCdrs": lambda s: cdr_pb.ExportCdrsRequest(**_cdr_filters(s)),
    "WatchCdrs": lambda s: cdr_pb.WatchCdrsRequest(tenant_id=s.tenant_id),
    "SummarizeUsage": lambda s: cdr_pb.SummarizeUsageRequest(
        tenant_id=s.tenant_id,
        group_by=[types.USAGE_DIMENSION_DAY],
        time_zone="Europe/Berlin",
        **_window(),
    ),
    "ReverseCdr": lambda s: cdr_pb.ReverseCdrRequest(id=s.cdr_id, **_why()),
    "ReverseCdrs": lambda s: cdr_pb.ReverseCdrsRequest(
        tenant_id=s.tenant_id,
        ids=[s.cdr_id],
        call_ids=["first"],
        upload_id=s.upload_id,
        extension_id=s.extension_id,
        direction=types.DIRECTION_OUTBOUND,
        disposition=types.DISPOSITION_ANSWERED,
        status=types.RATING_STATUS_UNRATED,
        unrated_reason=types.UNRATED_REASON_NO_RATE,
        rate_id=s.rate_id,
        matched_prefix="44",
        **_window(),
        **_why(),
    ),
    "ReverseUpload": lambda s: cdr_pb.ReverseUploadRequest(upload_id=s.upload_id, **_why()),
    "ListReversals": lambda s: cdr_pb.ListReversalsRequest(
        tenant_id=s.tenant_id,
        upload_id=s.upload_id,
        created_after=timestamp(NOON_NS),
        created_before=timestamp(NOON_NS + 1),
    ),
    "GetLedgerRoot": lambda s: cdr_pb.GetLedgerRootRequest(),
    "VerifyLedger": lambda s: cdr_pb.VerifyLedgerRequest(),
    "CreateTenant": lambda s: tenant_pb.CreateTenantRequest(tenant=full_tenant()),
    "GetTenant": lambda s: tenant_pb.GetTenantRequest(id=s.tenant_id),
    "ListTenants": lambda s: tenant_pb.ListTenantsRequest(page_size=10),
    "UpdateTenant": _update_tenant,
    "DeleteTenant": lambda s: tenant_pb.DeleteTenantRequest(id=s.tenant_id),
    "CreateExtension": lambda s: tenant_pb.CreateExtensionRequest(extension=_extension(s)),
    "GetExtension": lambda s: tenant_pb.GetExtensionRequest(id=s.extension_id),
    "ListExtensions": lambda s: tenant_pb.ListExtensionsRequest(tenant_id=s.tenant_id),
    "UpdateExtension": lambda s: tenant_pb.UpdateExtensionRequest(
        extension=_extension(s, id=s.extension_id)
    ),
    "DeleteExtension": lambda s: tenant_pb.DeleteExtensionRequest(id=s.extension_id),
    "CreateToken": lambda s: access_pb.CreateTokenRequest(token=make_token(s.tenant_id)),
    "GetToken": lambda s: access_pb.GetTokenRequest(id=s.token_id),
    "ListTokens": lambda s: access_pb.ListTokensRequest(page_size=10, include_revoked=True),
    "RevokeToken": lambda s: access_pb.RevokeTokenRequest(id=s.token_id),
    "ListAuditEntries": lambda s: access_pb.ListAuditEntriesRequest(
        tenant_id=s.tenant_id,
        action="CreateRate",
        created_after=timestamp(NOON_NS),
        created_before=timestamp(NOON_NS + 1),
    ),
}


def send(client: Client, name: str, *requests: Message | bytes) -> list[Any]:
    """The responses to messages or raw bytes, or grpc.RpcError."""
    method = METHODS[name]
    path = f"/{method.containing_service.full_name}/{name}"

    def serialize(request: Message | bytes) -> bytes:
        return request if isinstance(request, bytes) else request.SerializeToString()

    arguments: dict[str, Any] = {
        "request_serializer": serialize,
        "response_deserializer": GetMessageClass(method.output_type).FromString,
    }
    channel: grpc.Channel = client.channel
    given: Any = iter(requests) if method.client_streaming else requests[0]
    if method.server_streaming:
        make = channel.stream_stream if method.client_streaming else channel.unary_stream
        stream = make(path, **arguments)(given)
        answers = []
        for answer in stream:
            answers.append(answer)
            # With follow, WatchCdrs does not end by itself.
            if name == "WatchCdrs" and answer.caught_up:
                stream.cancel()
                break
        return answers
    single = channel.stream_unary if method.client_streaming else channel.unary_unary
    return [single(path, **arguments)(given)]
