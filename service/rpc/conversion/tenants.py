"""Tenants and extensions."""

from __future__ import annotations

from tollwire.service.accounts.tenants import check_extension, check_tenant
from tollwire.service.domain.errors import invalid_field
from tollwire.service.domain.model import Extension, Rounding, Tenant
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.fields import REQUIRED, Violations
from tollwire.v1 import tenant_service_pb2 as pb
from tollwire.v1 import types_pb2

_ROUNDINGS = fields.members(Rounding)
_DEFAULT = Tenant()

# Fields that an update may change. They have the same names on the wire and in the model.
_TENANT_FIELDS = (
    "name",
    "currency",
    "rounding",
    "country_code",
    "national_prefix",
    "international_prefix",
    "cost_decimals",
)
# Fields that an update of all fields must set: a default value would change what calls cost.
_STATED_FIELDS = ("currency", "rounding")
_MUST_STATE = (
    "is required if update_mask is *: set it, or name only the fields to change in update_mask"
)
_EXTENSION_FIELDS = ("number", "name")


def tenant(tenant: Tenant) -> types_pb2.Tenant:
    return types_pb2.Tenant(
        id=tenant.id,
        name=tenant.name,
        currency=tenant.currency,
        rounding=types_pb2.Rounding.ValueType(tenant.rounding),
        country_code=tenant.country_code,
        national_prefix=tenant.national_prefix,
        international_prefix=tenant.international_prefix,
        created_at=fields.timestamp(tenant.created_at_ns),
        cost_decimals=tenant.cost_decimals,
    )


def tenant_to_create(request: pb.CreateTenantRequest) -> Tenant:
    if not request.HasField("tenant"):
        raise invalid_field("tenant", REQUIRED)
    violations = Violations()
    tenant = _read_tenant(request.tenant, violations, defaults=True)
    violations.merge(check_tenant(tenant), "tenant.")
    violations.raise_if_any()
    return tenant


def tenant_to_update(request: pb.UpdateTenantRequest) -> tuple[Tenant, frozenset[str]]:
    """The new values, and the fields to change.

    Without a mask the update changes the fields that are set, so that renaming a tenant does not
    change its billing rules. "*" replaces all fields, and the request must set those that have
    defaults. If the mask names a field, the update takes its value even if it is unset.
    """
    if not request.HasField("tenant"):
        raise invalid_field("tenant", REQUIRED)
    violations = Violations()
    paths = request.update_mask.paths
    changed = fields.changed(paths, _TENANT_FIELDS, violations)
    is_whole = not paths or "*" in paths
    if not paths:
        changed = fields.set_in(request.tenant, _TENANT_FIELDS)
    elif is_whole:
        for name in _STATED_FIELDS:
            if not getattr(request.tenant, name):
                violations.add(f"tenant.{name}", _MUST_STATE)
        if not request.tenant.cost_decimals:
            # An older client that does not have the field must not change how calls are rounded.
            changed -= {"cost_decimals"}
    tenant = _read_tenant(request.tenant, violations, defaults=is_whole)
    if is_whole:
        violations.merge(check_tenant(tenant), "tenant.")
    violations.drop_unchanged(changed, "tenant.")
    fields.own_id(tenant.id, "tenant.id", violations)
    violations.raise_if_any()
    return tenant, changed


def _read_tenant(message: types_pb2.Tenant, violations: Violations, *, defaults: bool) -> Tenant:
    """``defaults``: an unset currency or rounding gets the default value."""
    rounding = Rounding.HALF_UP
    if message.rounding or not defaults:
        rounding = fields.enum(
            message.rounding, _ROUNDINGS, "rounding", "tenant.rounding", violations, rounding
        )
    return Tenant(
        id=message.id,
        name=message.name,
        currency=message.currency or (_DEFAULT.currency if defaults else ""),
        rounding=rounding,
        country_code=message.country_code,
        national_prefix=message.national_prefix,
        international_prefix=message.international_prefix,
        cost_decimals=message.cost_decimals or _DEFAULT.cost_decimals,
    )


def extension(extension: Extension) -> types_pb2.Extension:
    return types_pb2.Extension(
        id=extension.id,
        tenant_id=extension.tenant_id,
        number=extension.number,
        name=extension.name,
    )


def extension_to_create(request: pb.CreateExtensionRequest) -> Extension:
    if not request.HasField("extension"):
        raise invalid_field("extension", REQUIRED)
    violations = Violations()
    extension = _read_extension(request.extension)
    violations.merge(check_extension(extension), "extension.")
    violations.raise_if_any()
    return extension


def extension_to_update(request: pb.UpdateExtensionRequest) -> tuple[Extension, frozenset[str]]:
    """The new values, and the fields to change: without a mask, those that are set."""
    if not request.HasField("extension"):
        raise invalid_field("extension", REQUIRED)
    violations = Violations()
    changed = fields.changed(request.update_mask.paths, _EXTENSION_FIELDS, violations)
    if not request.update_mask.paths:
        changed = fields.set_in(request.extension, _EXTENSION_FIELDS)
    extension = _read_extension(request.extension)
    # The checks of the fields are independent, so violations in unchanged fields are dropped.
    violations.merge(check_extension(extension), "extension.")
    violations.drop_unchanged(changed, "extension.")
    fields.own_id(extension.id, "extension.id", violations)
    violations.raise_if_any()
    return extension, changed


def _read_extension(message: types_pb2.Extension) -> Extension:
    return Extension(
        id=message.id, tenant_id=message.tenant_id, number=message.number, name=message.name
    )
