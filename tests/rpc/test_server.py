"""A whole server: every method of every service, with valid, damaged and random requests."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rpc.conftest import WholeServer
from tests.rpc.running import DEADLINE_SECONDS, connected, read_refusal, refusal
from tollwire.service.rpc import streams
from tollwire.service.rpc.capacity import SMALL_BYTES
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import cdr_service_pb2_grpc as cdr_grpc
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import rating_service_pb2_grpc as rating_grpc
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import tenant_service_pb2_grpc as tenant_grpc
from tollwire.v1 import types_pb2

OWN = [
    file.services_by_name[name]
    for file, name in (
        (rating_pb.DESCRIPTOR, "RatingService"),
        (cdr_pb.DESCRIPTOR, "CdrService"),
        (tenant_pb.DESCRIPTOR, "TenantService"),
        (access_pb.DESCRIPTOR, "AccessService"),
    )
]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

METHODS = {
    method.full_name: method for service in [*OWN, HEALTH, REFLECTION] for method in service.methods
}
OWN_METHODS = {method.full_name: method for service in OWN for method in service.methods}
NAMES = [service.full_name for service in OWN]
# Streams that stay open (WatchCdrs where it follows); the first response comes at once.
ENDLESS = ("grpc.health.v1.Health.Watch", "tollwire.v1.CdrService.WatchCdrs")


def send(
    channel: grpc.Channel, method: MethodDescriptor, *requests: bytes, service: str = ""
) -> list[bytes]:
    """All the responses to these requests, as bytes; ends a stream that the server leaves open."""
    path = f"/{service or method.containing_service.full_name}/{method.name}"
    kind: Any = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    argument = iter(requests) if method.client_streaming else requests[0]
    answer = kind(path)(argument, timeout=DEADLINE_SECONDS)
    if not method.server_streaming:
        return [answer]
    if method.full_name in ENDLESS:
        first = next(answer)
        answer.cancel()
        return [first]
    return list(answer)


DAMAGED = {
    "an unterminated tag": b"\xff",
    "a truncated field": b"\x0a\x05ab",
    "a group that is not closed": b"\x0b",
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", METHODS)
def test_a_damaged_request_is_malformed(
    whole: WholeServer, caplog: pytest.LogCaptureFixture, name: str, damaged: bytes
) -> None:
    found = refusal(lambda: send(whole.channel, METHODS[name], damaged))
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (found.domain, found.reason) == ("tollwire", "MALFORMED_REQUEST")
    assert caplog.records == []


@pytest.mark.parametrize(
    "name", [n for n, method in METHODS.items() if not method.client_streaming]
)
def test_an_rpc_without_its_message_is_malformed(whole: WholeServer, name: str) -> None:
    method = METHODS[name]
    path = f"/{method.containing_service.full_name}/{method.name}"
    silent = whole.channel.stream_stream(path)(iter(()), timeout=DEADLINE_SECONDS)
    if whole.transport == "native" and not method.server_streaming:
        # The front answers by itself.
        with pytest.raises(grpc.RpcError) as raised:
            next(silent)
        assert raised.value.code() is grpc.StatusCode.INTERNAL
        return
    found = refusal(lambda: next(silent))
    assert (found.code.name, found.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if method.client_streaming]
)
def test_a_damaged_message_in_the_middle_of_a_stream(whole: WholeServer, name: str) -> None:
    first = b""
    if name.endswith("ImportRates"):
        tenant = tenant_grpc.TenantServiceStub(whole.channel).CreateTenant(
            tenant_pb.CreateTenantRequest(tenant=types_pb2.Tenant(name="x"))
        )
        first = rating_pb.ImportRatesRequest(
            tenant_id=tenant.id, mode=types_pb2.IMPORT_MODE_MERGE
        ).SerializeToString()
    found = refusal(lambda: send(whole.channel, METHODS[name], first, b"\xff"))
    assert found.reason == "MALFORMED_REQUEST"


def test_a_string_that_is_not_utf_8_is_malformed(whole: WholeServer) -> None:
    request = rating_pb.ListRatesRequest(search="?").SerializeToString().replace(b"?", b"\xe9")
    method = OWN_METHODS["tollwire.v1.RatingService.ListRates"]
    assert refusal(lambda: send(whole.channel, method, request)).reason == "MALFORMED_REQUEST"


TEXTS = ["", "a", "\0", "44", "+", "é" * 300, "x" * 70_000, "*", "v1", "%_\\", "\u202e"]
INTEGERS = [0, 1, -1, 2, 50, 2**31 - 1, -(2**31)]
LARGE_INTEGERS = [*INTEGERS, 2**31, 2**63 - 1, -(2**63), 253_402_300_799, 10_000]


def odd_values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return odd_messages(field.message_type, depth - 1)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([0, 1, 2, 3, 99, -1])
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.sampled_from(TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=3)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_INT64:
        return st.sampled_from(LARGE_INTEGERS)
    return st.sampled_from(INTEGERS)


@st.composite
def odd_messages(draw: st.DrawFn, kind: Descriptor, depth: int = 3) -> Message:
    """Messages of a kind, with any fields set to values near and beyond their limits."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if depth == 0 and field.type == FieldDescriptor.TYPE_MESSAGE:
            continue
        if field.is_repeated:
            values = draw(st.lists(odd_values(field, depth), max_size=2))
            getattr(message, field.name).extend(values)
        elif draw(st.booleans()):
            value = draw(odd_values(field, depth))
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                getattr(message, field.name).CopyFrom(value)
            else:
                setattr(message, field.name, value)
    return message


