"""Tenants and extensions: create, read, list, update, delete, and every refusal."""

from __future__ import annotations

import grpc
import pytest

from tests.integration.client import Client, invalid, make_call, not_found, refused
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
MAX_ID = 2**63 - 1


def get_tenant(client: Client, tenant_id: int) -> types.Tenant:
    return client.tenants.GetTenant(tenant_pb.GetTenantRequest(id=tenant_id))


def update_tenant(client: Client, tenant: types.Tenant, *paths: str) -> types.Tenant:
    request = tenant_pb.UpdateTenantRequest(tenant=tenant)
    request.update_mask.paths.extend(paths)
    return client.tenants.UpdateTenant(request)


def delete_tenant(client: Client, tenant_id: int) -> None:
    client.tenants.DeleteTenant(tenant_pb.DeleteTenantRequest(id=tenant_id))


def get_extension(client: Client, extension_id: int) -> types.Extension:
    return client.tenants.GetExtension(tenant_pb.GetExtensionRequest(id=extension_id))


def update_extension(client: Client, extension: types.Extension, *paths: str) -> types.Extension:
    request = tenant_pb.UpdateExtensionRequest(extension=extension)
    request.update_mask.paths.extend(paths)
    return client.tenants.UpdateExtension(request)


def delete_extension(client: Client, extension_id: int) -> None:
    client.tenants.DeleteExtension(tenant_pb.DeleteExtensionRequest(id=extension_id))


def list_tenants(client: Client, page_size: int = 0) -> list[types.Tenant]:
    found: list[types.Tenant] = []
    token = ""
    while True:
        page = client.tenants.ListTenants(
            tenant_pb.ListTenantsRequest(page_size=page_size, page_token=token)
        )
        found.extend(page.tenants)
        token = page.next_page_token
        if not token:
            return found


def list_extensions(client: Client, tenant_id: int, page_size: int = 0) -> list[list[int]]:
    pages: list[list[int]] = []
    token = ""
    while True:
        page = client.tenants.ListExtensions(
            tenant_pb.ListExtensionsRequest(
                tenant_id=tenant_id, page_size=page_size, page_token=token
            )
        )
        pages.append([extension.id for extension in page.extensions])
        token = page.next_page_token
        if not token:
            return pages


def test_a_tenant_gets_the_defaults(client: Client) -> None:
    tenant = client.tenants.CreateTenant(
        tenant_pb.CreateTenantRequest(tenant=types.Tenant(name="Müller & Söhne"))
    )
    assert tenant.id > 0
    assert tenant.name == "Müller & Söhne"
    assert tenant.currency == "USD"
    assert tenant.rounding == types.ROUNDING_HALF_UP
    assert tenant.created_at.seconds > 0
    assert get_tenant(client, tenant.id) == tenant


def test_a_tenant_keeps_every_field(client: Client) -> None:
    fields = {
        "name": "n" * 200,
        "currency": "EUR",
        "rounding": types.ROUNDING_DOWN,
        "country_code": "4930",
        "national_prefix": "0" * 8,
        "international_prefix": "01112345",
    }
    tenant = client.new_tenant(**fields)
    stored = get_tenant(client, tenant.id)
    assert {name: getattr(stored, name) for name in fields} == fields


def test_created_at_of_a_request_is_ignored(client: Client) -> None:
    tenant = types.Tenant(name="x")
    tenant.created_at.seconds = 1
    made = client.tenants.CreateTenant(tenant_pb.CreateTenantRequest(tenant=tenant))
    assert made.created_at.seconds > 1


def test_the_callers_own_id_is_kept_and_never_given_again(client: Client) -> None:
    first = client.new_tenant()
    own = first.id + 1000
    assert client.new_tenant(id=own).id == own
    with refused(ALREADY_EXISTS, "TENANT_EXISTS"):
        client.new_tenant(id=own)
    following = client.new_tenant()
    assert following.id > own
    extension = client.new_extension(own, id=own * 10)
    assert extension.id == own * 10
    with refused(ALREADY_EXISTS, "EXTENSION_EXISTS"):
        client.new_extension(first.id, id=own * 10)
    assert client.new_extension(own).id > own * 10


