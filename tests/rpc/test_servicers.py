"""The servicers through grpcio-testing: each method parses, calls one thing of a subject, answers.

The subjects are fakes that note how they are called. How errors reach a client is the business of
the error map and of the interceptors, which are tested on a real server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.domain.model import (
    BadCall,
    Call,
    Cdr,
    CdrFilter,
    Direction,
    Disposition,
    Explanation,
    Extension,
    ImportMode,
    ImportOutcome,
    ImportPlan,
    Page,
    Rate,
    RatedCall,
    RatingStatus,
    Reversal,
    ReversalRequest,
    Tenant,
    Token,
    UnratedReason,
    UsageDimension,
    UsageQuery,
    UsageRow,
    UsageTotals,
)
from tollwire.service.domain.record_model import (
    AuditEntry,
    AuditFilter,
    CdrDifference,
    ChunkResult,
    ExplainedCdr,
    FailedRecord,
    LedgerDifference,
    LedgerDifferenceKind,
    LedgerEntry,
    LedgerEntryKind,
    LedgerProgress,
    LedgerRoot,
    ReversalFilter,
    ReversalProgress,
    ReversedCost,
    UnratedOutcome,
    UnratedStep,
    Upload,
    UploadFailure,
    UploadReversal,
    VerificationFilter,
    VerificationProgress,
)
from tollwire.service.domain.request import Role, Scope
from tollwire.service.rating.deck_import import Intake, IntakeMemory
from tollwire.service.record.chunk_limiter import ChunkLimiter
from tollwire.service.record.feed import FeedPart
from tollwire.service.record.recording import content_of
from tollwire.service.rpc.access_service import AccessServicer
from tollwire.service.rpc.cdr_service import CdrServicer
from tollwire.service.rpc.conversion import cdrs as conversion
from tollwire.service.rpc.rating_service import RatingServicer
from tollwire.service.rpc.tenant_service import TenantServicer
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2

SERVICES = {
    file.services_by_name[name].name: file.services_by_name[name]
    for file, name in (
        (rating_pb.DESCRIPTOR, "RatingService"),
        (cdr_pb.DESCRIPTOR, "CdrService"),
        (tenant_pb.DESCRIPTOR, "TenantService"),
        (access_pb.DESCRIPTOR, "AccessService"),
    )
}

TENANT = Tenant(id=7, name="A")
EXTENSION = Extension(id=8, tenant_id=7, number="101")
RATE = Rate(id=3, tenant_id=7, prefix="44", cost_per_minute_e8=1500_0000, version_id=4)
CALL = Call(7, "447", Direction.OUTBOUND, Disposition.ANSWERED, 63, 10**18)
CALL_MESSAGE = types_pb2.Call(
    tenant_id=7,
    destination_number="447",
    direction=types_pb2.DIRECTION_OUTBOUND,
    disposition=types_pb2.DISPOSITION_ANSWERED,
    duration_seconds=63,
    started_at=Timestamp(seconds=10**9),
)
CDR = Cdr(1, CALL, TENANT, None, RatingStatus.RATED, None, 66, 1650, RATE, 5, 0, 9)
EXPLAINED = ExplainedCdr(
    cdr=CDR,
    explanation=Explanation("44", (), ()),
    differences=(CdrDifference(3, 0, "", "cost", "1", "", "no"),),
    unrated_steps=(UnratedStep(1, UnratedReason.NO_RATE, 2, UnratedReason.BLOCKED, 3),),
    ledger_entries=(LedgerEntry(LedgerEntryKind.REVERSED, 1, 2, 3, 4, 5, b"\xab", b"\xcd", 6),),
    replaces_cdr_id=8,
    replaced_by_cdr_id=9,
)
TOKEN = Token("A", Role.INGEST, Scope(frozenset({8, 7})), 5, "switch-7", 1, "Ada", 2)
TOKEN_MESSAGE = access_pb.Token(
    id=5,
    name="A",
    role=access_pb.ROLE_INGEST,
    tenant_ids=[7, 8],
    certificate_identity="switch-7",
    created_at=Timestamp(nanos=1),
    created_by="Ada",
    expires_at=Timestamp(nanos=2),
)
WHY = ReversalRequest("why", "who")
REVERSED_CDR = replace(CDR, reversal=Reversal(2, WHY, -1650, 10))


class Fake:
    """Answers each call with the next of ``answers`` and notes it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def method(*arguments: Any, **named: Any) -> Any:
            given = (*arguments, *named.values())
            self.calls.append((name, *(_taken(argument) for argument in given)))
            return self.answers.pop(0)

        return method


