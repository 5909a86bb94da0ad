"""The requests of the permission matrix: every served method, each for somebody's objects.

The methods come from the descriptors; CASES has their requests, and a method without a case fails
the test. ``Asker`` sends them and records all that comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from tests.integration.client import make_call
from tests.integration.methods import RIGHT, Scene
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

ANSWER_SECONDS = 20
FILES = (rating_pb, cdr_pb, tenant_pb, access_pb, health_pb2, reflection_pb2)
SERVICES: list[ServiceDescriptor] = [
    service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}/{method.name}": method for service in SERVICES for method in service.methods
}


@dataclass(frozen=True)
class Things(Scene):
    """The objects of an owner, and tokens for the pages of their lists."""

    token_id: int
    rates_token: str
    cdrs_token: str

    def ids(self) -> list[int]:
        return [
            *(self.tenant_id, self.extension_id, self.rate_id, self.cdr_id),
            *(self.upload_id, self.token_id),
        ]


# The request of a method for the objects of an owner, and the objects of the caller.
Case = Callable[[Things, Things], Message]


def _token(of: Things) -> access_pb.Token:
    return access_pb.Token(
        name="made", role=access_pb.ROLE_RATER, tenant_ids=[of.tenant_id], every_tenant=False
    )


def _rate(own: Things, of: Things) -> Message:
    rate = types.Rate(id=own.rate_id, tenant_id=of.tenant_id, prefix="44")
    return rating_pb.UpdateRateRequest(rate=rate, update_mask={"paths": ["prefix"]})


def _extension(own: Things, of: Things) -> Message:
    extension = types.Extension(id=own.extension_id, tenant_id=of.tenant_id, number="101")
    return tenant_pb.UpdateExtensionRequest(extension=extension)


def _reflected(own: Things, of: Things) -> Message:
    return reflection_pb2.ServerReflectionRequest(list_services="")


# In addition to those of RIGHT: other fields that can name somebody's objects.
MORE: dict[str, list[Case]] = {
    "RatingService/RateCall": [
        lambda own, of: rating_pb.RateCallRequest(call=make_call(of.tenant_id)),
        lambda own, of: rating_pb.RateCallRequest(
            call=make_call(of.tenant_id), min_rate_revision=1
        ),
    ],
    "RatingService/BatchRateCalls": [
        lambda own, of: rating_pb.BatchRateCallsRequest(
            calls=[make_call(own.tenant_id), make_call(of.tenant_id)], min_rate_revision=1
        ),
    ],
    "RatingService/ListRates": [
        lambda own, of: rating_pb.ListRatesRequest(),
        lambda own, of: rating_pb.ListRatesRequest(page_size=1, page_token=of.rates_token),
    ],
    "RatingService/UpdateRate": [_rate],
    "CdrService/CreateCdr": [
        lambda own, of: cdr_pb.CreateCdrRequest(
            call=make_call(own.tenant_id, extension_id=of.extension_id, call_id="of another")
        ),
        lambda own, of: cdr_pb.CreateCdrRequest(call=make_call(of.tenant_id, call_id="first")),
    ],
    "CdrService/ExplainCdr": [
        lambda own, of: cdr_pb.ExplainCdrRequest(id=of.cdr_id),
        lambda own, of: cdr_pb.ExplainCdrRequest(id=of.cdr_id, tenant_id=own.tenant_id),
        lambda own, of: cdr_pb.ExplainCdrRequest(id=of.cdr_id, tenant_id=of.tenant_id),
    ],
    "CdrService/ListCdrs": [
        lambda own, of: cdr_pb.ListCdrsRequest(),
        lambda own, of: cdr_pb.ListCdrsRequest(extension_id=of.extension_id),
        lambda own, of: cdr_pb.ListCdrsRequest(page_size=1, page_token=of.cdrs_token),
    ],
    "CdrService/UploadCdrs": [
        lambda own, of: cdr_pb.UploadCdrsRequest(upload_id=of.upload_id, offset=of.upload_offset),
        lambda own, of: cdr_pb.UploadCdrsRequest(upload_id=of.upload_id, offset=10**6),
    ],
    "CdrService/ExportCdrs": [lambda own, of: cdr_pb.ExportCdrsRequest()],
    "CdrService/WatchCdrs": [
        lambda own, of: cdr_pb.WatchCdrsRequest(),
        lambda own, of: cdr_pb.WatchCdrsRequest(tenant_id=of.tenant_id),
    ],
    "CdrService/SummarizeUsage": [
        lambda own, of: cdr_pb.SummarizeUsageRequest(group_by=[types.USAGE_DIMENSION_TENANT]),
        lambda own, of: cdr_pb.SummarizeUsageRequest(tenant_id=of.tenant_id),
    ],
    "CdrService/VerifyCdrs": [
        lambda own, of: cdr_pb.VerifyCdrsRequest(tenant_id=of.tenant_id),
        lambda own, of: cdr_pb.VerifyCdrsRequest(upload_id=of.upload_id),
    ],
    "CdrService/ListReversals": [
        lambda own, of: cdr_pb.ListReversalsRequest(),
        lambda own, of: cdr_pb.ListReversalsRequest(tenant_id=of.tenant_id),
        lambda own, of: cdr_pb.ListReversalsRequest(upload_id=of.upload_id),
    ],
    "CdrService/ReverseCdrs": [
        lambda own, of: cdr_pb.ReverseCdrsRequest(tenant_id=of.tenant_id, dry_run=True),
        lambda own, of: cdr_pb.ReverseCdrsRequest(ids=[own.cdr_id, of.cdr_id], dry_run=True),
        lambda own, of: cdr_pb.ReverseCdrsRequest(upload_id=of.upload_id, dry_run=True),
        lambda own, of: cdr_pb.ReverseCdrsRequest(
            tenant_id=own.tenant_id, extension_id=of.extension_id, dry_run=True
        ),
    ],
    "CdrService/RateUnrated": [lambda own, of: cdr_pb.RateUnratedRequest()],
    "TenantService/ListExtensions": [lambda own, of: tenant_pb.ListExtensionsRequest()],
    "TenantService/CreateExtension": [
        lambda own, of: tenant_pb.CreateExtensionRequest(
            extension=types.Extension(id=of.extension_id, tenant_id=own.tenant_id, number="1")
        )
    ],
    "TenantService/UpdateExtension": [_extension],
    "AccessService/CreateToken": [
        lambda own, of: access_pb.CreateTokenRequest(token=_token(of)),
        lambda own, of: access_pb.CreateTokenRequest(
            token=access_pb.Token(
                name="two", role=access_pb.ROLE_RATER, tenant_ids=[own.tenant_id, of.tenant_id]
            )
        ),
    ],
    "AccessService/GetToken": [lambda own, of: access_pb.GetTokenRequest(id=of.token_id)],
    "AccessService/ListTokens": [
        lambda own, of: access_pb.ListTokensRequest(include_revoked=True, page_size=1000)
    ],
    "AccessService/RevokeToken": [lambda own, of: access_pb.RevokeTokenRequest(id=of.token_id)],
    "AccessService/ListAuditEntries": [
        lambda own, of: access_pb.ListAuditEntriesRequest(),
        lambda own, of: access_pb.ListAuditEntriesRequest(tenant_id=of.tenant_id),
    ],
    "Health/Check": [lambda own, of: health_pb2.HealthCheckRequest()],
    "Health/List": [lambda own, of: health_pb2.HealthListRequest()],
    "Health/Watch": [lambda own, of: health_pb2.HealthCheckRequest()],
    "ServerReflection/ServerReflectionInfo": [_reflected],
}


def cases(method: str) -> list[Case]:
    """All requests of the method. Raises an error for a method without a case."""
    right = RIGHT.get(method.partition("/")[2])
    found: list[Case] = []
    if right is not None and METHODS[method].containing_service.file.package == "tollwire.v1":
        found.append(lambda own, of: right(of))
    found += MORE.get(method, [])
    assert found, f"the permission matrix has no case for {method}"
    return found


@dataclass(frozen=True)
class Answer:
    """A response: the code, the reason, and the rest as text."""

    code: grpc.StatusCode
    reason: str
    text: str

    def about(self, things: Things) -> tuple[grpc.StatusCode, str, str]:
        """The same for the objects of any owner: without their ids.

        A response about one's own objects may have the small ids as other numbers.
        """
        text = self.text
        is_refused = self.code != grpc.StatusCode.OK
        for one in things.ids() if is_refused else [things.tenant_id, things.extension_id]:
            text = re.sub(rf"\b{one}\b", "ID", text)
        return self.code, self.reason, text


class Asker:
    """Sends requests to one server, and counts them."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.asked = 0

    def ask(self, method: str, request: Message, token: str | None) -> Answer:
        self.asked += 1
        try:
            return Answer(grpc.StatusCode.OK, "", "\n".join(self._answers(method, request, token)))
        except grpc.RpcError as error:
            return _refusal(error)

    def message(self, method: str, request: Message, token: str) -> Message:
        """The first response, for the preparation of a test."""
        return next(self.messages(method, request, token))

    def messages(self, method: str, request: Message, token: str | None) -> Iterator[Message]:
        described = METHODS[method]
        path = f"/{described.containing_service.full_name}/{described.name}"
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        options = {"metadata": metadata, "timeout": ANSWER_SECONDS}
        sent = request.SerializeToString()
        read = GetMessageClass(described.output_type).FromString
        given = iter([sent]) if described.client_streaming else sent
        if not described.server_streaming:
            single = (
                self._channel.stream_unary
                if described.client_streaming
                else self._channel.unary_unary
            )
            yield read(single(path)(given, **options))
            return
        many = (
            self._channel.stream_stream
            if described.client_streaming
            else self._channel.unary_stream
        )
        call = many(path)(given, **options)
        for answer in call:
            yield read(answer)
            if method == "Health/Watch":  # it does not end by itself
                call.cancel()
                return

    def _answers(self, method: str, request: Message, token: str | None) -> Iterator[str]:
        for answer in self.messages(method, request, token):
            # A new upload has a new id each time.
            if isinstance(answer, cdr_pb.UploadCdrsResponse):
                answer.upload_id = 0
            yield str(answer)


def _refusal(error: grpc.RpcError) -> Answer:
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None, f"no google.rpc.Status: {error.code()} {error.details()}"
    texts = [status.message]
    reason = ""
    for detail in status.details:
        kinds: Sequence[type[Message]] = (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
            rating_pb.Explanation,
        )
        [message] = (kind() for kind in kinds if detail.Is(kind.DESCRIPTOR))
        detail.Unpack(message)
        texts.append(str(message))
        if isinstance(message, error_details_pb2.ErrorInfo):
            reason = message.reason
    return Answer(error.code(), reason, "\n".join(texts))
