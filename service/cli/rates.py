"""``tollwire rates``: single rates. Whole decks: rates_import.py and rates_export.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import click
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.client import CallInfo
from tollwire.service.cli.confirm import confirm, yes_option
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.listing import Listing, limit_option, print_listing, table_options
from tollwire.service.cli.output import note, print_fields, print_json
from tollwire.service.cli.tables import exact, grouped, number, text, time
from tollwire.service.cli.tenants import changes, given
from tollwire.service.cli.values import GIVEN_TEXT, ID, INT32, TimeParameter, write_time
from tollwire.v1.rating_service_pb2 import (
    CreateRateRequest,
    DeleteRateRequest,
    GetRateRequest,
    UpdateRateRequest,
)
from tollwire.v1.types_pb2 import Interval, Rate


class _IntervalParameter(click.ParamType[Interval]):
    name = "interval"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Interval:
        if isinstance(value, Interval):
            return value
        start, _, rest = value.partition(":")
        cost, _, increment = rest.partition(":")
        try:
            return Interval(
                start_seconds=int(start), cost_per_minute=cost, billing_increment=int(increment)
            )
        except ValueError:
            self.fail("must be START_SECONDS:COST_PER_MINUTE:BILLING_INCREMENT", param, ctx)


class _OpenTime(TimeParameter):
    """A time, or an empty text for an open end: then the value is an empty Timestamp."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Timestamp:
        return OPEN if value == "" else super().convert(value, param, ctx)


OPEN = Timestamp()


@click.group()
def rates() -> None:
    """Manage rates: the prices of calls, by the prefix of the number."""


def _rate_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        [
            click.option("--destination", help="The name of the destination."),
            click.option("--connect-fee", metavar="MONEY", help="The fee of each call. Default 0."),
            click.option(
                "--minimum-seconds",
                type=INT32,
                help="The minimum duration: shorter calls are billed for it.",
            ),
            click.option(
                "--interval",
                "intervals",
                multiple=True,
                default=None,
                type=_IntervalParameter(),
                metavar="START:COST:INCREMENT",
                help="The price and increment of the call after START seconds. Repeatable.",
            ),
            click.option(
                "--effective-from",
                type=_OpenTime(),
                help='In effect from this time, or date (UTC). "": no start.',
            ),
            click.option(
                "--effective-to",
                type=_OpenTime(),
                help='In effect before this time, or date (UTC). "": no end.',
            ),
            click.option(
                "--blocked/--not-blocked", default=None, help="Refuse calls that match this rate."
            ),
        ]
    ):
        command = option(command)
    return command


def _rate(values: dict[str, Any]) -> Rate:
    """The rate with the given values. An end that is OPEN stays unset."""
    return Rate(**{name: value for name, value in values.items() if value is not OPEN})


@rates.command("add")
@click.option(
    "--tenant", "tenant_id", type=ID, required=True, help="The tenant that owns the rate."
)
@click.option("--prefix", required=True, help='The prefix, digits; "" matches every number.')
@click.option(
    "--cost-per-minute",
    required=True,
    metavar="MONEY",
    help='The price of a minute, such as "0.0150".',
)
@click.option(
    "--billing-increment", required=True, type=INT32, help="The billing increment in seconds."
)
@_rate_options
@connected
def add_rate(client: Client, **values: Any) -> None:
    """Add a rate."""
    request = CreateRateRequest(rate=_rate(given(values)))
    _show_rate(client, client.create_rate(request))


LIST_COLUMNS = (
    number("id", lambda r: str(r.id), 1),
    number("tenant", lambda r: str(r.tenant_id), 6),
    exact("prefix", lambda r: r.prefix),
    text("destination", lambda r: r.destination),
    number("cost/min", lambda r: grouped(r.cost_per_minute)),
    number("incr", lambda r: grouped(r.billing_increment)),
    number("fee", lambda r: grouped(r.connect_fee), 5),
    number("min", lambda r: grouped(r.minimum_seconds), 5),
    time("effective-from", lambda r: _end(r, "effective_from"), 2),
    time("effective-to", lambda r: _end(r, "effective_to"), 3),
    exact("remarks", lambda r: _remarks(r), 4),
    exact("etag", lambda r: r.etag, is_default=False),
    time("created", lambda r: write_time(r.created_at), is_default=False),
    time("updated", lambda r: write_time(r.updated_at), is_default=False),
)


@rates.command("list")
@table_options(LIST_COLUMNS)
@click.option("--tenant", "tenant_id", type=ID, help="Only rates of this tenant.")
@click.option(
    "--search", default="", help="Only rates with this text in the prefix or the destination."
)
@limit_option
@connected
def list_rates(client: Client, tenant_id: int | None, search: str, limit: int) -> None:
    """List rates by tenant, prefix and start."""

    found = partial(client.list_rates, tenant_id=tenant_id or 0, search=search)
    print_listing(client, Listing(found, limit), LIST_COLUMNS, "no rates")