def _taken(argument: Any) -> Any:
    return list(argument) if isinstance(argument, Iterator) else argument


@pytest.fixture
def subject() -> Fake:
    return Fake()


@pytest.fixture
def server(subject: Fake) -> Any:
    fake: Any = subject
    return grpc_testing.server_from_dictionary(
        {
            SERVICES["RatingService"]: RatingServicer(fake, fake),
            SERVICES["CdrService"]: CdrServicer(*[fake] * 8, ChunkLimiter(1, patience_seconds=1)),
            SERVICES["TenantService"]: TenantServicer(fake),
            SERVICES["AccessService"]: AccessServicer(fake, fake),
        },
        grpc_testing.strict_real_time(),
    )


def method(path: str) -> Any:
    service, name = path.split("/")
    return SERVICES[service].methods_by_name[name]


UNARY: list[tuple[str, Any, Any, tuple[Any, ...], Any]] = [
    # method, request, what the subject answers, how it is called, response
    (
        "TenantService/CreateTenant",
        tenant_pb.CreateTenantRequest(tenant=types_pb2.Tenant(name="A")),
        TENANT,
        ("create", Tenant(name="A")),
        types_pb2.Tenant(
            id=7, name="A", currency="USD", rounding=1, created_at=Timestamp(), cost_decimals=4
        ),  # type: ignore[arg-type]
    ),
    (
        "TenantService/GetTenant",
        tenant_pb.GetTenantRequest(id=7),
        TENANT,
        ("get", 7),
        types_pb2.Tenant(
            id=7, name="A", currency="USD", rounding=1, created_at=Timestamp(), cost_decimals=4
        ),  # type: ignore[arg-type]
    ),
    (
        "TenantService/ListTenants",
        tenant_pb.ListTenantsRequest(page_size=-5, page_token="t"),
        Page([TENANT], "next"),
        ("list", -5, "t"),
        tenant_pb.ListTenantsResponse(
            tenants=[
                types_pb2.Tenant(
                    id=7,
                    name="A",
                    currency="USD",
                    rounding=1,
                    created_at=Timestamp(),
                    cost_decimals=4,
                )  # type: ignore[arg-type]
            ],
            next_page_token="next",
        ),
    ),
    (
        "TenantService/UpdateTenant",
        tenant_pb.UpdateTenantRequest(
            tenant=types_pb2.Tenant(id=7, name="B"), update_mask=FieldMask(paths=["name"])
        ),
        TENANT,
        ("update", Tenant(id=7, name="B", currency=""), frozenset({"name"})),
        None,
    ),
    (
        "TenantService/DeleteTenant",
        tenant_pb.DeleteTenantRequest(id=7),
        None,
        ("delete", 7),
        Empty(),
    ),
    (
        "TenantService/CreateExtension",
        tenant_pb.CreateExtensionRequest(extension=types_pb2.Extension(tenant_id=7, number="101")),
        EXTENSION,
        ("create_extension", Extension(tenant_id=7, number="101")),
        types_pb2.Extension(id=8, tenant_id=7, number="101"),
    ),
    (
        "TenantService/GetExtension",
        tenant_pb.GetExtensionRequest(id=8),
        EXTENSION,
        ("get_extension", 8),
        types_pb2.Extension(id=8, tenant_id=7, number="101"),
    ),
    (
        "TenantService/ListExtensions",
        tenant_pb.ListExtensionsRequest(tenant_id=7, page_size=2, page_token="t"),
        Page([EXTENSION]),
        ("list_extensions", 7, 2, "t"),
        tenant_pb.ListExtensionsResponse(
            extensions=[types_pb2.Extension(id=8, tenant_id=7, number="101")]
        ),
    ),
    (
        "TenantService/UpdateExtension",
        tenant_pb.UpdateExtensionRequest(extension=types_pb2.Extension(id=8, number="102")),
        EXTENSION,
        ("update_extension", Extension(id=8, number="102"), frozenset({"number"})),
        None,
    ),
    (
        "TenantService/DeleteExtension",
        tenant_pb.DeleteExtensionRequest(id=8),
        None,
        ("delete_extension", 8),
        Empty(),
    ),
    (
        "RatingService/CreateRate",
        rating_pb.CreateRateRequest(
            rate=types_pb2.Rate(tenant_id=7, cost_per_minute="0.15", billing_increment=6)
        ),
        RATE,
        ("create", Rate(tenant_id=7, cost_per_minute_e8=1500_0000, billing_increment=6)),
        None,
    ),
    ("RatingService/GetRate", rating_pb.GetRateRequest(id=3), RATE, ("get", 3), None),
    (
        "RatingService/ListRates",
        rating_pb.ListRatesRequest(tenant_id=7, search="s", page_size=9, page_token="t"),
        Page([RATE, RATE], "next"),
        ("list", 7, "s", 9, "t"),
        None,
    ),
    (
        "RatingService/UpdateRate",
        rating_pb.UpdateRateRequest(
            rate=types_pb2.Rate(id=3, connect_fee="1", etag="v4"),
            update_mask=FieldMask(paths=["connect_fee", "blocked"]),
        ),
        RATE,
        (
            "update",
            Rate(id=3, connect_fee_e8=10_000_0000, billing_increment=0),
            frozenset({"connect_fee_e8", "blocked"}),
            "v4",
        ),
        None,
    ),
    (
        "RatingService/DeleteRate",
        rating_pb.DeleteRateRequest(id=3, etag="v4"),
        None,
        ("delete", 3, "v4"),
        Empty(),
    ),
    (
        "CdrService/CreateCdr",
        cdr_pb.CreateCdrRequest(call=CALL_MESSAGE),
        CDR,
        ("create", CALL),
        None,
    ),
    ("CdrService/GetCdr", cdr_pb.GetCdrRequest(id=1), CDR, ("get", 1), None),
    (
        "CdrService/ListCdrs",
        cdr_pb.ListCdrsRequest(tenant_id=7, page_size=9, page_token="t"),
        Page([CDR], "next"),
        ("list", CdrFilter(tenant_id=7), 9, "t"),
        None,
    ),
    (
        "CdrService/GetUpload",
        cdr_pb.GetUploadRequest(upload_id=6),
        Upload(6, 1, 1, 0, 0, 0, 0, 7, None, None, 5, 5),
        ("get", 6),
        None,
    ),
    (
        "CdrService/ListUploads",
        cdr_pb.ListUploadsRequest(page_size=9, page_token="t"),
        Page([Upload(6, 1, 1, 0, 0, 0, 0, 7, None, None, 5, 5)], "next"),
        ("list", 9, "t"),
        None,
    ),
    (
        "CdrService/ListUploadFailures",
        cdr_pb.ListUploadFailuresRequest(
            upload_id=6, reason="INVALID_FIELD", page_size=9, page_token="t"
        ),
        Page(
            [
                FailedRecord(
                    UploadFailure(3, "a", "INVALID_FIELD", "no"),
                    CALL_MESSAGE.SerializeToString(),
                    5,
                )
            ],
            "next",
        ),
        ("list_failures", 6, "INVALID_FIELD", 9, "t"),
        cdr_pb.ListUploadFailuresResponse(
            failures=[
                cdr_pb.FailedRecord(
                    index=3,
                    call_id="a",
                    reason="INVALID_FIELD",
                    message="no",
                    call=CALL_MESSAGE,
                    created_at=Timestamp(nanos=5),
                )
            ],
            next_page_token="next",
        ),
    ),
    (
        "CdrService/RateUnrated",
        cdr_pb.RateUnratedRequest(tenant_id=7, started_after=Timestamp(nanos=1)),
        UnratedOutcome(3, 2, 1),
        ("rate_unrated", 7, 1, None),
        cdr_pb.RateUnratedResponse(examined=3, rated=2, still_unrated=1),
    ),
    (
        "CdrService/SummarizeUsage",
        cdr_pb.SummarizeUsageRequest(group_by=[types_pb2.USAGE_DIMENSION_DAY]),
        [UsageRow(("2026-01-01",), "USD", UsageTotals(1, 1, 63, 66, 1650, 0), UsageTotals())],
        ("summarize", UsageQuery(group_by=(UsageDimension.DAY,))),
        None,
    ),
    (
        "CdrService/ExplainCdr",
        cdr_pb.ExplainCdrRequest(id=3, tenant_id=7, call_id="a"),
        EXPLAINED,
        ("explain_cdr", 3, 7, "a"),
        cdr_pb.ExplainCdrResponse(
            cdr=conversion.cdr(CDR),
            explanation=rating_pb.Explanation(normalized_number="44"),
            differences=[cdr_pb.CdrDifference(cdr_id=3, field="cost", stored="1", message="no")],
            unrated_steps=[
                cdr_pb.UnratedStep(
                    id=1,
                    unrated_reason=types_pb2.UNRATED_REASON_NO_RATE,
                    rate_revision=2,
                    new_unrated_reason=types_pb2.UNRATED_REASON_BLOCKED,
                    created_at=Timestamp(nanos=3),
                )
            ],
            ledger_entries=[
                cdr_pb.LedgerEntry(
                    kind=types_pb2.LEDGER_ENTRY_KIND_REVERSED,
                    chain=1,
                    seq=2,
                    first_id=3,
                    row_count=4,
                    row_id=5,
                    digest="ab",
                    hash="cd",
                    created_at=Timestamp(nanos=6),
                )
            ],
            replaces_cdr_id=8,
            replaced_by_cdr_id=9,
        ),
    ),
    (
        "CdrService/ReverseCdr",
        cdr_pb.ReverseCdrRequest(id=3, reason="why", requested_by="who"),
        REVERSED_CDR,
        ("reverse_cdr", 3, WHY),
        None,
    ),
    (
        "CdrService/ReverseUpload",
        cdr_pb.ReverseUploadRequest(upload_id=6, reason="why", requested_by="who"),
        UploadReversal(3, 2, 1),
        ("reverse_upload", 6, WHY),
        cdr_pb.ReverseUploadResponse(cdrs=3, reversed=2, reversed_before=1),
    ),
    (
        "CdrService/ListReversals",
        cdr_pb.ListReversalsRequest(
            tenant_id=7, created_after=Timestamp(nanos=1), upload_id=6, page_size=9, page_token="t"
        ),
        Page([REVERSED_CDR], "next"),
        ("list", ReversalFilter(7, 1, None, 6), 9, "t"),
        None,
    ),
    (
        "CdrService/GetLedgerRoot",
        cdr_pb.GetLedgerRootRequest(),
        LedgerRoot("3-1:ab", 4, 1),
        ("root",),
        cdr_pb.LedgerRoot(root="3-1:ab", entries=4, created_at=Timestamp(nanos=1)),
    ),
    (
        "AccessService/CreateToken",
        access_pb.CreateTokenRequest(
            token=access_pb.Token(name="A", role=access_pb.ROLE_INGEST, tenant_ids=[8, 7, 8])
        ),
        (TOKEN, "tw_5_secret"),
        ("create", Token("A", Role.INGEST, Scope(frozenset({7, 8})))),
        access_pb.CreateTokenResponse(token=TOKEN_MESSAGE, secret="tw_5_secret"),
    ),
    (
        "AccessService/GetToken",
        access_pb.GetTokenRequest(id=5),
        TOKEN,
        ("get", 5),
        TOKEN_MESSAGE,
    ),
    (
        "AccessService/ListTokens",
        access_pb.ListTokensRequest(page_size=-5, page_token="t", include_revoked=True),
        Page([TOKEN], "next"),
        ("list", -5, "t", True),
        access_pb.ListTokensResponse(tokens=[TOKEN_MESSAGE], next_page_token="next"),
    ),
    (
        "AccessService/ListAuditEntries",
        access_pb.ListAuditEntriesRequest(
            tenant_id=7,
            action="UpdateRate",
            created_after=Timestamp(nanos=1),
            created_before=Timestamp(nanos=2),
            page_size=-5,
            page_token="t",
        ),
        Page([AuditEntry(5, 6, "Ada", 2, "r-1", "UpdateRate", 7, "rate/9", "{}", "[]")], "next"),
        ("list", AuditFilter(7, "UpdateRate", 1, 2), -5, "t"),
        access_pb.ListAuditEntriesResponse(
            entries=[
                access_pb.AuditEntry(
                    id=5,
                    created_at=Timestamp(nanos=6),
                    caller="Ada",
                    token_id=2,
                    request_id="r-1",
                    action="UpdateRate",
                    tenant_id=7,
                    resource="rate/9",
                    before="{}",
                    after="[]",
                )
            ],
            next_page_token="next",
        ),
    ),
    (
        "AccessService/RevokeToken",
        access_pb.RevokeTokenRequest(id=5),
        replace(TOKEN, revoked_at_ns=6),
        ("revoke", 5),
        None,
    ),
]