def test_an_id_is_not_used_again_after_a_deletion(client: Client) -> None:
    tenant = client.new_tenant()
    extension = client.new_extension(tenant.id)
    delete_extension(client, extension.id)
    delete_tenant(client, tenant.id)
    assert client.new_tenant().id > tenant.id
    assert client.new_extension(client.new_tenant().id).id > extension.id


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": -1}, "tenant.id"),
        ({"name": "x" * 201}, "tenant.name"),
        ({"name": "a\0b"}, "tenant.name"),
        ({"currency": "usd"}, "tenant.currency"),
        ({"currency": "US"}, "tenant.currency"),
        ({"currency": "USDT"}, "tenant.currency"),
        ({"currency": "U$D"}, "tenant.currency"),
        ({"currency": "ÄÖÜ"}, "tenant.currency"),
        ({"rounding": 5}, "tenant.rounding"),
        ({"rounding": -1}, "tenant.rounding"),
        ({"country_code": "12345"}, "tenant.country_code"),
        ({"country_code": "+44"}, "tenant.country_code"),
        ({"country_code": "٤٤"}, "tenant.country_code"),
        ({"national_prefix": "0"}, "tenant.country_code"),
        ({"national_prefix": "012345678", "country_code": "44"}, "tenant.national_prefix"),
        ({"national_prefix": "a", "country_code": "44"}, "tenant.national_prefix"),
        ({"international_prefix": "012345678"}, "tenant.international_prefix"),
        ({"international_prefix": "+"}, "tenant.international_prefix"),
    ],
)
def test_a_tenant_that_is_refused(client: Client, fields: dict[str, object], field: str) -> None:
    with invalid(field):
        client.new_tenant(**fields)


def test_all_bad_fields_are_named_at_once(client: Client) -> None:
    with invalid("tenant.name", "tenant.currency", "tenant.rounding", "tenant.country_code"):
        client.new_tenant(name="x" * 201, currency="x", rounding=9, country_code="x")


def test_a_missing_tenant_is_refused(client: Client) -> None:
    with invalid("tenant"):
        client.tenants.CreateTenant(tenant_pb.CreateTenantRequest())
    with invalid("tenant"):
        client.tenants.UpdateTenant(tenant_pb.UpdateTenantRequest())
    with invalid("extension"):
        client.tenants.CreateExtension(tenant_pb.CreateExtensionRequest())
    with invalid("extension"):
        client.tenants.UpdateExtension(tenant_pb.UpdateExtensionRequest())


def test_an_update_with_a_mask_changes_the_named_fields(client: Client) -> None:
    tenant = client.new_tenant(name="old", country_code="44", international_prefix="00")
    changed = update_tenant(
        client,
        types.Tenant(id=tenant.id, name="new", currency="EUR"),
        "name",
        "international_prefix",
    )
    expected = types.Tenant()
    expected.CopyFrom(tenant)
    expected.name = "new"
    expected.international_prefix = ""
    assert changed == expected
    assert get_tenant(client, tenant.id) == expected


@pytest.fixture
def dialling(client: Client) -> types.Tenant:
    """A tenant with a value other than the default in each field that decides what calls cost."""
    return client.new_tenant(
        name="old",
        currency="EUR",
        rounding=types.ROUNDING_UP,
        country_code="44",
        national_prefix="0",
        international_prefix="00",
        cost_decimals=5,
    )


def test_renaming_a_tenant_changes_no_bill(client: Client, dialling: types.Tenant) -> None:
    client.new_rate(dialling.id, "44", "0.0001", 1)
    call = make_call(dialling.id, "020 7946", 1)
    assert client.rate(call).cost == "0.00001"  # rounded up; 0 with half up
    changed = update_tenant(client, types.Tenant(id=dialling.id, name="new"))
    expected = types.Tenant()
    expected.CopyFrom(dialling)
    expected.name = "new"
    assert changed == expected
    assert get_tenant(client, dialling.id) == expected
    assert client.rate(call).cost == "0.00001"
    assert update_tenant(client, types.Tenant(id=dialling.id)) == expected


def test_an_update_without_a_mask_checks_the_set_fields(
    client: Client, dialling: types.Tenant
) -> None:
    for field, value in (
        ("currency", "eur"),
        ("rounding", 9),
        ("country_code", "x"),
        ("national_prefix", "x"),
        ("international_prefix", "+"),
    ):
        with invalid(f"tenant.{field}"):
            update_tenant(client, types.Tenant(id=dialling.id, **{field: value}))
    changed = update_tenant(client, types.Tenant(id=dialling.id, national_prefix="8"))
    assert (changed.country_code, changed.national_prefix) == ("44", "8")


def test_an_update_of_all_fields_states_those_that_determine_costs(
    client: Client, dialling: types.Tenant
) -> None:
    sent = types.Tenant(id=dialling.id, name="new")
    with invalid("tenant.currency", "tenant.rounding") as refusal:
        update_tenant(client, sent, "*")
    assert all("name only the fields to change" in what for what in refusal.violations.values())
    assert get_tenant(client, dialling.id) == dialling
    sent.currency, sent.rounding = "USD", types.ROUNDING_DOWN
    changed = update_tenant(client, sent, "*")
    assert (changed.name, changed.currency, changed.rounding) == (
        *("new", "USD", types.ROUNDING_DOWN),
    )
    assert changed.country_code == changed.national_prefix == changed.international_prefix == ""
    assert changed.created_at == dialling.created_at
    assert changed.cost_decimals == 5


