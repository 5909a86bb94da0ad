"""A filter that names an unknown object is refused: an empty result means that nothing matches."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from tests.integration.client import Client, chunk, make_call, not_found
from tests.integration.methods import send
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

NOBODY = 2**62
REQUESTS: dict[str, type[Message]] = {
    "ListRates": rating_pb.ListRatesRequest,
    "ListCdrs": cdr_pb.ListCdrsRequest,
    "ExportCdrs": cdr_pb.ExportCdrsRequest,
    "SummarizeUsage": cdr_pb.SummarizeUsageRequest,
    "RateUnrated": cdr_pb.RateUnratedRequest,
    "VerifyCdrs": cdr_pb.VerifyCdrsRequest,
    "ListReversals": cdr_pb.ListReversalsRequest,
    "ListExtensions": tenant_pb.ListExtensionsRequest,
    "ListAuditEntries": access_pb.ListAuditEntriesRequest,
}
FILTERS = {
    "tenant_id": "TENANT_NOT_FOUND",
    "extension_id": "EXTENSION_NOT_FOUND",
    "upload_id": "UPLOAD_NOT_FOUND",
}


def test_every_request_with_such_a_filter_is_tested(client: Client) -> None:
    """Other requests name their tenant, which was never optional."""
    for file in (rating_pb, cdr_pb, tenant_pb, access_pb):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                names = {field.name for field in method.input_type.fields}
                if "page_token" in names and names & FILTERS.keys():
                    assert method.name in {*REQUESTS, "ListUploadFailures"}, method.name


@pytest.mark.parametrize(
    ("method", "filter_"),
    [
        (method, field.name)
        for method, make in REQUESTS.items()
        for field in make.DESCRIPTOR.fields
        if field.name in FILTERS
    ],
)
def test_an_unknown_object_is_not_found(client: Client, method: str, filter_: str) -> None:
    with not_found(FILTERS[filter_]) as refusal:
        send(client, method, REQUESTS[method](**{filter_: NOBODY}))
    assert str(NOBODY) in refusal.message
    assert refusal.metadata[filter_] == str(NOBODY)


@pytest.mark.parametrize("method", REQUESTS)
def test_an_object_without_cdrs_has_an_empty_list(
    client: Client, tenant: types.Tenant, method: str
) -> None:
    send(client, method, REQUESTS[method](tenant_id=tenant.id))


@pytest.mark.parametrize("method", ["ListCdrs", "ExportCdrs"])
def test_an_extension_of_another_tenant(client: Client, tenant: types.Tenant, method: str) -> None:
    extension = client.new_extension(client.new_tenant().id)
    request: dict[str, Any] = {"tenant_id": tenant.id, "extension_id": extension.id}
    with not_found("EXTENSION_NOT_FOUND"):
        send(client, method, REQUESTS[method](**request))
    request["tenant_id"] = extension.tenant_id
    send(client, method, REQUESTS[method](**request))


def test_filters_find_existing_objects(client: Client, rated_tenant: int) -> None:
    extension = client.new_extension(rated_tenant)
    [upload] = client.upload(chunk([make_call(rated_tenant, extension_id=extension.id)]))
    [cdr] = client.list_cdrs(
        tenant_id=rated_tenant, extension_id=extension.id, upload_id=upload.upload_id
    )
    assert cdr.extension == extension
    assert client.list_cdrs(tenant_id=rated_tenant, search="nothing like it") == []


def test_a_tenant_that_was_deleted(client: Client, tenant: types.Tenant) -> None:
    """It is deleted from everything but the audit log, which keeps its entries."""
    client.tenants.DeleteTenant(tenant_pb.DeleteTenantRequest(id=tenant.id))
    for method, make in REQUESTS.items():
        request = make(tenant_id=tenant.id)
        if method == "ListAuditEntries":
            entries = client.access.ListAuditEntries(request).entries
            assert [entry.action for entry in entries] == ["DeleteTenant", "CreateTenant"]
            continue
        with not_found("TENANT_NOT_FOUND"):
            send(client, method, request)


def test_an_empty_sum_is_distinct_from_a_mistyped_tenant(
    client: Client, tenant: types.Tenant
) -> None:
    [row] = client.cdrs.SummarizeUsage(cdr_pb.SummarizeUsageRequest(tenant_id=tenant.id)).rows
    assert (row.calls, row.cost) == (0, "0.0000")
    with pytest.raises(grpc.RpcError) as raised:
        client.cdrs.SummarizeUsage(cdr_pb.SummarizeUsageRequest(tenant_id=NOBODY))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