@pytest.mark.parametrize(
    ("path", "request_message", "answer", "call", "response"), UNARY, ids=[row[0] for row in UNARY]
)
def test_unary_methods(
    server: Any,
    subject: Fake,
    path: str,
    request_message: Any,
    answer: Any,
    call: tuple[Any, ...],
    response: Any,
) -> None:
    subject.answers = [answer]
    rpc = server.invoke_unary_unary(method(path), (), request_message, 10)
    found, _, code, _ = rpc.termination()
    assert code is grpc.StatusCode.OK
    assert subject.calls == [call]
    assert method(path).output_type == found.DESCRIPTOR
    if response is not None:
        assert found == response
    else:
        assert found.ByteSize() > 0


def test_every_method_is_tried() -> None:
    streams_and_bytes = {
        *("RatingService/RateCall", "RatingService/BatchRateCalls"),
        *("RatingService/StreamRateCalls", "RatingService/ImportRates"),
        *("RatingService/ExportRates", "CdrService/UploadCdrs", "CdrService/ExportCdrs"),
        "CdrService/VerifyCdrs",
        "CdrService/WatchCdrs",
        "CdrService/VerifyLedger",
        "CdrService/ReverseCdrs",
    }
    everything = {
        f"{service.name}/{method.name}"
        for service in SERVICES.values()
        for method in service.methods
    }
    assert {row[0] for row in UNARY} | streams_and_bytes == everything


