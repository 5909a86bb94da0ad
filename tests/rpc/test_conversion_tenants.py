"""Tenants and extensions, from the wire and to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import Extension, Rounding, Tenant
from tollwire.service.rpc.conversion import tenants
from tollwire.v1 import tenant_service_pb2 as pb
from tollwire.v1 import types_pb2

TENANT_FIELDS = {
    *("name", "currency", "rounding", "country_code", "national_prefix"),
    *("international_prefix", "cost_decimals"),
}

FULL = Tenant(
    id=9,
    name="Müller",
    currency="EUR",
    rounding=Rounding.DOWN,
    country_code="49",
    national_prefix="0",
    international_prefix="00",
)


def wrong_fields(act: Callable[[], object]) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        act()
    assert refused.value.reason == "INVALID_FIELD"
    return sorted(violation.field for violation in refused.value.violations)


def create(**fields: Any) -> Tenant:
    return tenants.tenant_to_create(pb.CreateTenantRequest(tenant=types_pb2.Tenant(**fields)))


def update(sent: types_pb2.Tenant, *paths: str) -> tuple[Tenant, frozenset[str]]:
    request = pb.UpdateTenantRequest(tenant=sent)
    request.update_mask.paths.extend(paths)
    return tenants.tenant_to_update(request)


def test_a_shown_tenant_can_be_sent_back() -> None:
    shown = tenants.tenant(FULL)
    assert tenants.tenant_to_create(pb.CreateTenantRequest(tenant=shown)) == FULL
    assert update(shown) == (FULL, TENANT_FIELDS)
    assert update(shown, "*") == (FULL, TENANT_FIELDS)


def test_created_at_is_shown_and_not_read() -> None:
    shown = tenants.tenant(Tenant(id=1, created_at_ns=5))
    assert shown.created_at == Timestamp(nanos=5)
    assert tenants.tenant_to_create(pb.CreateTenantRequest(tenant=shown)).created_at_ns == 0


def test_defaults_of_a_creation() -> None:
    assert create() == Tenant(currency="USD", rounding=Rounding.HALF_UP)


def test_an_update_without_a_mask_takes_the_set_fields() -> None:
    assert update(types_pb2.Tenant(id=9))[1] == frozenset()
    tenant, changed = update(types_pb2.Tenant(id=9, name="new", national_prefix="0"))
    assert (tenant.name, changed) == ("new", {"name", "national_prefix"})
    sent = pb.UpdateExtensionRequest(extension=types_pb2.Extension(id=9, name="new"))
    assert tenants.extension_to_update(sent)[1] == {"name"}


def test_a_replacement_states_the_fields_that_determine_costs() -> None:
    both = ["tenant.currency", "tenant.rounding"]
    assert wrong_fields(lambda: update(types_pb2.Tenant(id=9, name="new"), "*")) == both
    assert wrong_fields(lambda: update(types_pb2.Tenant(id=9, currency="EUR"), "*")) == both[1:]
    stated = types_pb2.Tenant(id=9, currency="EUR", rounding=types_pb2.ROUNDING_UP)
    assert update(stated, "*")[1] == TENANT_FIELDS - {"cost_decimals"}
    stated.cost_decimals = 6
    assert update(stated, "*")[1] == TENANT_FIELDS


def test_json_names_in_a_mask() -> None:
    assert update(tenants.tenant(FULL), "countryCode", "name")[1] == {"country_code", "name"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": -1}, "id"),
        ({"name": "x" * 201}, "name"),
        ({"name": "\0"}, "name"),
        ({"currency": "usd"}, "currency"),
        ({"rounding": 5}, "rounding"),
        ({"rounding": -1}, "rounding"),
        ({"country_code": "12345"}, "country_code"),
        ({"country_code": "4", "national_prefix": "123456789"}, "national_prefix"),
        ({"international_prefix": "+"}, "international_prefix"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], field: str) -> None:
    assert wrong_fields(lambda: create(**fields)) == [f"tenant.{field}"]
    assert wrong_fields(lambda: update(types_pb2.Tenant(**{"id": 9, **fields}))) == [
        f"tenant.{field}"
    ]


def test_all_wrong_fields_are_named_at_once() -> None:
    assert wrong_fields(lambda: create(id=-1, name="\0", currency="x", rounding=9)) == [
        *("tenant.currency", "tenant.id", "tenant.name", "tenant.rounding")
    ]


@pytest.mark.parametrize("field", sorted(TENANT_FIELDS))
def test_each_field_can_be_updated_alone(field: str) -> None:
    tenant, changed = update(tenants.tenant(FULL), field)
    assert changed == {field}
    assert getattr(tenant, field) == getattr(FULL, field)


def test_only_the_fields_in_the_mask_are_checked() -> None:
    spoiled = types_pb2.Tenant(id=9, name="new", rounding=99)
    assert update(spoiled, "name")[0].name == "new"
    assert wrong_fields(lambda: update(spoiled, "name", "rounding")) == ["tenant.rounding"]
    # An empty text is no rounding; an empty currency is left to the subject, which has the list.
    assert wrong_fields(lambda: update(types_pb2.Tenant(id=9), "rounding")) == ["tenant.rounding"]
    assert update(types_pb2.Tenant(id=9), "currency")[0].currency == ""


@pytest.mark.parametrize("path", ["id", "tenant_id", "created_at", "tenant.name", "Name", ""])
def test_a_path_that_cannot_be_updated(path: str) -> None:
    sent = types_pb2.Tenant(id=9)
    assert wrong_fields(lambda: update(sent, "name", path)) == ["update_mask"]
    request = pb.UpdateExtensionRequest(extension=types_pb2.Extension(id=9))
    request.update_mask.paths.append(path)
    assert wrong_fields(lambda: tenants.extension_to_update(request)) == ["update_mask"]


@pytest.mark.parametrize("tenant_id", [0, -1])
def test_an_update_needs_an_id(tenant_id: int) -> None:
    sent = types_pb2.Tenant(id=tenant_id)
    assert wrong_fields(lambda: update(sent, "name")) == ["tenant.id"]
    assert wrong_fields(lambda: update(sent)) == ["tenant.id"]
    request = pb.UpdateExtensionRequest(extension=types_pb2.Extension(id=tenant_id, number="1"))
    assert wrong_fields(lambda: tenants.extension_to_update(request)) == ["extension.id"]


def test_required_messages() -> None:
    for act, field in (
        (lambda: tenants.tenant_to_create(pb.CreateTenantRequest()), "tenant"),
        (lambda: tenants.tenant_to_update(pb.UpdateTenantRequest()), "tenant"),
        (lambda: tenants.extension_to_create(pb.CreateExtensionRequest()), "extension"),
        (lambda: tenants.extension_to_update(pb.UpdateExtensionRequest()), "extension"),
    ):
        assert wrong_fields(act) == [field]


def test_extensions() -> None:
    extension = Extension(id=5, tenant_id=9, number="#101 ☎", name="Reception")
    shown = tenants.extension(extension)
    assert tenants.extension_to_create(pb.CreateExtensionRequest(extension=shown)) == extension
    request = pb.UpdateExtensionRequest(extension=shown)
    assert tenants.extension_to_update(request) == (extension, {"number", "name"})
    request.update_mask.paths.append("name")
    assert tenants.extension_to_update(request) == (extension, {"name"})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": -1}, "id"),
        ({"tenant_id": 0}, "tenant_id"),
        ({"tenant_id": -1}, "tenant_id"),
        ({"number": ""}, "number"),
        ({"number": "1" * 65}, "number"),
        ({"number": "\0"}, "number"),
        ({"name": "x" * 201}, "name"),
        ({"name": "\0"}, "name"),
    ],
)
def test_a_wrong_field_of_an_extension_is_named(fields: dict[str, Any], field: str) -> None:
    sent = types_pb2.Extension(**({"id": 5, "tenant_id": 9, "number": "101"} | fields))
    create = pb.CreateExtensionRequest(extension=sent)
    assert wrong_fields(lambda: tenants.extension_to_create(create)) == [f"extension.{field}"]
    update = pb.UpdateExtensionRequest(extension=sent, update_mask={"paths": ["*"]})
    if field != "tenant_id":  # which the subject compares with the owner
        assert wrong_fields(lambda: tenants.extension_to_update(update)) == [f"extension.{field}"]
    if field == "name":
        update.update_mask.paths[:] = ["number"]
        assert tenants.extension_to_update(update)[1] == {"number"}