@rates.command("show")
@click.argument("rate_id", metavar="ID", type=ID)
@connected
def show_rate(client: Client, rate_id: int) -> None:
    """Show one rate."""
    request = GetRateRequest(id=rate_id)
    _show_rate(client, client.get_rate(request))


@rates.command("update")
@click.argument("rate_id", metavar="ID", type=ID)
@click.option("--prefix", help='The prefix, digits; "" matches every number.')
@click.option("--cost-per-minute", metavar="MONEY", help='The price of a minute, such as "0.0150".')
@click.option("--billing-increment", type=INT32, help="The billing increment in seconds.")
@_rate_options
@click.option("--no-intervals", is_flag=True, help="Remove all intervals.")
@click.option("--etag", type=GIVEN_TEXT, help="Fail if the rate has another etag now.")
@connected
def update_rate(
    client: Client, rate_id: int, etag: str | None, no_intervals: bool, **values: Any
) -> None:
    """Update a rate. Recorded costs do not change."""
    # A repeatable option that was not given is empty, not None.
    values["intervals"] = values["intervals"] or (() if no_intervals else None)
    chosen, mask = changes(values)
    rate = _rate(chosen)
    rate.id, rate.etag = rate_id, etag or ""
    request = UpdateRateRequest(rate=rate, update_mask=mask)
    _show_rate(client, client.update_rate(request))


@rates.command("delete")
@click.argument("rate_id", metavar="ID", type=ID)
@click.option("--etag", type=GIVEN_TEXT, help="Fail if the rate has another etag now.")
@yes_option
@connected
def delete_rate(client: Client, rate_id: int, etag: str | None, yes: bool) -> None:
    """Delete a rate. Recorded costs do not change, and CDRs still show the rate."""
    confirm(f"Delete rate {rate_id}?", yes=yes)
    request = DeleteRateRequest(id=rate_id, etag=etag or "")
    info = CallInfo()
    client.delete_rate(request, info=info)
    revision = str(info.rate_revision or "")
    if client.as_json:
        click.echo(json.dumps({"id": str(rate_id), "rate_revision": revision}, indent=2))
    note(f"rate {rate_id} deleted; the tenant's rate revision is {revision}")


def _end(rate: Rate, field: Literal["effective_from", "effective_to"]) -> str:
    return write_time(getattr(rate, field)) if rate.HasField(field) else ""


def _remarks(rate: Rate) -> str:
    count = len(rate.intervals)
    intervals = f"{count} interval{'s' if count > 1 else ''}" if count else ""
    return ", ".join(filter(None, ["blocked" if rate.blocked else "", intervals]))


def _show_rate(client: Client, rate: Rate) -> None:
    if client.as_json:
        print_json(rate)
        return
    print_fields(
        [
            ("id", str(rate.id)),
            ("tenant", str(rate.tenant_id)),
            ("prefix", rate.prefix or '"" (catch-all)'),
            ("destination", rate.destination),
            ("cost per minute", rate.cost_per_minute),
            ("billing increment", f"{rate.billing_increment} s"),
            ("connect fee", rate.connect_fee),
            ("minimum", f"{rate.minimum_seconds} s" if rate.minimum_seconds else ""),
            *_interval_fields(rate),
            ("effective from", _end(rate, "effective_from")),
            ("effective to", _end(rate, "effective_to")),
            ("blocked", "yes" if rate.blocked else ""),
            ("etag", rate.etag),
            ("created", write_time(rate.created_at)),
            ("updated", write_time(rate.updated_at)),
            ("rate revision", str(rate.rate_revision or "")),
        ]
    )


def fields_of_cdr(rate: Rate) -> list[tuple[str, str]]:
    """All terms of the rate of a CDR, as they were when it priced the call."""
    is_fee = bool(rate.connect_fee.strip("0."))
    return [
        ("rate's price", f"{rate.cost_per_minute} per minute"),
        ("rate's increment", f"{rate.billing_increment} s"),
        ("rate's minimum", f"{rate.minimum_seconds} s" if rate.minimum_seconds else ""),
        ("rate's connect fee", rate.connect_fee if is_fee else ""),
        *_interval_fields(rate),
        ("in effect from", _end(rate, "effective_from")),
        ("in effect until", _end(rate, "effective_to")),
    ]


def _interval_fields(rate: Rate) -> list[tuple[str, str]]:
    return [
        (
            f"from {part.start_seconds} s on",
            f"{part.cost_per_minute} per minute, increment {part.billing_increment} s",
        )
        for part in rate.intervals
    ]