def test_no_method_is_inherited() -> None:
    for servicer, name in (
        (RatingServicer, "RatingService"),
        (CdrServicer, "CdrService"),
        (TenantServicer, "TenantService"),
        (AccessServicer, "AccessService"),
    ):
        # Of the classes below the generated one, in which every method is UNIMPLEMENTED.
        own = [each for each in servicer.__mro__ if not each.__module__.endswith("_pb2_grpc")]
        assert set(SERVICES[name].methods_by_name) <= set().union(*map(vars, own))


def stream(server: Any, path: str, requests: Iterable[Any]) -> tuple[Any, list[Any]]:
    """The rpc and its responses, of which there is one for each request."""
    rpc = server.invoke_stream_stream(method(path), (), 10)
    responses = []
    for request in requests:
        rpc.send_request(request)
        responses.append(rpc.take_response())
    rpc.requests_closed()
    assert rpc.termination()[1] is grpc.StatusCode.OK
    return rpc, responses


def test_what_the_core_leaves_alone_goes_the_way_of_a_single_call(
    server: Any, subject: Fake
) -> None:
    """Here nothing is in memory, so that is every call."""
    bad = types_pb2.Call(call_id="b")
    error = BadCall("direction", "is required: one of INBOUND, OUTBOUND, INTERNAL", call_id="b")
    free = RatedCall("a", RatingStatus.NOT_BILLABLE, bill_seconds=0, cost_e8=0)
    refused = RatedCall("b", RatingStatus.UNRATED, error=error)
    subject.answers = [None, [free], [refused]]
    request = rating_pb.BatchRateCallsRequest(calls=[CALL_MESSAGE, bad]).SerializeToString()
    rpc = server.invoke_unary_unary(method("RatingService/BatchRateCalls"), (), request, 10)
    response = rating_pb.BatchRateCallsResponse.FromString(rpc.termination()[0])
    assert [rated.call_id for rated in response.rated] == ["a", "b"]
    assert response.rated[1].error.field == "direction"
    # What comes after is when the request was asked.
    assert [given[:-1] for given in subject.calls] == [
        ("deck", 7, 0),
        ("rate_batch", [CALL]),
        ("rate_batch", [error]),
    ]