@pytest.fixture(scope="module")
def populated(whole: WholeServer) -> WholeServer:
    """With tenants 1 and 2, and rates and extensions with low ids, which random requests can
    match."""
    tenants = tenant_grpc.TenantServiceStub(whole.channel)
    rating = rating_grpc.RatingServiceStub(whole.channel)
    for tenant_id in (1, 2):
        tenant = types_pb2.Tenant(id=tenant_id, name="x", national_prefix="0", country_code="4")
        try:
            tenants.CreateTenant(tenant_pb.CreateTenantRequest(tenant=tenant))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS
        for number in ("1", "44"):
            extension = types_pb2.Extension(tenant_id=tenant_id, number=number)
            tenants.CreateExtension(tenant_pb.CreateExtensionRequest(extension=extension))
            rate = types_pb2.Rate(
                tenant_id=tenant_id, prefix=number, cost_per_minute="1", billing_increment=1
            )
            rating.CreateRate(rating_pb.CreateRateRequest(rate=rate))
    return whole


@pytest.mark.parametrize("name", METHODS)
def test_no_request_makes_the_server_fail(
    populated: WholeServer, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    method = METHODS[name]

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(odd_messages(method.input_type), min_size=1, max_size=2))
    def try_them(requests: list[Message]) -> None:
        try:
            send(populated.channel, method, *(each.SerializeToString() for each in requests))
        except grpc.RpcError as error:
            assert error.code() not in (
                *(grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL),
                *(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED),
            ), f"{error.code()} {error.details()} for {requests}"

    try_them()
    assert [line for line in caplog.records if line.levelno >= logging.ERROR] == []


ID_REQUESTS = [
    ("RatingService.GetRate", rating_pb.GetRateRequest, "id"),
    ("RatingService.DeleteRate", rating_pb.DeleteRateRequest, "id"),
    ("RatingService.ExportRates", rating_pb.ExportRatesRequest, "tenant_id"),
    ("CdrService.GetCdr", cdr_pb.GetCdrRequest, "id"),
    ("CdrService.GetUpload", cdr_pb.GetUploadRequest, "upload_id"),
    ("TenantService.GetTenant", tenant_pb.GetTenantRequest, "id"),
    ("TenantService.DeleteTenant", tenant_pb.DeleteTenantRequest, "id"),
    ("TenantService.GetExtension", tenant_pb.GetExtensionRequest, "id"),
    ("TenantService.DeleteExtension", tenant_pb.DeleteExtensionRequest, "id"),
]