def test_masks_take_the_names_of_json(client: Client, dialling: types.Tenant) -> None:
    changed = update_tenant(client, types.Tenant(id=dialling.id), "internationalPrefix")
    assert (changed.international_prefix, changed.country_code) == ("", "44")
    rate = client.new_rate(dialling.id, "44", "0.0100", 60, connect_fee="1")
    changed_rate = client.update_rate(
        types.Rate(id=rate.id, cost_per_minute="0.0200"), "costPerMinute"
    )
    assert (changed_rate.cost_per_minute, changed_rate.connect_fee) == ("0.0200", "1.0000")
    extension = client.new_extension(dialling.id)
    with invalid("update_mask"):
        update_extension(client, types.Extension(id=extension.id), "tenantId")


@pytest.mark.parametrize("path", ["id", "created_at", "nonsense", "", "name.x", "Name", "tenant"])
def test_an_unknown_path_in_the_mask_is_refused(
    client: Client, tenant: types.Tenant, path: str
) -> None:
    with invalid("update_mask"):
        update_tenant(client, types.Tenant(id=tenant.id, name="new"), "name", path)
    assert get_tenant(client, tenant.id) == tenant


def test_an_update_is_checked_across_fields(client: Client) -> None:
    tenant = client.new_tenant(country_code="44", national_prefix="0")
    with invalid("tenant.country_code"):
        update_tenant(client, types.Tenant(id=tenant.id), "country_code")
    assert get_tenant(client, tenant.id).country_code == "44"


def test_unknown_ids(client: Client) -> None:
    with not_found("TENANT_NOT_FOUND"):
        get_tenant(client, MAX_ID)
    with not_found("TENANT_NOT_FOUND"):
        update_tenant(client, types.Tenant(id=MAX_ID, name="x"))
    with not_found("TENANT_NOT_FOUND"):
        delete_tenant(client, MAX_ID)
    with not_found("TENANT_NOT_FOUND"):
        client.new_extension(MAX_ID)
    with not_found("EXTENSION_NOT_FOUND"):
        get_extension(client, MAX_ID)
    with not_found("EXTENSION_NOT_FOUND"):
        update_extension(client, types.Extension(id=MAX_ID, number="1"))
    with not_found("EXTENSION_NOT_FOUND"):
        delete_extension(client, MAX_ID)


def test_tenants_are_listed_by_rising_id_over_pages(client: Client) -> None:
    made = [client.new_tenant(name=f"t{index}").id for index in range(5)]
    for page_size in (0, 2, 3, 1000, 2**31 - 1):
        ids = [tenant.id for tenant in list_tenants(client, page_size)]
        assert ids == sorted(set(ids))
        assert set(made) <= set(ids)


def test_extensions_are_listed_by_rising_id_over_pages(
    client: Client, tenant: types.Tenant
) -> None:
    other = client.new_tenant()
    client.new_extension(other.id)
    made = [client.new_extension(tenant.id, str(index)).id for index in range(53)]
    assert list_extensions(client, tenant.id) == [made[:50], made[50:]]
    assert list_extensions(client, tenant.id, 53) == [made]
    assert list_extensions(client, tenant.id, 1000) == [made]
    assert list_extensions(client, tenant.id, 2**31 - 1) == [made]
    assert list_extensions(client, tenant.id, 1) == [[extension] for extension in made]
    everything = [extension for page in list_extensions(client, 0, 20) for extension in page]
    assert set(made) < set(everything)
    assert everything == sorted(everything)
    with invalid("page_size"):
        list_extensions(client, tenant.id, -1)


def test_a_page_token_belongs_to_its_filters(client: Client, tenant: types.Tenant) -> None:
    for number in "123":
        client.new_extension(tenant.id, number)
    request = tenant_pb.ListExtensionsRequest(tenant_id=tenant.id, page_size=1)
    token = client.tenants.ListExtensions(request).next_page_token
    assert token
    other = client.new_tenant()
    with invalid("page_token"):
        client.tenants.ListExtensions(
            tenant_pb.ListExtensionsRequest(tenant_id=other.id, page_size=1, page_token=token)
        )
    # Another page size continues at the same position.
    request = tenant_pb.ListExtensionsRequest(tenant_id=tenant.id, page_size=10, page_token=token)
    assert len(client.tenants.ListExtensions(request).extensions) == 2