def test_a_stream_of_ratings_answers_each_request(server: Any, subject: Fake) -> None:
    free = RatedCall("a", RatingStatus.NOT_BILLABLE, bill_seconds=0, cost_e8=0)
    subject.answers = [None, [free], None, [free], [free]]
    requests = [rating_pb.StreamRateCallsRequest(calls=[CALL_MESSAGE] * n) for n in (1, 0, 2)]
    _, responses = stream(
        server,
        "RatingService/StreamRateCalls",
        [request.SerializeToString() for request in requests],
    )
    answers = map(rating_pb.StreamRateCallsResponse.FromString, responses)
    assert [len(response.rated) for response in answers] == [1, 0, 2]


def test_an_upload_goes_on_under_the_id_that_the_server_named(server: Any, subject: Fake) -> None:
    subject.answers = [ChunkResult(6, offset, 1, 0, 0, 0, 0, ()) for offset in (1, 2, 3, 4)]
    requests = [
        cdr_pb.UploadCdrsRequest(calls=[CALL_MESSAGE]),
        cdr_pb.UploadCdrsRequest(offset=1, calls=[CALL_MESSAGE]),
        cdr_pb.UploadCdrsRequest(upload_id=6, offset=2, calls=[CALL_MESSAGE]),
        cdr_pb.UploadCdrsRequest(offset=3, calls=[types_pb2.Call(call_id="bad")]),
    ]
    sent = [request.SerializeToString() for request in requests]
    _, answers = stream(server, "CdrService/UploadCdrs", sent)
    responses = [cdr_pb.UploadCdrsResponse.FromString(answer) for answer in answers]
    assert [response.upload_id for response in responses] == [6] * 4
    assert [response.committed_offset for response in responses] == [1, 2, 3, 4]
    assert [call[:3] for call in subject.calls] == [
        *(("commit", 0, 0), ("commit", 6, 1), ("commit", 6, 2), ("commit", 6, 3))
    ]
    chunks = [call[3] for call in subject.calls]
    assert chunks[0].records.content(0)[2:] == content_of(CALL)[2:]
    assert [len(chunk.bad) for chunk in chunks] == [0, 0, 0, 1]