@pytest.mark.parametrize(
    ("name", "kind", "field"), ID_REQUESTS, ids=[row[0] for row in ID_REQUESTS]
)
@pytest.mark.parametrize("given_id", [0, -1, -(2**63)])
def test_an_id_is_required(
    whole: WholeServer, name: str, kind: type[Message], field: str, given_id: int
) -> None:
    request = kind(**{field: given_id}).SerializeToString()
    found = refusal(lambda: send(whole.channel, OWN_METHODS[f"tollwire.v1.{name}"], request))
    assert (found.code.name, found.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert found.fields == [field]


LARGE = {
    "RatingService/BatchRateCalls": 8 * 2**20,
    "CdrService/ReverseCdrs": 16 * 2**20,
}


@pytest.mark.parametrize(
    "name",
    [
        "RatingService/RateCall",
        "RatingService/BatchRateCalls",
        "RatingService/ListRates",
        "RatingService/ExportRates",
        "CdrService/CreateCdr",
        "CdrService/ReverseCdrs",
        "TenantService/GetTenant",
    ],
)
def test_a_message_may_have_the_size_of_its_method_and_no_more(
    whole: WholeServer, name: str
) -> None:
    most = LARGE.get(name, SMALL_BYTES)
    ask = whole.channel.unary_stream(f"/tollwire.v1.{name}")

    def send(size: int) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as refused:
            list(ask(b"\xff" * size, timeout=DEADLINE_SECONDS))
        return refused.value.code()

    assert send(most) is grpc.StatusCode.INVALID_ARGUMENT
    assert send(most + 1) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["RatingService/RateCall", "RatingService/StreamRateCalls"])
@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_not_unpacked(
    whole: WholeServer, name: str, algorithm: grpc.Compression
) -> None:
    ask = whole.channel.stream_stream(f"/tollwire.v1.{name}")
    call = ask(iter([bytes(1000)]), compression=algorithm, timeout=DEADLINE_SECONDS)
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    unary_on_native = whole.transport == "native" and name.endswith("/RateCall")
    if unary_on_native and algorithm is grpc.Compression.Gzip:
        # The library of the native transport has no option for this.
        assert read_refusal(raised.value).reason == "MALFORMED_REQUEST"
    else:
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_metadata_above_8_kib_is_refused(whole: WholeServer) -> None:
    """By the same limit on both transports, which answer with statuses of their own."""
    check = whole.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", metadata=[("x-much", "x" * 7_000)], timeout=DEADLINE_SECONDS)
    with pytest.raises(grpc.RpcError) as raised:
        check(b"", metadata=[("x-much", "x" * 8_000)], timeout=DEADLINE_SECONDS)
    refused = {"grpcio": grpc.StatusCode.RESOURCE_EXHAUSTED, "native": grpc.StatusCode.UNKNOWN}
    assert raised.value.code() is refused[whole.transport]


def test_too_many_calls_in_a_message(whole: WholeServer) -> None:
    request = rating_pb.BatchRateCallsRequest(calls=[types_pb2.Call()] * 10_001).SerializeToString()
    for name in (
        *("RatingService.BatchRateCalls", "RatingService.StreamRateCalls"),
        "CdrService.UploadCdrs",
    ):
        method = OWN_METHODS[f"tollwire.v1.{name}"]
        message = request
        if name == "CdrService.UploadCdrs":
            message = cdr_pb.UploadCdrsRequest(
                calls=[types_pb2.Call()] * 10_001
            ).SerializeToString()
        found = refusal(lambda method=method, message=message: send(whole.channel, method, message))
        assert (found.code.name, found.fields) == ("INVALID_ARGUMENT", ["calls"])


def test_an_unknown_method_is_unimplemented(whole: WholeServer) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        whole.channel.unary_unary("/tollwire.v1.RatingService/Guess")(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "service", ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"]
)
def test_reflection_lists_all_services(whole: WholeServer, service: str) -> None:
    (method,) = REFLECTION.methods
    ask_list = reflection_pb2.ServerReflectionRequest(list_services="")
    ask_file = reflection_pb2.ServerReflectionRequest(file_containing_symbol=NAMES[0])
    answers = [
        reflection_pb2.ServerReflectionResponse.FromString(answer)
        for answer in send(
            whole.channel,
            method,
            *(ask_list.SerializeToString(), ask_file.SerializeToString()),
            service=service,
        )
    ]
    listed = [each.name for each in answers[0].list_services_response.service]
    assert listed == sorted([*NAMES, HEALTH.full_name, REFLECTION.full_name])
    assert len(answers[1].file_descriptor_response.file_descriptor_proto) >= 5


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("tollwire.v1.RatingService.RateCall", "tollwire/v1/rating_service.proto"),
        ("tollwire.v1.CdrService", "tollwire/v1/cdr_service.proto"),
        ("tollwire.v1.Call", "tollwire/v1/types.proto"),
        ("tollwire.v1.RatingService.Guess", None),
        ("tollwire.v1.Guess.RateCall", None),
        ("Guess", None),
        ("", None),
    ],
)
def test_reflection_finds_methods_as_well(
    whole: WholeServer, symbol: str, file: str | None
) -> None:
    (method,) = REFLECTION.methods
    ask = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
    (data,) = send(whole.channel, method, ask.SerializeToString(), service=REFLECTION.full_name)
    answer = reflection_pb2.ServerReflectionResponse.FromString(data)
    found = answer.file_descriptor_response.file_descriptor_proto
    assert answer.error_response.error_code == (0 if file else grpc.StatusCode.NOT_FOUND.value[0])
    files = map(descriptor_pb2.FileDescriptorProto.FromString, found)
    assert (file in {one.name for one in files}) is bool(file)


