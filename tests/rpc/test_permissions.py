"""The table of permissions against the services, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tollwire.service.domain.errors import Forbidden, Reason
from tollwire.service.domain.request import EVERY_TENANT, LOCAL, Caller, Role, Scope
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.endpoints import endpoints
from tollwire.service.rpc.permissions import PERMISSIONS, check, permission
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.streams import Streams
from tollwire.v1 import (
    access_service_pb2,
    cdr_service_pb2,
    rating_service_pb2,
    tenant_service_pb2,
)

FILES = (
    *(rating_service_pb2, cdr_service_pb2, tenant_service_pb2, access_service_pb2),
    *(health_pb2, reflection_pb2),
)
ONE_TENANT = Scope(frozenset({7}))

# A second, hand-written list: the methods that each role may call besides health and reflection.
RATER = {"RatingService/RateCall", "RatingService/BatchRateCalls", "RatingService/StreamRateCalls"}
INGEST = {
    "CdrService/CreateCdr",
    "CdrService/UploadCdrs",
    "CdrService/GetUpload",
    "CdrService/ListUploads",
    "CdrService/ListUploadFailures",
}
READS = ("Get", "List", "Export", "Watch", "Summarize", "Verify", "Explain")
ADMINISTRATION = "AccessService/"
FOR_ALL = {
    *("Health/Check", "Health/List", "Health/Watch"),
    "ServerReflection/ServerReflectionInfo",
}
FOR_EVERY_TENANT = {
    *("TenantService/CreateTenant", "TenantService/DeleteTenant"),
    *("CdrService/GetLedgerRoot", "CdrService/VerifyLedger"),
}


def methods() -> Iterator[str]:
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from (f"{service.name}/{method.name}" for method in service.methods)


def may(role: Role, method: str) -> bool:
    """By the words of the documentation, not by the table."""
    if method in FOR_ALL or role is Role.ADMIN:
        return True
    if method.startswith(ADMINISTRATION):
        return False
    if role is Role.OPERATOR:
        return True
    if role is Role.READER:
        return method.partition("/")[2].startswith(READS)
    return method in (RATER if role is Role.RATER else INGEST)


def refused(caller: Caller, method: str) -> Reason | None:
    try:
        check(caller, method)
    except Forbidden as error:
        return error.reason
    return None


def test_every_method_has_its_row_and_every_row_its_method() -> None:
    assert set(methods()) == set(PERMISSIONS)


@pytest.mark.parametrize("role", Role)
def test_each_role_may_call_its_methods_and_no_others(role: Role) -> None:
    caller = Caller("somebody", role, EVERY_TENANT)
    for method in PERMISSIONS:
        wanted = None if may(role, method) else Reason.ROLE_LACKS
        assert refused(caller, method) is wanted, method


@pytest.mark.parametrize("role", Role)
def test_some_tenants_are_not_enough_for_methods_of_all_tenants(role: Role) -> None:
    caller = Caller("somebody", role, ONE_TENANT)
    for method in PERMISSIONS:
        wanted = Reason.SCOPE_LACKS if method in FOR_EVERY_TENANT else None
        assert refused(caller, method) is (wanted if may(role, method) else Reason.ROLE_LACKS)


def test_the_service_itself_may_do_everything() -> None:
    assert {refused(LOCAL, method) for method in PERMISSIONS} == {None}


def service_without_a_row() -> ServiceDescriptor:
    file = descriptor_pb2.FileDescriptorProto(name="late.proto", package="late")
    file.message_type.add(name="Nothing")
    service = file.service.add(name="CdrService")
    service.method.add(name="DropCdrs", input_type=".late.Nothing", output_type=".late.Nothing")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindServiceByName("late.CdrService")


def test_a_method_without_a_row_cannot_be_served() -> None:
    class Servicer:
        def DropCdrs(self, request: object, context: object) -> object:
            return request

    with pytest.raises(LookupError, match=r"CdrService/DropCdrs .*permissions\.py"):
        endpoints(service_without_a_row(), Servicer(), Streams(1), RpcPipeline(), Capacity())
    with pytest.raises(LookupError, match="CdrService/DropCdrs"):
        permission("CdrService/DropCdrs")