def test_an_upload_wants_to_know_when_a_call_started(server: Any, subject: Fake) -> None:
    subject.answers = [ChunkResult(6, 1, 0, 0, 0, 1, 0, ())]
    sent = types_pb2.Call()
    sent.CopyFrom(CALL_MESSAGE)
    sent.ClearField("started_at")
    request = cdr_pb.UploadCdrsRequest(calls=[sent])
    stream(server, "CdrService/UploadCdrs", [request.SerializeToString()])
    assert subject.calls[0][3].bad == {0: BadCall("started_at", "is required", duration_seconds=63)}


def test_a_deck_is_handed_over_as_it_comes(subject: Fake) -> None:
    class Requests(list[bytes]):
        end_counts = True

        def __next__(self) -> bytes:
            if not self:
                raise StopIteration
            return self.pop(0)

    subject.answers = [ImportOutcome(created=2, rate_revision=9)]
    sent = types_pb2.Rate(prefix="44", cost_per_minute="0.15", billing_increment=6)
    replace = types_pb2.IMPORT_MODE_REPLACE
    first = rating_pb.ImportRatesRequest(tenant_id=7, mode=replace, rates=[sent], rate_count=2)
    requests: Any = Requests([first.SerializeToString()])
    fake: Any = subject
    data = RatingServicer(fake, fake).ImportRates(requests, None)
    response = rating_pb.ImportRatesResponse.FromString(data)
    assert response == rating_pb.ImportRatesResponse(created=2, rate_revision=9)
    ((*call, fill),) = subject.calls
    assert call == ["import_deck", ImportPlan(7, ImportMode.REPLACE)]
    requests.append(rating_pb.ImportRatesRequest(rates=[sent]).SerializeToString())
    with Intake(7, IntakeMemory(2**20)) as intake:
        fill(intake)
        assert len(intake.deck) == 2
    assert not requests.end_counts, "all that were stated have come"


