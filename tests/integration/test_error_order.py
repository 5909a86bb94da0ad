"""Of several errors in one request, the server returns the one that docs/api.md lists first."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.integration.client import Client, invalid, make_call, make_rate, refusal_of
from tests.integration.methods import send
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

NOBODY = 2**62
MAX_SECONDS = 2_147_483_647


@pytest.fixture(scope="module")
def scene(client: Client) -> dict[str, Any]:
    """A tenant with a plain, a blocking and a very expensive rate, and one object of every other
    kind."""
    tenant = client.new_tenant()
    client.new_rate(tenant.id, "1")
    client.new_rate(tenant.id, "2", blocked=True)
    client.new_rate(tenant.id, "3", "99999999.9999")
    extension = client.new_extension(tenant.id)
    foreign = client.new_extension(client.new_tenant().id)
    client.create_cdr(make_call(tenant.id, "1", call_id="taken", extension_id=extension.id))
    rate = client.new_rate(tenant.id, "9")
    return {
        "tenant": tenant.id,
        "extension": extension.id,
        "foreign": foreign.id,
        "rate": rate.id,
    }


def reason(client: Client, method: str, request: Any) -> str:
    try:
        send(client, method, request)
    except grpc.RpcError as error:
        return refusal_of(error).reason
    return "OK"


def test_rate_call(client: Client, scene: dict[str, Any]) -> None:
    def reason_of(ahead: int, **fields: Any) -> str:
        call = make_call(**({"tenant_id": scene["tenant"]} | fields))
        request = rating_pb.RateCallRequest(call=call, min_rate_revision=ahead)
        return reason(client, "RateCall", request)

    far = 2**40
    assert reason_of(far, tenant_id=NOBODY, destination_number="x", call_id="\0") == "INVALID_FIELD"
    assert reason_of(-1, tenant_id=NOBODY) == "INVALID_FIELD"
    assert reason_of(far, tenant_id=NOBODY, destination_number="x") == "TENANT_NOT_FOUND"
    assert reason_of(far, destination_number="x") == "RATE_REVISION_AHEAD"
    assert reason_of(far, direction=types.DIRECTION_INBOUND) == "RATE_REVISION_AHEAD"
    assert reason_of(0, destination_number="x", duration_seconds=MAX_SECONDS) == "INVALID_NUMBER"
    assert reason_of(0, destination_number="4", duration_seconds=MAX_SECONDS) == "NO_RATE"
    assert reason_of(0, destination_number="2", duration_seconds=MAX_SECONDS) == "BLOCKED"
    assert reason_of(0, destination_number="3", duration_seconds=MAX_SECONDS) == "COST_OVERFLOW"
    # The extension is not looked up.
    assert reason_of(0, destination_number="1", extension_id=NOBODY) == "OK"


def test_batches(client: Client, scene: dict[str, Any]) -> None:
    bad = types.Call(tenant_id=scene["tenant"])
    good = make_call(scene["tenant"], "1")
    for method, kind in [
        ("BatchRateCalls", rating_pb.BatchRateCallsRequest),
        ("StreamRateCalls", rating_pb.StreamRateCallsRequest),
    ]:
        assert reason(client, method, kind(calls=[bad] * 10_001)) == "INVALID_FIELD"
        negative = kind(calls=[good], min_rate_revision=-1)
        assert reason(client, method, negative) == "INVALID_FIELD"
        ahead = kind(calls=[good], min_rate_revision=2**40)
        assert reason(client, method, ahead) == "RATE_REVISION_AHEAD"
        unknown = kind(calls=[make_call(NOBODY)], min_rate_revision=2**40)
        assert reason(client, method, unknown) == "OK"


def test_rates(client: Client, scene: dict[str, Any]) -> None:
    def create(**fields: Any) -> str:
        rate = make_rate(**({"prefix": "1", "tenant_id": scene["tenant"]} | fields))
        return reason(client, "CreateRate", rating_pb.CreateRateRequest(rate=rate))

    assert create(tenant_id=NOBODY, billing_increment=0) == "INVALID_FIELD"
    assert create(tenant_id=NOBODY) == "TENANT_NOT_FOUND"
    assert create() == "RATE_EXISTS"

    def update(**fields: Any) -> str:
        rate = make_rate(**({"prefix": "1", "id": scene["rate"]} | fields))
        return reason(client, "UpdateRate", rating_pb.UpdateRateRequest(rate=rate))

    assert update(id=NOBODY, etag="v0", billing_increment=0) == "INVALID_FIELD"
    assert update(id=NOBODY, etag="v0") == "RATE_NOT_FOUND"
    assert update(etag="v0", tenant_id=NOBODY) == "ETAG_MISMATCH"
    assert update(tenant_id=NOBODY) == "INVALID_FIELD"
    assert update() == "RATE_EXISTS"
    for rate_id, etag, expected in [
        (0, "v0", "INVALID_FIELD"),
        (NOBODY, "v0", "RATE_NOT_FOUND"),
        (scene["rate"], "v0", "ETAG_MISMATCH"),
    ]:
        request = rating_pb.DeleteRateRequest(id=rate_id, etag=etag)
        assert reason(client, "DeleteRate", request) == expected


def test_decks(client: Client) -> None:
    rates = [make_rate("x")]
    head = rating_pb.ImportRatesRequest(tenant_id=NOBODY, rates=rates)
    assert reason(client, "ImportRates", head) == "INVALID_FIELD"
    head.mode = types.IMPORT_MODE_MERGE
    assert reason(client, "ImportRates", head) == "TENANT_NOT_FOUND"


def test_create_cdr(client: Client, scene: dict[str, Any]) -> None:
    def create(**fields: Any) -> str:
        call = make_call(**({"tenant_id": scene["tenant"], "call_id": "taken"} | fields))
        return reason(client, "CreateCdr", cdr_pb.CreateCdrRequest(call=call))

    dear: dict[str, Any] = {"destination_number": "3", "duration_seconds": MAX_SECONDS}
    assert create(tenant_id=NOBODY, extension_id=NOBODY, caller_number="\0") == "INVALID_FIELD"
    assert create(tenant_id=NOBODY, extension_id=NOBODY, **dear) == "TENANT_NOT_FOUND"
    assert create(extension_id=scene["foreign"], **dear) == "EXTENSION_NOT_FOUND"
    assert create(call_id="new", **dear) == "COST_OVERFLOW"
    assert create(**dear) == "CDR_CONFLICT"
    assert create(destination_number="2") == "CDR_CONFLICT"
    assert create(destination_number="1", extension_id=scene["extension"]) == "OK"


def test_uploads(client: Client, scene: dict[str, Any]) -> None:
    call = make_call(scene["tenant"], "1", call_id="u")
    [answer] = client.upload(cdr_pb.UploadCdrsRequest(calls=[call] * 2))

    def upload(**fields: Any) -> str:
        return reason(client, "UploadCdrs", cdr_pb.UploadCdrsRequest(**fields))

    assert upload(upload_id=NOBODY, offset=-1) == "INVALID_FIELD"
    assert upload(upload_id=NOBODY, offset=9, calls=[call] * 10_001) == "INVALID_FIELD"
    assert upload(upload_id=NOBODY, offset=9) == "UPLOAD_NOT_FOUND"
    assert upload(upload_id=answer.upload_id, offset=9, calls=[call]) == "UPLOAD_GAP"
    assert upload(upload_id=answer.upload_id, calls=[types.Call()] * 2) == "UPLOAD_CHUNK_CHANGED"


def test_corrections(client: Client, scene: dict[str, Any]) -> None:
    call = make_call(scene["tenant"], "1", call_id="to be reversed")
    [answer] = client.upload(cdr_pb.UploadCdrsRequest(calls=[call]))
    upload_id = answer.upload_id
    why = {"reason": "r", "requested_by": "b"}
    for method, kind, name, missing in [
        ("ReverseCdr", cdr_pb.ReverseCdrRequest, "id", "CDR_NOT_FOUND"),
        ("ReverseUpload", cdr_pb.ReverseUploadRequest, "upload_id", "UPLOAD_NOT_FOUND"),
    ]:
        assert reason(client, method, kind(**{name: NOBODY}, reason="r")) == "INVALID_FIELD"
        assert reason(client, method, kind(**{name: NOBODY}, **why)) == missing

    def explain(**fields: Any) -> str:
        return reason(client, "ExplainCdr", cdr_pb.ExplainCdrRequest(**fields))

    assert explain(call_id="x" * 256, tenant_id=NOBODY) == "INVALID_FIELD"
    assert explain(call_id="?", tenant_id=NOBODY) == "TENANT_NOT_FOUND"
    assert explain(call_id="?", tenant_id=scene["tenant"]) == "CDR_NOT_FOUND"

    def bulk(**fields: Any) -> str:
        return reason(client, "ReverseCdrs", cdr_pb.ReverseCdrsRequest(**(why | fields)))

    here = {"tenant_id": scene["tenant"], "upload_id": upload_id}
    bad = {"tenant_id": NOBODY, "upload_id": NOBODY, "extension_number": "?", "ids": [NOBODY]}
    assert bulk(**bad, matched_prefix="x") == "INVALID_FIELD"
    assert bulk(**bad) == "TENANT_NOT_FOUND"
    assert bulk(**(bad | {"tenant_id": scene["tenant"]})) == "UPLOAD_NOT_FOUND"
    assert bulk(**(bad | here)) == "EXTENSION_NOT_FOUND"
    assert bulk(**here, ids=[NOBODY]) == "CDR_NOT_FOUND"
    assert bulk(**here, call_ids=["?"]) == "CDR_NOT_FOUND"
    assert bulk(**here, dry_run=True) == "OK"
    reverse = cdr_pb.ReverseUploadRequest(upload_id=upload_id, **why)
    assert reason(client, "ReverseUpload", reverse) == "OK"

    def upload(**fields: Any) -> str:
        request = cdr_pb.UploadCdrsRequest(upload_id=upload_id, **fields)
        return reason(client, "UploadCdrs", request)

    assert upload(calls=[call]) == "OK"
    assert upload(offset=2, calls=[call]) == "UPLOAD_GAP"
    assert upload(calls=[types.Call()]) == "UPLOAD_CHUNK_CHANGED"
    assert upload(calls=[call, call]) == "UPLOAD_REVERSED"
    assert upload(offset=1, calls=[call]) == "UPLOAD_REVERSED"


def test_tenants_and_extensions(client: Client, scene: dict[str, Any]) -> None:
    tenant = types.Tenant(id=scene["tenant"], currency="x")
    create = tenant_pb.CreateTenantRequest(tenant=tenant)
    assert reason(client, "CreateTenant", create) == "INVALID_FIELD"
    create.tenant.currency = "EUR"
    assert reason(client, "CreateTenant", create) == "TENANT_EXISTS"
    update = tenant_pb.UpdateTenantRequest(tenant=types.Tenant(id=NOBODY, currency="x"))
    assert reason(client, "UpdateTenant", update) == "INVALID_FIELD"
    update.tenant.currency = "EUR"
    assert reason(client, "UpdateTenant", update) == "TENANT_NOT_FOUND"
    update.tenant.id = scene["tenant"]
    assert reason(client, "UpdateTenant", update) == "CURRENCY_IN_USE"
    update.update_mask.paths.extend(["currency", "national_prefix"])
    update.tenant.national_prefix = "0"
    with invalid("tenant.country_code"):
        client.tenants.UpdateTenant(update)
    extension = types.Extension(id=scene["extension"], tenant_id=NOBODY)
    made = tenant_pb.CreateExtensionRequest(extension=extension)
    assert reason(client, "CreateExtension", made) == "INVALID_FIELD"
    made.extension.number = "1"
    assert reason(client, "CreateExtension", made) == "TENANT_NOT_FOUND"
    made.extension.tenant_id = scene["tenant"]
    assert reason(client, "CreateExtension", made) == "EXTENSION_EXISTS"
    for method, kind, reasons in [
        ("DeleteTenant", tenant_pb.DeleteTenantRequest, ("TENANT_NOT_FOUND", "TENANT_IN_USE")),
        (
            "DeleteExtension",
            tenant_pb.DeleteExtensionRequest,
            ("EXTENSION_NOT_FOUND", "EXTENSION_IN_USE"),
        ),
    ]:
        own = scene["tenant"] if method == "DeleteTenant" else scene["extension"]
        expected = ("INVALID_FIELD", *reasons)
        for given, wanted in zip((-1, NOBODY, own), expected, strict=True):
            assert reason(client, method, kind(id=given)) == wanted
