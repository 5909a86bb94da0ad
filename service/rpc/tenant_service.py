"""TenantService: tenants and extensions."""

from __future__ import annotations

import grpc
from google.protobuf.empty_pb2 import Empty

from tollwire.service.accounts.tenants import Tenants
from tollwire.service.rpc.conversion import fields, tenants
from tollwire.v1 import tenant_service_pb2 as pb
from tollwire.v1 import tenant_service_pb2_grpc, types_pb2

Context = grpc.ServicerContext


class TenantServicer(tenant_service_pb2_grpc.TenantServiceServicer):
    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    def CreateTenant(self, request: pb.CreateTenantRequest, context: Context) -> types_pb2.Tenant:
        return tenants.tenant(self._tenants.create(tenants.tenant_to_create(request)))

    def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> types_pb2.Tenant:
        return tenants.tenant(self._tenants.get(fields.required_id(request.id, "id")))

    def ListTenants(
        self, request: pb.ListTenantsRequest, context: Context
    ) -> pb.ListTenantsResponse:
        page = self._tenants.list(request.page_size, request.page_token)
        return pb.ListTenantsResponse(
            tenants=map(tenants.tenant, page.items), next_page_token=page.next_page_token
        )

    def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Context) -> types_pb2.Tenant:
        tenant, changed = tenants.tenant_to_update(request)
        return tenants.tenant(self._tenants.update(tenant, changed))

    def DeleteTenant(self, request: pb.DeleteTenantRequest, context: Context) -> Empty:
        self._tenants.delete(fields.required_id(request.id, "id"))
        return Empty()

    def CreateExtension(
        self, request: pb.CreateExtensionRequest, context: Context
    ) -> types_pb2.Extension:
        extension = tenants.extension_to_create(request)
        return tenants.extension(self._tenants.create_extension(extension))

    def GetExtension(
        self, request: pb.GetExtensionRequest, context: Context
    ) -> types_pb2.Extension:
        extension_id = fields.required_id(request.id, "id")
        return tenants.extension(self._tenants.get_extension(extension_id))

    def ListExtensions(
        self, request: pb.ListExtensionsRequest, context: Context
    ) -> pb.ListExtensionsResponse:
        page = self._tenants.list_extensions(
            request.tenant_id, request.page_size, request.page_token
        )
        return pb.ListExtensionsResponse(
            extensions=map(tenants.extension, page.items), next_page_token=page.next_page_token
        )

    def UpdateExtension(
        self, request: pb.UpdateExtensionRequest, context: Context
    ) -> types_pb2.Extension:
        extension, changed = tenants.extension_to_update(request)
        return tenants.extension(self._tenants.update_extension(extension, changed))

    def DeleteExtension(self, request: pb.DeleteExtensionRequest, context: Context) -> Empty:
        self._tenants.delete_extension(fields.required_id(request.id, "id"))
        return Empty()