@pytest.mark.parametrize(
    ("path", "request_message", "parts", "call"),
    [
        (
            "RatingService/ExportRates",
            rating_pb.ExportRatesRequest(tenant_id=7),
            [[RATE, RATE], [RATE]],
            ("export", 7),
        ),
        (
            "CdrService/ExportCdrs",
            cdr_pb.ExportCdrsRequest(search="x"),
            [[CDR, CDR], [CDR]],
            ("export", CdrFilter(search="x")),
        ),
    ],
    ids=["rates", "cdrs"],
)
def test_exports(
    server: Any,
    subject: Fake,
    path: str,
    request_message: Any,
    parts: list[list[Any]],
    call: tuple[Any, ...],
) -> None:
    subject.answers = [iter(parts)]
    rpc = server.invoke_unary_stream(method(path), (), request_message, 10)
    field = "rates" if path.endswith("Rates") else "cdrs"
    assert [len(getattr(rpc.take_response(), field)) for _ in parts] == [2, 1]
    assert rpc.termination()[1] is grpc.StatusCode.OK
    assert subject.calls == [call]


def test_the_feed(server: Any, subject: Fake) -> None:
    subject.answers = [iter([FeedPart([CDR], "c", caught_up=True), FeedPart([], "d", False)])]
    request = cdr_pb.WatchCdrsRequest(tenant_id=7, cursor="b", follow=True)
    rpc = server.invoke_unary_stream(method("CdrService/WatchCdrs"), (), request, 10)
    first, second = rpc.take_response(), rpc.take_response()
    assert (len(first.cdrs), first.cursor, first.caught_up) == (1, "c", True)
    assert (len(second.cdrs), second.cursor, second.caught_up) == (0, "d", False)
    assert rpc.termination()[1] is grpc.StatusCode.OK


