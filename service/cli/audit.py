"""``tollwire audit``: lists administrative changes."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.groups import ListByDefault
from tollwire.service.cli.listing import Listing, limit_option, print_listing, table_options
from tollwire.service.cli.tables import exact, number, text, time
from tollwire.service.cli.tenants import given
from tollwire.service.cli.values import ID, TIME, write_time

COLUMNS = (
    number("id", lambda e: str(e.id)),
    time("time", lambda e: write_time(e.created_at)),
    text("caller", lambda e: e.caller, 1),
    exact("action", lambda e: e.action),
    number("tenant", lambda e: str(e.tenant_id or ""), 2),
    exact("resource", lambda e: e.resource, 3),
    text("before", lambda e: e.before, 4),
    text("after", lambda e: e.after, 5),
)


@click.group(cls=ListByDefault)
def audit() -> None:
    """Show administrative changes. "tollwire audit" alone lists them."""


@audit.command("list")
@click.option("--tenant", "tenant_id", type=ID, help="Only changes of this tenant.")
@click.option("--action", metavar="METHOD", help="Only changes by this method, such as UpdateRate.")
@click.option(
    "--from",
    "created_after",
    type=TIME,
    help="Only changes at or after this time, or date (UTC).",
)
@click.option(
    "--to", "created_before", type=TIME, help="Only changes before this time, or date (UTC)."
)
@table_options(COLUMNS)
@limit_option
@connected
def list_entries(client: Client, limit: int, **filters: Any) -> None:
    """List administrative changes, the newest first: caller, action, before and after."""

    found = partial(client.list_audit_entries, **given(filters))
    print_listing(client, Listing(found, limit), COLUMNS, "no administrative changes")
