"""``tollwire cdrs``: single CDRs, lists and exports. cdrs_upload.py uploads files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO

import click

from tollwire.service.cli.call_files import CDR_COLUMNS
from tollwire.service.cli.cdr_filters import list_filter_options, since_option, until_option
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.csv_file import CsvWriter
from tollwire.service.cli.explanation import show_explained_cdr
from tollwire.service.cli.files import export
from tollwire.service.cli.listing import Listing, limit_option, print_listing, table_options
from tollwire.service.cli.output import print_fields, print_json, print_json_lines
from tollwire.service.cli.rates import fields_of_cdr
from tollwire.service.cli.tables import exact, grouped, number, text, time
from tollwire.service.cli.tenants import given
from tollwire.service.cli.values import (
    DIRECTION,
    DISPOSITION,
    ID,
    INT64,
    RATING_STATUS,
    ROUNDING,
    TIME,
    UNRATED_REASON,
    EnumParameter,
    enum_name,
    write_time,
)
from tollwire.v1.cdr_service_pb2 import (
    CreateCdrRequest,
    ExplainCdrRequest,
    ExportCdrsRequest,
    GetCdrRequest,
    RateUnratedRequest,
)
from tollwire.v1.types_pb2 import Call, Cdr

EXPORT_COLUMNS = (
    "id",
    "tenant_id",
    "extension_id",
    "caller_number",
    "destination_number",
    "direction",
    "disposition",
    "duration_seconds",
    "started_at",
    "ended_at",
    "call_id",
    *(name for name in CDR_COLUMNS if name != "id"),
)


@click.group()
def cdrs() -> None:
    """Manage CDRs: the record of calls and their costs."""


@cdrs.command("add")
@click.option("--tenant", "tenant_id", type=ID, required=True, help="The tenant that pays.")
@click.option("--extension", "extension_id", type=ID, help="The id of the extension.")
@click.option("--caller", "caller_number", metavar="NUMBER", help="The number of the caller.")
@click.option(
    "--destination", "destination_number", metavar="NUMBER", help="The number that was called."
)
@click.option(
    "--direction", type=EnumParameter(DIRECTION), required=True, help="The direction of the call."
)
@click.option(
    "--disposition",
    type=EnumParameter(DISPOSITION),
    required=True,
    help="The disposition of the call.",
)
@click.option(
    "--seconds",
    "duration_seconds",
    type=INT64,
    help="The duration. Default: from --started to --ended.",
)
@click.option(
    "--started", "started_at", type=TIME, required=True, help="The time when the call started."
)
@click.option("--ended", "ended_at", type=TIME, help="The time when the call ended.")
@click.option(
    "--call-id", metavar="TEXT", help="The id of the call. Default: derived from the other values."
)
@connected
def add_cdr(client: Client, **values: Any) -> None:
    """Rate one call and record it."""
    request = CreateCdrRequest(call=Call(**given(values)))
    _show_cdr(client, client.create_cdr(request))


@cdrs.command("show")
@click.argument("cdr_id", metavar="[ID]", type=ID, required=False)
@click.option("--call-id", metavar="TEXT", help="Show the CDR with this call_id; needs --tenant.")
@click.option("--tenant", "tenant_id", type=ID, help="The tenant that pays.")
@click.option("--explain", is_flag=True, help="Explain the cost, step by step.")
@connected
def show_cdr(
    client: Client, cdr_id: int | None, call_id: str | None, tenant_id: int | None, explain: bool
) -> None:
    """Show one CDR, with the rate as it was when it priced the call.

    Give an ID, or --call-id and --tenant. --explain rates the call again with the rates and rules
    of its time, and shows every difference from the stored values.
    """
    if (cdr_id is None) == (call_id is None):
        raise click.UsageError("give an ID, or --call-id and --tenant")
    if call_id is not None and tenant_id is None:
        raise click.UsageError("--call-id needs --tenant: call_ids are unique only within a tenant")
    if cdr_id is not None and tenant_id is None and not explain:
        _show_cdr(client, client.get_cdr(GetCdrRequest(id=cdr_id)))
        return
    request = ExplainCdrRequest(id=cdr_id or 0, tenant_id=tenant_id or 0, call_id=call_id or "")
    found = client.explain_cdr(request)
    if client.as_json:
        print_json(found if explain else found.cdr)
        return
    _show_cdr(client, found.cdr)
    if explain:
        show_explained_cdr(found)


LIST_COLUMNS = (
    number("id", lambda c: str(c.id)),
    number("tenant", lambda c: str(c.tenant_id), 8),
    text("tenant-name", lambda c: c.tenant.name, 9),
    exact("extension", lambda c: c.extension.number, 10),
    time("started", lambda c: write_time(c.started_at)),
    exact("direction", lambda c: enum_name(DIRECTION, c.direction), 6),
    exact("caller", lambda c: c.caller_number, 3),
    exact("destination", lambda c: c.destination_number),
    exact("disposition", lambda c: enum_name(DISPOSITION, c.disposition), 7),
    number("seconds", lambda c: grouped(c.duration_seconds)),
    number("billed", lambda c: grouped(_optional(c, "bill_seconds")), 4),
    number("cost", lambda c: grouped(_optional(c, "cost"))),
    exact("currency", lambda c: c.tenant.currency if c.HasField("cost") else "", 2),
    text("reaches", lambda c: c.rate.destination, 5),
    exact("call-id", lambda c: c.call_id, is_default=False),
    number("extension-id", lambda c: str(c.extension_id or ""), is_default=False),
    time(
        "ended",
        lambda c: write_time(c.ended_at) if c.HasField("ended_at") else "",
        is_default=False,
    ),
    number("rate", lambda c: str(c.rate.id or ""), is_default=False),
    number("upload", lambda c: str(c.upload_id or ""), is_default=False),
    time("recorded", lambda c: write_time(c.created_at), is_default=False),
    exact("status", lambda c: _status(c), 1),
)


@cdrs.command("list")
@list_filter_options
@table_options(LIST_COLUMNS)
@limit_option
@connected
def list_cdrs(client: Client, limit: int, **filters: Any) -> None:
    """List CDRs, the newest call first."""

    found = partial(client.list_cdrs, **given(filters))
    print_listing(client, Listing(found, limit), LIST_COLUMNS, "no CDRs")


@cdrs.command("export")
@list_filter_options
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write to this file. It appears only when the export is complete.",
)
@connected
def export_cdrs(client: Client, output: Path | None, **filters: Any) -> None:
    """Export CDRs as CSV, or with --json as JSON lines, the newest call first.

    "cdrs upload" can read the file; the calls keep their call_ids.
    """
    found = client.export_cdrs(ExportCdrsRequest(**given(filters)))

    def write(out: TextIO) -> int:
        if client.as_json:
            return print_json_lines(found, out)
        writer = CsvWriter(out)
        writer.write(EXPORT_COLUMNS)
        count = 0
        for cdr in found:
            writer.write(_export_row(cdr))
            count += 1
        writer.note_line_breaks()
        return count

    export(write, output)


@cdrs.command("rate-unrated")
@click.option("--tenant", "tenant_id", type=ID, help="Only CDRs of this tenant.")
@since_option
@until_option
@connected
def rate_unrated(client: Client, **filters: Any) -> None:
    """Rate the UNRATED CDRs again, with the current rates."""
    request = RateUnratedRequest(**given(filters))
    answer = client.rate_unrated(request)
    if client.as_json:
        print_json(answer)
        return
    print_fields(
        [
            ("examined", str(answer.examined)),
            ("rated", str(answer.rated)),
            ("still unrated", str(answer.still_unrated)),
            ("reason corrected", str(answer.reason_corrected)),
        ]
    )


def _optional(cdr: Cdr, field: Literal["bill_seconds", "cost"]) -> str:
    return str(getattr(cdr, field)) if cdr.HasField(field) else ""


def _status(cdr: Cdr) -> str:
    status = enum_name(RATING_STATUS, cdr.status)
    reason = enum_name(UNRATED_REASON, cdr.unrated_reason)
    shown = f"{status} ({reason})" if reason else status
    return f"{shown}, REVERSED" if cdr.HasField("reversal") else shown


def _export_row(cdr: Cdr) -> list[str]:
    return [
        str(cdr.id),
        str(cdr.tenant_id),
        str(cdr.extension_id or ""),
        cdr.caller_number,
        cdr.destination_number,
        enum_name(DIRECTION, cdr.direction),
        enum_name(DISPOSITION, cdr.disposition),
        str(cdr.duration_seconds),
        write_time(cdr.started_at),
        write_time(cdr.ended_at) if cdr.HasField("ended_at") else "",
        cdr.call_id,
        enum_name(RATING_STATUS, cdr.status),
        enum_name(UNRATED_REASON, cdr.unrated_reason),
        _optional(cdr, "bill_seconds"),
        _optional(cdr, "cost"),
        cdr.tenant.currency,
        str(cdr.rate.id or ""),
        cdr.matched_prefix,
        cdr.rate.destination,
        str(cdr.rate_revision),
        str(cdr.upload_id or ""),
        write_time(cdr.created_at),
        write_time(cdr.reversal.created_at) if cdr.HasField("reversal") else "",
    ]


def _show_cdr(client: Client, cdr: Cdr) -> None:
    if client.as_json:
        print_json(cdr)
        return
    rate = cdr.rate
    print_fields(
        [
            ("id", str(cdr.id)),
            ("call id", cdr.call_id),
            ("tenant", f"{cdr.tenant_id} {cdr.tenant.name}".strip()),
            ("extension", f"{cdr.extension_id or ''} {cdr.extension.number}".strip()),
            ("caller", cdr.caller_number),
            ("destination", cdr.destination_number),
            ("direction", enum_name(DIRECTION, cdr.direction)),
            ("disposition", enum_name(DISPOSITION, cdr.disposition)),
            ("started", write_time(cdr.started_at)),
            ("ended", write_time(cdr.ended_at) if cdr.HasField("ended_at") else ""),
            ("seconds", str(cdr.duration_seconds)),
            ("status", _status(cdr)),
            ("billed", f"{cdr.bill_seconds} s" if cdr.HasField("bill_seconds") else ""),
            ("cost", f"{cdr.cost} {cdr.tenant.currency}" if cdr.HasField("cost") else ""),
            ("rate", f"{rate.id}: {rate.prefix} {rate.destination}" if rate.id else ""),
            *(fields_of_cdr(rate) if rate.id else ()),
            ("rounding", _rounding(cdr)),
            ("rate revision", str(cdr.rate_revision)),
            ("upload", str(cdr.upload_id or "")),
            ("recorded", write_time(cdr.created_at)),
            ("replaces CDR", str(cdr.replaces_cdr_id or "")),
            *_reversal_fields(cdr),
            ("replaced by CDR", str(cdr.replaced_by_cdr_id or "")),
        ]
    )


def _rounding(cdr: Cdr) -> str:
    """How the tenant's costs were rounded when the call was rated."""
    decimals = getattr(cdr.tenant, "cost_decimals", 4) or 4
    return f"{enum_name(ROUNDING, cdr.tenant.rounding)} to {decimals} decimals"


def _reversal_fields(cdr: Cdr) -> list[tuple[str, str]]:
    if not cdr.HasField("reversal"):
        return []
    return [
        ("reversed", write_time(cdr.reversal.created_at)),
        ("reversed by", cdr.reversal.requested_by),
        ("reversed for", cdr.reversal.reason),
    ]
