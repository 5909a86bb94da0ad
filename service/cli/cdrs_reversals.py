"""``tollwire cdrs reverse``, ``reverse-upload`` and ``reversals``."""

from __future__ import annotations

import csv
import getpass
import socket
import sys
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import click

from tollwire.service.cli.cdr_filters import filter_options
from tollwire.service.cli.confirm import confirm, is_asking, yes_option
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.listing import Listing, limit_option, print_listing, table_options
from tollwire.service.cli.output import note, print_fields, print_json
from tollwire.service.cli.tables import exact, grouped, number, text, time
from tollwire.service.cli.tenants import given
from tollwire.service.cli.values import ID, TIME, write_time
from tollwire.v1.cdr_service_pb2 import (
    ReverseCdrRequest,
    ReverseCdrsRequest,
    ReverseCdrsResponse,
    ReversedCost,
    ReverseUploadRequest,
)
from tollwire.v1.types_pb2 import Reversal

_MOST_IDS = 10_000  # in one request


def default_requester() -> str:
    """USER@HOST; an unknown part is left out."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _reason_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--requested-by",
        metavar="TEXT",
        help="The requester. Default: USER@HOST of this command.",
    )(command)
    return click.option(
        "--reason", metavar="TEXT", help="The reason. It is stored with the reversal."
    )(command)


@click.command("reverse")
@click.argument("cdr_ids", metavar="[ID]...", type=ID, nargs=-1)
@click.option(
    "--ids-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Reverse the CDRs in this file: one id in each line, or CSV with a column id, as"
    " exported.",
)
@click.option(
    "--call-id", "call_ids", metavar="TEXT", multiple=True, help="Only the call with this call_id."
)
@filter_options
@_reason_options
@click.option(
    "--dry-run", is_flag=True, help="Only show the number and the cost of the matching CDRs."
)
@yes_option
@connected
def reverse_cdrs(
    client: Client,
    cdr_ids: tuple[int, ...],
    ids_file: Path | None,
    reason: str | None,
    requested_by: str | None,
    dry_run: bool,
    yes: bool,
    **filters: Any,
) -> None:
    """Reverse CDRs: those with these IDs, or all that match the options.

    A reversed CDR does not change, but usage and bills no longer count it. After an interruption,
    repeat the command: it continues. On a terminal the command shows the cost and asks for
    confirmation first.
    """
    if not dry_run and not reason:
        raise click.UsageError("--reason is required: give the reason of the reversal")
    ids = [*cdr_ids, *(read_ids(ids_file) if ids_file else ())]
    if ids_file and not ids:
        raise click.BadParameter(f"{ids_file} has no ids", param_hint="--ids-file")
    chosen = {name: value for name, value in given(filters).items() if value != ()}
    if not ids and not chosen:
        raise click.UsageError(
            "choose CDRs by IDs, --ids-file, --upload, or --tenant with other filters"
        )
    if not (ids or chosen.keys() & {"tenant_id", "upload_id"}):
        raise click.UsageError("--tenant is required, or IDs, --ids-file or --upload")
    why: dict[str, Any] = {
        "reason": reason or "",
        "requested_by": requested_by or default_requester(),
    }
    requests = [ReverseCdrsRequest(**chosen, **part, **why) for part in _parts(ids, chosen)]
    # Before anything is reversed, every id is known to exist.
    found = _send(client, requests, dry_run=True)
    if not dry_run and found.reversed:
        confirm(f"Reverse {found.reversed:,} CDRs, {_money(found)}?", yes=yes)
    if not dry_run and len(cdr_ids) == 1 and not ids_file and not chosen:
        _reverse_one(client, ReverseCdrRequest(id=cdr_ids[0], **why))
        return
    if not dry_run and found.reversed:
        found = _send(client, requests, dry_run=False)
    if not found.cdrs:
        note("no CDR matches")
    if client.as_json:
        print_json(found)
        return
    print_fields(
        [
            ("CDRs", f"{found.cdrs:,}"),
            ("to reverse" if dry_run else "reversed", f"{found.reversed:,}"),
            ("reversed before", f"{found.reversed_before:,}"),
            *((f"cost in {one.currency}", grouped(one.cost)) for one in found.costs),
            *((f"unrated in {one.currency}", f"{one.unrated:,}") for one in found.costs),
        ]
    )


def _parts(ids: list[int], chosen: dict[str, Any]) -> list[dict[str, Any]]:
    """The lists of one request each."""
    if ids:
        return [{"ids": ids[at : at + _MOST_IDS]} for at in range(0, len(ids), _MOST_IDS)]
    call_ids = chosen.pop("call_ids", ())
    if call_ids:
        starts = range(0, len(call_ids), _MOST_IDS)
        return [{"call_ids": call_ids[at : at + _MOST_IDS]} for at in starts]
    return [{}]


def _send(
    client: Client, requests: list[ReverseCdrsRequest], *, dry_run: bool
) -> ReverseCdrsResponse:
    """The sums of the last answers."""
    total = ReverseCdrsResponse(done=True)
    costs: dict[str, ReversedCost] = {}
    for request in requests:
        request.dry_run = dry_run
        last = ReverseCdrsResponse()
        for last in client.reverse_cdrs(request):
            if not last.done and not dry_run and sys.stderr.isatty():
                note(f"{total.reversed + last.reversed:,} CDRs reversed so far")
        total.cdrs += last.cdrs
        total.reversed += last.reversed
        total.reversed_before += last.reversed_before
        for one in last.costs:
            sums = costs.setdefault(one.currency, ReversedCost(currency=one.currency, cost="0"))
            sums.cost = f"{Decimal(sums.cost) + Decimal(one.cost):f}"
            sums.cdrs += one.cdrs
            sums.unrated += one.unrated
    total.costs.extend(costs[currency] for currency in sorted(costs))
    return total


def _money(found: ReverseCdrsResponse) -> str:
    return "cost " + " and ".join(f"{grouped(one.cost)} {one.currency}" for one in found.costs)


def read_ids(path: Path) -> list[int]:
    """The ids in a file: one a line, or CSV whose header has a column ``id``."""
    text = path.read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    rows = list(csv.reader(lines))
    place, first = 0, 0
    if rows and "id" in rows[0]:
        place, first = rows[0].index("id"), 1
    elif any(len(row) > 1 for row in rows):
        raise click.BadParameter(
            f"{path}: the first line must name a column id, or every line be one id",
            param_hint="--ids-file",
        )
    found = []
    for line, row in enumerate(rows[first:], first + 1):
        cell = row[place].strip() if place < len(row) else ""
        if not row or (not cell and len(row) <= 1):
            continue
        if not (cell.isascii() and cell.isdecimal() and 0 < int(cell) < 2**63):
            raise click.BadParameter(
                f"{path}, line {line}: an id is a whole number above 0, got {cell[:40]!r}",
                param_hint="--ids-file",
            )
        found.append(int(cell))
    return found


def _reverse_one(client: Client, request: ReverseCdrRequest) -> None:
    answer = client.reverse_cdr(request)
    if client.as_json:
        print_json(answer)
        return
    print_fields(
        [
            ("reversal", str(answer.id)),
            ("of CDR", str(answer.cdr.id)),
            ("call id", answer.cdr.call_id),
            ("cost", _cost(answer)),
            ("reason", answer.reason),
            ("requested by", answer.requested_by),
            ("recorded", write_time(answer.created_at)),
        ]
    )


@click.command("reverse-upload")
@click.argument("upload_id", metavar="UPLOAD_ID", type=ID)
@_reason_options
@yes_option
@connected
def reverse_upload(
    client: Client, upload_id: int, reason: str | None, requested_by: str | None, yes: bool
) -> None:
    """Reverse every CDR that an upload created, and close the upload.

    The calls of all tenants of the file are reversed; "cdrs reverse --upload ID --tenant ID"
    reverses the calls of one tenant. After an interruption, repeat the command; it continues.
    """
    if not reason:
        raise click.UsageError("--reason is required: give the reason of the reversal")
    if is_asking(yes=yes):
        wanted = ReverseCdrsRequest(upload_id=upload_id)
        found = _send(client, [wanted], dry_run=True)
        confirm(
            f"Reverse {found.reversed:,} CDRs of upload {upload_id}, {_money(found)}, and close it?"
            if found.reversed
            else f"Close upload {upload_id}?",
            yes=yes,
        )
    request = ReverseUploadRequest(
        upload_id=upload_id, reason=reason, requested_by=requested_by or default_requester()
    )
    answer = client.reverse_upload(request)
    if client.as_json:
        print_json(answer)
        return
    print_fields(
        [
            ("CDRs", str(answer.cdrs)),
            ("reversed", str(answer.reversed)),
            ("reversed before", str(answer.reversed_before)),
        ]
    )


LIST_COLUMNS = (
    number("id", lambda r: str(r.id)),
    number("cdr", lambda r: str(r.cdr.id)),
    number("tenant", lambda r: str(r.cdr.tenant_id), 4),
    text("tenant-name", lambda r: r.cdr.tenant.name, 5),
    time("started", lambda r: write_time(r.cdr.started_at), 3),
    number("cost", lambda r: grouped(r.cost) if r.HasField("cost") else ""),
    exact("currency", lambda r: r.cdr.tenant.currency if r.HasField("cost") else "", 1),
    time("recorded", lambda r: write_time(r.created_at)),
    text("requested-by", lambda r: r.requested_by, 6),
    exact("call-id", lambda r: r.cdr.call_id, is_default=False),
    text("reason", lambda r: r.reason, 2),
)


@click.command("reversals")
@click.option("--tenant", "tenant_id", type=ID, help="Only CDRs of this tenant.")
@click.option("--upload", "upload_id", type=ID, help="Only CDRs of this upload.")
@click.option(
    "--from",
    "created_after",
    type=TIME,
    help="Only reversals at this time, or date (UTC), or later.",
)
@click.option(
    "--to", "created_before", type=TIME, help="Only reversals before this time, or date (UTC)."
)
@table_options(LIST_COLUMNS)
@limit_option
@connected
def list_reversals(client: Client, limit: int, **filters: Any) -> None:
    """List reversals, the newest first."""

    found = partial(client.list_reversals, **given(filters))
    print_listing(client, Listing(found, limit), LIST_COLUMNS, "no reversals")


def _cost(reversal: Reversal) -> str:
    return f"{reversal.cost} {reversal.cdr.tenant.currency}" if reversal.HasField("cost") else ""