def test_an_extension_keeps_every_field(client: Client, tenant: types.Tenant) -> None:
    extension = client.new_extension(tenant.id, "#1 ☎" * 16, name="Reception " * 20)
    assert extension.id > 0
    assert (extension.tenant_id, extension.number) == (tenant.id, "#1 ☎" * 16)
    assert get_extension(client, extension.id) == extension


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": -1}, "extension.id"),
        ({"tenant_id": 0}, "extension.tenant_id"),
        ({"tenant_id": -1}, "extension.tenant_id"),
        ({"number": ""}, "extension.number"),
        ({"number": "1" * 65}, "extension.number"),
        ({"number": "1\x00"}, "extension.number"),
        ({"name": "n" * 201}, "extension.name"),
        ({"name": "\x00"}, "extension.name"),
    ],
)
def test_an_extension_that_is_refused(
    client: Client, tenant: types.Tenant, fields: dict[str, object], field: str
) -> None:
    given = {"tenant_id": tenant.id, "number": "101"} | fields
    with invalid(field):
        client.new_extension(**given)


def test_extensions_are_updated_by_mask_and_stay_with_their_tenant(
    client: Client, tenant: types.Tenant
) -> None:
    extension = client.new_extension(tenant.id, "101", name="old")
    changed = update_extension(
        client, types.Extension(id=extension.id, number="999", name="new"), "name"
    )
    assert (changed.number, changed.name) == ("101", "new")
    changed = update_extension(
        client, types.Extension(id=extension.id, tenant_id=tenant.id, number="102")
    )
    assert (changed.number, changed.name) == ("102", "new")
    changed = update_extension(client, types.Extension(id=extension.id, name="newer"))
    assert (changed.number, changed.name) == ("102", "newer")
    changed = update_extension(client, types.Extension(id=extension.id, number="102"), "*")
    assert (changed.number, changed.name) == ("102", "")
    with invalid("extension.number"):
        update_extension(client, types.Extension(id=extension.id, name="x"), "*")
    assert get_extension(client, extension.id) == changed
    other = client.new_tenant()
    with invalid("extension.tenant_id"):
        update_extension(client, types.Extension(id=extension.id, tenant_id=other.id, number="103"))
    with invalid("update_mask"):
        update_extension(client, types.Extension(id=extension.id, tenant_id=tenant.id), "tenant_id")


def test_a_deleted_tenants_rates_and_extensions_are_deleted(client: Client) -> None:
    tenant = client.new_tenant()
    extension = client.new_extension(tenant.id)
    client.new_rate(tenant.id, "44")
    delete_tenant(client, tenant.id)
    with not_found("TENANT_NOT_FOUND"):
        get_tenant(client, tenant.id)
    with not_found("EXTENSION_NOT_FOUND"):
        get_extension(client, extension.id)
    with not_found("TENANT_NOT_FOUND"):
        client.rate(make_call(tenant.id))
    with not_found("TENANT_NOT_FOUND"):
        delete_tenant(client, tenant.id)
    with not_found("TENANT_NOT_FOUND"):
        client.list_rates(tenant_id=tenant.id)


def test_a_tenant_that_is_created_again_starts_empty(client: Client) -> None:
    tenant = client.new_tenant()
    client.new_rate(tenant.id, "44")
    before = client.rate(make_call(tenant.id)).rate_revision
    delete_tenant(client, tenant.id)
    client.new_tenant(id=tenant.id)
    with not_found("NO_RATE"):
        client.rate(make_call(tenant.id))
    client.new_rate(tenant.id, "44", "0.5")
    rated = client.rate(make_call(tenant.id))
    assert rated.cost == "0.5000"
    assert rated.rate_revision > before


def test_objects_that_cdrs_refer_to_cannot_be_deleted(client: Client, tenant: types.Tenant) -> None:
    used = client.new_extension(tenant.id, "101")
    unused = client.new_extension(tenant.id, "102")
    client.create_cdr(make_call(tenant.id, extension_id=used.id))
    with refused(FAILED_PRECONDITION, "EXTENSION_IN_USE"):
        delete_extension(client, used.id)
    with refused(FAILED_PRECONDITION, "TENANT_IN_USE"):
        delete_tenant(client, tenant.id)
    delete_extension(client, unused.id)
    assert get_tenant(client, tenant.id) == tenant
    assert get_extension(client, used.id) == used


def test_the_currency_of_a_tenant_with_cdrs_is_fixed(client: Client, tenant: types.Tenant) -> None:
    update_tenant(client, types.Tenant(id=tenant.id, currency="EUR"), "currency")
    client.create_cdr(make_call(tenant.id))
    with refused(FAILED_PRECONDITION, "CURRENCY_IN_USE"):
        update_tenant(client, types.Tenant(id=tenant.id, currency="USD"), "currency")
    # The same currency is no change, and the other fields stay free.
    changed = update_tenant(client, types.Tenant(id=tenant.id, name="B", currency="EUR"))
    assert (changed.name, changed.currency) == ("B", "EUR")
