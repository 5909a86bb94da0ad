"""``tollwire tenants`` and ``tollwire extensions``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click
from google.protobuf.field_mask_pb2 import FieldMask

from tollwire.client import CallInfo
from tollwire.service.cli.confirm import confirm, yes_option
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.listing import Listing, limit_option, print_listing, table_options
from tollwire.service.cli.output import (
    json_document,
    note,
    print_document,
    print_fields,
    print_json,
)
from tollwire.service.cli.tables import exact, number, text, time
from tollwire.service.cli.values import ID, ROUNDING, EnumParameter, enum_name, write_time
from tollwire.v1.tenant_service_pb2 import (
    CreateExtensionRequest,
    CreateTenantRequest,
    DeleteExtensionRequest,
    DeleteTenantRequest,
    GetExtensionRequest,
    GetTenantRequest,
    UpdateExtensionRequest,
    UpdateTenantRequest,
)
from tollwire.v1.types_pb2 import Extension, Tenant


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The options that the user gave."""
    return {name: value for name, value in values.items() if value is not None}


def changes(values: dict[str, Any]) -> tuple[dict[str, Any], FieldMask]:
    """The options that the user gave (at least one), and the update mask that names them."""
    chosen = given(values)
    if not chosen:
        raise click.UsageError("nothing to change: give at least one option")
    return chosen, FieldMask(paths=sorted(chosen))


# --- tenants ---------------------------------------------------------------------------------


@click.group()
def tenants() -> None:
    """Manage tenants: the customers that own rates, extensions and CDRs."""


def _tenant_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        [
            click.option("--currency", metavar="CODE", help="The ISO 4217 code. Default USD."),
            click.option(
                "--rounding",
                type=EnumParameter(ROUNDING),
                help="How costs are rounded. Default half-up.",
            ),
            click.option(
                "--country-code", metavar="DIGITS", help='The country code, such as "49".'
            ),
            click.option(
                "--cost-decimals",
                type=click.IntRange(4, 8),
                metavar="4..8",
                help="The number of decimals of costs. Default 4.",
            ),
            click.option(
                "--national-prefix",
                metavar="DIGITS",
                help='The prefix of national numbers, such as "0".',
            ),
            click.option(
                "--international-prefix",
                metavar="DIGITS",
                help='The prefix of international numbers, such as "00" or "011".',
            ),
        ]
    ):
        command = option(command)
    return command


def _check_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("a tenant needs a name")
    return value


@tenants.command("add")
@click.option("--id", type=ID, help="The id. Default: the server chooses one.")
@click.option("--name", required=True, callback=_check_name, help="The name, up to 200 characters.")
@_tenant_options
@connected
def add_tenant(client: Client, **values: Any) -> None:
    """Add a tenant."""
    request = CreateTenantRequest(tenant=Tenant(**given(values)))
    _show_tenant(client, client.create_tenant(request))


TENANT_COLUMNS = (
    number("id", lambda t: str(t.id)),
    text("name", lambda t: t.name),
    exact("currency", lambda t: t.currency, 1),
    exact("rounding", lambda t: enum_name(ROUNDING, t.rounding), 2),
    exact("decimals", lambda t: str(t.cost_decimals), 3),
    exact("country", lambda t: t.country_code, 3),
    exact("national", lambda t: t.national_prefix, 4),
    exact("international", lambda t: t.international_prefix, 5),
    time("created", lambda t: write_time(t.created_at), is_default=False),
)


@tenants.command("list")
@table_options(TENANT_COLUMNS)
@limit_option
@connected
def list_tenants(client: Client, limit: int) -> None:
    """List tenants by id."""

    print_listing(client, Listing(client.list_tenants, limit), TENANT_COLUMNS, "no tenants")


@tenants.command("show")
@click.argument("tenant_id", metavar="ID", type=ID)
@connected
def show_tenant(client: Client, tenant_id: int) -> None:
    """Show one tenant."""
    request = GetTenantRequest(id=tenant_id)
    _show_tenant(client, client.get_tenant(request))


@tenants.command("update")
@click.argument("tenant_id", metavar="ID", type=ID)
@click.option("--name", callback=_check_name, help="The name, up to 200 characters.")
@_tenant_options
@connected
def update_tenant(client: Client, tenant_id: int, **values: Any) -> None:
    """Update a tenant. Recorded costs do not change."""
    chosen, mask = changes(values)
    request = UpdateTenantRequest(tenant=Tenant(id=tenant_id, **chosen), update_mask=mask)
    info = CallInfo()
    tenant = client.update_tenant(request, info=info)
    _show_tenant(client, tenant, str(info.rate_revision or ""))