def test_a_bulk_reversal(server: Any, subject: Fake) -> None:
    subject.answers = [
        iter(
            [
                ReversalProgress(20, 15, 5, (ReversedCost("EUR", 15, 1650_0000, 2),), done=False),
                ReversalProgress(30, 25, 5, (), done=True),
            ]
        )
    ]
    request = cdr_pb.ReverseCdrsRequest(
        tenant_id=7,
        ids=[3, 4],
        call_ids=["a"],
        upload_id=6,
        started_after=Timestamp(nanos=1),
        started_before=Timestamp(nanos=2),
        extension_id=8,
        extension_number="101",
        direction=types_pb2.DIRECTION_INBOUND,
        disposition=types_pb2.DISPOSITION_BUSY,
        status=types_pb2.RATING_STATUS_UNRATED,
        unrated_reason=types_pb2.UNRATED_REASON_BLOCKED,
        rate_id=9,
        matched_prefix="44",
        reason="why",
        requested_by="who",
        dry_run=True,
    )
    assert len(request.ListFields()) == len(request.DESCRIPTOR.fields)
    rpc = server.invoke_unary_stream(method("CdrService/ReverseCdrs"), (), request, 10)
    assert rpc.take_response() == cdr_pb.ReverseCdrsResponse(
        cdrs=20,
        reversed=15,
        reversed_before=5,
        costs=[cdr_pb.ReversedCost(currency="EUR", cdrs=15, cost="0.1650", unrated=2)],
    )
    last = cdr_pb.ReverseCdrsResponse(cdrs=30, reversed=25, reversed_before=5, done=True)
    assert rpc.take_response() == last
    assert rpc.termination()[1] is grpc.StatusCode.OK
    wanted = CdrFilter(
        tenant_id=7,
        ids=(3, 4),
        call_ids=("a",),
        upload_id=6,
        started_after_ns=1,
        started_before_ns=2,
        extension_id=8,
        extension_number="101",
        direction=Direction.INBOUND,
        disposition=Disposition.BUSY,
        status=RatingStatus.UNRATED,
        unrated_reason=UnratedReason.BLOCKED,
        rate_id=9,
        matched_prefix="44",
    )
    assert subject.calls == [("reverse_cdrs", wanted, WHY, True)]


def test_verification(server: Any, subject: Fake) -> None:
    wrong = CdrDifference(3, 7, "a", "cost", "0.0041", "0.0040", "no")
    subject.answers = [
        iter(
            [
                VerificationProgress(20, 40.5, (wrong,), 1, False),
                VerificationProgress(30, 40.5, (), 1, True),
            ]
        )
    ]
    request = cdr_pb.VerifyCdrsRequest(tenant_id=7, started_before=Timestamp(nanos=1), upload_id=6)
    rpc = server.invoke_unary_stream(method("CdrService/VerifyCdrs"), (), request, 10)
    assert rpc.take_response() == cdr_pb.VerifyCdrsResponse(
        checked=20,
        checked_per_second=40.5,
        differences=[
            cdr_pb.CdrDifference(
                cdr_id=3,
                tenant_id=7,
                call_id="a",
                field="cost",
                stored="0.0041",
                recomputed="0.0040",
                message="no",
            )
        ],
        different=1,
    )
    last = cdr_pb.VerifyCdrsResponse(checked=30, checked_per_second=40.5, done=True, different=1)
    assert rpc.take_response() == last
    assert rpc.termination()[1] is grpc.StatusCode.OK
    assert subject.calls == [("verify", VerificationFilter(7, None, 1, 6))]


def test_a_verification_tells_how_far_it_is(server: Any, subject: Fake) -> None:
    difference = LedgerDifference(LedgerDifferenceKind.ROWS, "gone", 1, 2, 3, 4)
    subject.answers = [
        iter(
            [
                LedgerProgress(5, 6, 7.5, (difference,), done=False),
                LedgerProgress(8, 9, 0.0, (), done=True),
            ]
        )
    ]
    request = cdr_pb.VerifyLedgerRequest(root="3-1:ab")
    rpc = server.invoke_unary_stream(method("CdrService/VerifyLedger"), (), request, 10)
    told = cdr_pb.LedgerDifference(
        kind=types_pb2.LEDGER_DIFFERENCE_KIND_ROWS,
        chain=1,
        seq=2,
        first_id=3,
        row_count=4,
        message="gone",
    )
    assert [rpc.take_response() for _ in range(2)] == [
        cdr_pb.VerifyLedgerResponse(
            entries_checked=5, rows_checked=6, rows_per_second=7.5, differences=[told]
        ),
        cdr_pb.VerifyLedgerResponse(entries_checked=8, rows_checked=9, done=True),
    ]
    assert rpc.termination()[1] is grpc.StatusCode.OK
    assert subject.calls == [("verify", "3-1:ab")]
