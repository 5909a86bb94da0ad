"""TenantService: each method parses, calls the subject once, and answers."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tests.rpc.servicers.examples import (
    EXTENSION,
    TENANT,
)
from tests.rpc.servicers.fakes import (
    UNARY_NAMES,
    Fake,
    UnaryRow,
    check_unary,
)
from tollwire.service.domain.model import (
    Extension,
    Page,
    Tenant,
)
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2

UNARY: list[UnaryRow] = [
    (
        "TenantService/CreateTenant",
        tenant_pb.CreateTenantRequest(tenant=types_pb2.Tenant(name="A")),
        TENANT,
        ("create", Tenant(name="A")),
        types_pb2.Tenant(
            id=7, name="A", currency="USD", rounding=1, created_at=Timestamp(), cost_decimals=4
        ),
    ),
    (
        "TenantService/GetTenant",
        tenant_pb.GetTenantRequest(id=7),
        TENANT,
        ("get", 7),
        types_pb2.Tenant(
            id=7, name="A", currency="USD", rounding=1, created_at=Timestamp(), cost_decimals=4
        ),
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
                )
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
]


@pytest.mark.parametrize(UNARY_NAMES, UNARY, ids=[row[0] for row in UNARY])
def test_unary_methods(
    server: Any,
    subject: Fake,
    path: str,
    request_message: Any,
    answer: Any,
    call: tuple[Any, ...],
    response: Any,
) -> None:
    check_unary(server, subject, path, request_message, answer, call, response)