@tenants.command("delete")
@click.argument("tenant_id", metavar="ID", type=ID)
@yes_option
@connected
def delete_tenant(client: Client, tenant_id: int, yes: bool) -> None:
    """Delete a tenant with its rates and extensions. A tenant that has CDRs is not deleted."""
    confirm(f"Delete tenant {tenant_id} with all its rates and extensions?", yes=yes)
    client.delete_tenant(DeleteTenantRequest(id=tenant_id))
    note(f"tenant {tenant_id} deleted")


def _show_tenant(client: Client, tenant: Tenant, rate_revision: str = "") -> None:
    if client.as_json:
        document = json_document(tenant)
        if rate_revision:
            document["rate_revision"] = rate_revision
        print_document(document)
        return
    print_fields(
        [
            ("id", str(tenant.id)),
            ("name", tenant.name),
            ("currency", tenant.currency),
            ("rounding", enum_name(ROUNDING, tenant.rounding)),
            ("country code", tenant.country_code),
            ("national prefix", tenant.national_prefix),
            ("international prefix", tenant.international_prefix),
            ("created", write_time(tenant.created_at)),
            ("rate revision", rate_revision),
        ]
    )


# --- extensions ------------------------------------------------------------------------------


@click.group()
def extensions() -> None:
    """Manage extensions: the telephones of tenants."""


@extensions.command("add")
@click.option("--tenant", "tenant_id", type=ID, required=True, help="The tenant that owns it.")
@click.option("--number", required=True, help="The number, as the tenant writes it.")
@click.option("--name", help="The name, up to 200 characters.")
@click.option("--id", type=ID, help="The id. Default: the server chooses one.")
@connected
def add_extension(client: Client, **values: Any) -> None:
    """Add an extension."""
    request = CreateExtensionRequest(extension=Extension(**given(values)))
    _show_extension(client, client.create_extension(request))


EXTENSION_COLUMNS = (
    number("id", lambda e: str(e.id)),
    number("tenant", lambda e: str(e.tenant_id)),
    exact("number", lambda e: e.number),
    text("name", lambda e: e.name, 1),
)


@extensions.command("list")
@table_options(EXTENSION_COLUMNS)
@click.option("--tenant", "tenant_id", type=ID, help="Only extensions of this tenant.")
@limit_option
@connected
def list_extensions(client: Client, tenant_id: int | None, limit: int) -> None:
    """List extensions by id."""

    found = partial(client.list_extensions, tenant_id=tenant_id or 0)
    print_listing(client, Listing(found, limit), EXTENSION_COLUMNS, "no extensions")


@extensions.command("show")
@click.argument("extension_id", metavar="ID", type=ID)
@connected
def show_extension(client: Client, extension_id: int) -> None:
    """Show one extension."""
    request = GetExtensionRequest(id=extension_id)
    _show_extension(client, client.get_extension(request))


@extensions.command("update")
@click.argument("extension_id", metavar="ID", type=ID)
@click.option("--number", help="The number, as the tenant writes it.")
@click.option("--name", help="The name, up to 200 characters.")
@connected
def update_extension(client: Client, extension_id: int, **values: Any) -> None:
    """Update an extension."""
    chosen, mask = changes(values)
    request = UpdateExtensionRequest(
        extension=Extension(id=extension_id, **chosen), update_mask=mask
    )
    _show_extension(client, client.update_extension(request))


@extensions.command("delete")
@click.argument("extension_id", metavar="ID", type=ID)
@yes_option
@connected
def delete_extension(client: Client, extension_id: int, yes: bool) -> None:
    """Delete an extension. An extension that has CDRs is not deleted."""
    confirm(f"Delete extension {extension_id}?", yes=yes)
    request = DeleteExtensionRequest(id=extension_id)
    client.delete_extension(request)
    note(f"extension {extension_id} deleted")


def _show_extension(client: Client, extension: Extension) -> None:
    if client.as_json:
        print_json(extension)
        return
    print_fields(
        [
            ("id", str(extension.id)),
            ("tenant", str(extension.tenant_id)),
            ("number", extension.number),
            ("name", extension.name),
        ]
    )
