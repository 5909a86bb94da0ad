"""``tollwire tokens``: access tokens."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.cli.confirm import confirm, yes_option
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.groups import add_alias
from tollwire.service.cli.listing import Listing, limit_option, print_listing, table_options
from tollwire.service.cli.output import note, print_fields, print_json
from tollwire.service.cli.settings import with_settings
from tollwire.service.cli.tables import exact, number, text, time
from tollwire.service.cli.values import ID, TIME, EnumParameter, enum_name, write_time
from tollwire.v1 import access_service_pb2 as pb

if TYPE_CHECKING:
    from tollwire.service.settings.sources import Loaded

ROLE: EnumDescriptor = pb.Role.DESCRIPTOR


@click.group()
def tokens() -> None:
    """Manage access tokens. Each has a role and a scope: the tenants that it gives access to."""


@tokens.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=EnumParameter(ROLE),
    required=True,
    help="rater, ingest, reader, operator or admin.",
)
@click.option(
    "--tenant",
    "tenant_ids",
    type=ID,
    multiple=True,
    help="A tenant that it gives access to. Repeatable.",
)
@click.option("--every-tenant", is_flag=True, help="All tenants, including future ones.")
@click.option(
    "--expires", "expires_at", type=TIME, help="The time when it expires. Default: never."
)
@click.option(
    "--certificate-identity",
    metavar="TEXT",
    default="",
    help="The identity in a client certificate that can be used instead of the token.",
)
@connected
def create_token(client: Client, expires_at: Timestamp | None, **values: Any) -> None:
    """Create a token for NAME, its holder. The text of the token is shown only once."""
    token = pb.Token(**values, expires_at=expires_at)
    answer = client.create_token(pb.CreateTokenRequest(token=token))
    if client.as_json:
        print_json(answer)
        return
    _show(answer.token, ("token", answer.secret))
    note("the token is not shown again: store it where only its holder has access")


LIST_COLUMNS = (
    number("id", lambda t: str(t.id)),
    text("name", lambda t: t.name),
    exact("role", lambda t: enum_name(ROLE, t.role)),
    exact("tenants", lambda t: _tenants(t), 1),
    text("certificate", lambda t: t.certificate_identity, 4),
    time("created", lambda t: write_time(t.created_at), 5),
    time("expires", lambda t: _expires(t), 2),
    time("revoked", lambda t: _revoked(t), 3),
)


@tokens.command("list")
@table_options(LIST_COLUMNS)
@click.option("--revoked", "include_revoked", is_flag=True, help="List revoked tokens too.")
@limit_option
@connected
def list_tokens(client: Client, include_revoked: bool, limit: int) -> None:
    """List tokens by id, without their texts."""

    found = partial(client.list_tokens, include_revoked=include_revoked)
    print_listing(client, Listing(found, limit), LIST_COLUMNS, "no tokens")


@tokens.command("show")
@click.argument("token_id", metavar="ID", type=ID)
@connected
def get_token(client: Client, token_id: int) -> None:
    """Show one token, without its text."""
    _print(client, client.get_token(pb.GetTokenRequest(id=token_id)))


@tokens.command("revoke")
@click.argument("token_id", metavar="ID", type=ID)
@yes_option
@connected
def revoke_token(client: Client, token_id: int, yes: bool) -> None:
    """Revoke a token permanently. All servers refuse it within a second."""
    confirm(f"Revoke token {token_id} permanently?", yes=yes)
    request = pb.RevokeTokenRequest(id=token_id)
    _print(client, client.revoke_token(request))


@with_settings("first", ["database"])
@click.option(
    "--name", default="first administrator", show_default=True, help="The holder of the token."
)
def first_token(loaded: Loaded, name: str) -> None:
    """Print the first administrator's token.

    Writes to the database directly, without a server. Refused if an administrator of all tenants
    already has a valid token.
    """
    # Imported here, so that the client commands start without loading the server.
    from tollwire.service.process import maintenance

    sys.exit(maintenance.first_token(loaded.settings, name))


tokens.add_command(first_token)
add_alias(tokens, "create", create_token)
add_alias(tokens, "get", get_token)


def _print(client: Client, token: pb.Token) -> None:
    if client.as_json:
        print_json(token)
    else:
        _show(token)


def _show(token: pb.Token, *more: tuple[str, str]) -> None:
    print_fields(
        [
            ("id", str(token.id)),
            ("name", token.name),
            ("role", enum_name(ROLE, token.role)),
            ("tenants", _tenants(token)),
            ("certificate", token.certificate_identity),
            ("created", write_time(token.created_at)),
            ("created by", token.created_by),
            ("expires", _expires(token)),
            ("revoked", _revoked(token)),
            *more,
        ]
    )


def _tenants(token: pb.Token) -> str:
    return "every tenant" if token.every_tenant else ", ".join(map(str, token.tenant_ids))


def _expires(token: pb.Token) -> str:
    return write_time(token.expires_at) if token.HasField("expires_at") else ""


def _revoked(token: pb.Token) -> str:
    return write_time(token.revoked_at) if token.HasField("revoked_at") else ""