def check(channel: grpc.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service)).status


SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("service", ["", *NAMES])
def test_health(whole: WholeServer, service: str) -> None:
    assert check(whole.channel, service) == SERVING


def test_health_of_all_at_once(whole: WholeServer) -> None:
    stub = health_pb2_grpc.HealthStub(whole.channel)
    statuses = stub.List(health_pb2.HealthListRequest()).statuses
    assert {name: each.status for name, each in statuses.items()} == dict.fromkeys(
        ["", *NAMES], SERVING
    )


def test_health_of_an_unknown_service(whole: WholeServer) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        check(whole.channel, "tollwire.v1.Other")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    with connected(whole.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="other"), timeout=DEADLINE_SECONDS
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def outbound(tenant_id: int, number: str, seconds: int, **fields: Any) -> types_pb2.Call:
    return types_pb2.Call(
        tenant_id=tenant_id,
        destination_number=number,
        direction=types_pb2.DIRECTION_OUTBOUND,
        disposition=types_pb2.DISPOSITION_ANSWERED,
        duration_seconds=seconds,
        **fields,
    )


def test_a_deck_with_a_count_needs_no_check_of_its_end(
    whole: WholeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the stream is certain without another check of the client."""
    monkeypatch.setattr(streams, "SETTLE_SLICE_SECONDS", 10 * DEADLINE_SECONDS)
    tenant = tenant_grpc.TenantServiceStub(whole.channel).CreateTenant(
        tenant_pb.CreateTenantRequest(tenant=types_pb2.Tenant(name="x"))
    )
    request = rating_pb.ImportRatesRequest(
        tenant_id=tenant.id,
        mode=types_pb2.IMPORT_MODE_MERGE,
        rates=[types_pb2.Rate(prefix="1", cost_per_minute="1", billing_increment=1)],
        rate_count=1,
    )
    rating = rating_grpc.RatingServiceStub(whole.channel)
    assert rating.ImportRates(iter([request]), timeout=DEADLINE_SECONDS).created == 1


def test_from_a_tenant_to_a_summary(whole: WholeServer) -> None:
    """A tenant, a deck, calls rated in every way, recorded in every way, found and added up."""
    tenants = tenant_grpc.TenantServiceStub(whole.channel)
    rating = rating_grpc.RatingServiceStub(whole.channel)
    cdrs = cdr_grpc.CdrServiceStub(whole.channel)
    tenant = tenants.CreateTenant(
        tenant_pb.CreateTenantRequest(tenant=types_pb2.Tenant(name="A", currency="EUR"))
    )
    deck = [
        types_pb2.Rate(prefix="1", cost_per_minute="0.0120", billing_increment=60),
        types_pb2.Rate(prefix="44", cost_per_minute="0.0200", billing_increment=6),
        types_pb2.Rate(prefix="447", cost_per_minute="0.1500", billing_increment=6),
    ]
    mode = types_pb2.IMPORT_MODE_REPLACE
    outcome = rating.ImportRates(
        iter(
            [
                rating_pb.ImportRatesRequest(tenant_id=tenant.id, mode=mode, rates=deck[:1]),
                rating_pb.ImportRatesRequest(rates=deck[1:]),
            ]
        )
    )
    assert (outcome.created, outcome.rejected) == (3, 0)
    exported = rating.ExportRates(rating_pb.ExportRatesRequest(tenant_id=tenant.id))
    rates = [rate for part in exported for rate in part.rates]
    assert [rate.prefix for rate in rates] == ["1", "44", "447"]

    call = outbound(tenant.id, "+44 7911 123456", 63)
    rated = rating.RateCall(rating_pb.RateCallRequest(call=call, explain=True))
    assert (rated.rated.cost, rated.rated.bill_seconds) == ("0.1650", 66)
    assert rated.rated.matched_prefix == "447"
    assert rated.explanation.normalized_number == "447911123456"
    unknown = outbound(tenant.id, "4930123456", 10)
    found = refusal(lambda: rating.RateCall(rating_pb.RateCallRequest(call=unknown)))
    assert (found.code.name, found.reason) == ("NOT_FOUND", "NO_RATE")

    batch = [call, unknown, outbound(tenant.id, "anonymous", 1), types_pb2.Call(call_id="bad")]
    for responses in (
        [rating.BatchRateCalls(rating_pb.BatchRateCallsRequest(calls=batch))],
        rating.StreamRateCalls(iter([rating_pb.StreamRateCallsRequest(calls=batch)])),
    ):
        (response,) = responses
        assert [one.cost for one in response.rated] == ["0.1650", "", "", ""]
        assert response.rated[1].unrated_reason == types_pb2.UNRATED_REASON_NO_RATE
        assert response.rated[2].unrated_reason == types_pb2.UNRATED_REASON_INVALID_NUMBER
        assert response.rated[3].call_id == "bad"
        assert response.rated[3].error.reason == "INVALID_FIELD"

    call.started_at.FromJsonString("2026-03-02T10:00:00.123456789Z")
    call.call_id = "one"
    recorded = cdrs.CreateCdr(cdr_pb.CreateCdrRequest(call=call))
    assert cdrs.CreateCdr(cdr_pb.CreateCdrRequest(call=call)) == recorded
    assert recorded.started_at == call.started_at
    assert (recorded.cost, recorded.rate, recorded.tenant) == ("0.1650", rates[2], tenant)
    call.duration_seconds += 1
    found = refusal(lambda: cdrs.CreateCdr(cdr_pb.CreateCdrRequest(call=call)))
    assert (found.code.name, found.reason) == ("ALREADY_EXISTS", "CDR_CONFLICT")
    assert found.metadata["cdr_id"] == str(recorded.id)
    assert found.metadata["fields"] == "duration_seconds"

    chunk = [call, types_pb2.Call()]
    for index in range(3):
        chunk.append(outbound(tenant.id, "14155550123", 1, call_id=f"c{index}"))
        chunk[-1].started_at.CopyFrom(call.started_at)
    answers = list(
        cdrs.UploadCdrs(
            iter(
                [
                    cdr_pb.UploadCdrsRequest(calls=chunk),
                    cdr_pb.UploadCdrsRequest(offset=5, calls=chunk[2:]),
                ]
            )
        )
    )
    assert [answer.committed_offset for answer in answers] == [5, 8]
    assert [answer.created for answer in answers] == [3, 0]
    assert [answer.duplicates for answer in answers] == [0, 3]
    assert [failure.reason for failure in answers[0].failures] == ["CDR_CONFLICT", "INVALID_FIELD"]
    upload = cdrs.GetUpload(cdr_pb.GetUploadRequest(upload_id=answers[0].upload_id))
    assert (upload.committed_offset, upload.created) == (8, 3)
    found = refusal(
        lambda: cdrs.UploadCdrs(iter([cdr_pb.UploadCdrsRequest(offset=9, calls=chunk)]))
    )
    assert (found.code.name, found.reason) == ("OUT_OF_RANGE", "UPLOAD_GAP")

    page = cdrs.ListCdrs(cdr_pb.ListCdrsRequest(tenant_id=tenant.id, page_size=3))
    assert len(page.cdrs) == 3 and page.next_page_token
    parts = cdrs.ExportCdrs(cdr_pb.ExportCdrsRequest(tenant_id=tenant.id))
    assert sum(len(part.cdrs) for part in parts) == 4
    usage = cdrs.SummarizeUsage(
        cdr_pb.SummarizeUsageRequest(
            tenant_id=tenant.id, group_by=[types_pb2.USAGE_DIMENSION_DAY], time_zone="UTC"
        )
    )
    assert [(list(row.keys), row.calls, row.cost) for row in usage.rows] == [
        (["2026-03-02"], 4, "0.2010")
    ]
