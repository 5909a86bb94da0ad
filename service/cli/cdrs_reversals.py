"""``tollwire cdrs reverse`` and its like: CDRs taken back by entries of their own."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable
from typing import Any

import click

from service.cli.connection import Client, connected
from service.cli.listing import Listing, limit_option, print_listing, table_options
from service.cli.output import print_fields, print_json
from service.cli.tables import exact, grouped, number, text, time
from service.cli.tenants import given
from service.cli.values import ID, TIME, write_time
from tollwire.v1.cdr_service_pb2 import (
    ListReversalsRequest,
    ReverseCdrRequest,
    ReverseUploadRequest,
)
from tollwire.v1.types_pb2 import Reversal


def who_asks() -> str:
    """USER@HOST, as far as they are known."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _why_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--requested-by", metavar="TEXT", help="Who asks. Default: USER@HOST of this command."
    )(command)
    return click.option(
        "--reason", required=True, metavar="TEXT", help="Why, for those who read it later."
    )(command)


@click.command("reverse")
@click.argument("cdr_id", metavar="ID", type=ID)
@_why_options
@connected
def reverse_cdr(client: Client, cdr_id: int, reason: str, requested_by: str | None) -> None:
    """Take one CDR back. It stays as it is, and counts no more."""
    request = ReverseCdrRequest(id=cdr_id, reason=reason, requested_by=requested_by or who_asks())
    answer = client.cdrs.ReverseCdr(request, timeout=client.timeout)
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
@_why_options
@connected
def reverse_upload(client: Client, upload_id: int, reason: str, requested_by: str | None) -> None:
    """Take back every CDR that an upload created, and let no more of it in.

    Where this is broken off, the same command goes on.
    """
    request = ReverseUploadRequest(
        upload_id=upload_id, reason=reason, requested_by=requested_by or who_asks()
    )
    answer = client.cdrs.ReverseUpload(request, timeout=client.long_timeout)
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
@click.option("--tenant", "tenant_id", type=ID, help="Of this tenant's CDRs only.")
@click.option("--upload", "upload_id", type=ID, help="Of this upload's CDRs only.")
@click.option(
    "--from", "created_after", type=TIME, help="Recorded at this time, or date (UTC), or later."
)
@click.option("--to", "created_before", type=TIME, help="Recorded before this time, or date (UTC).")
@table_options(LIST_COLUMNS)
@limit_option
@connected
def list_reversals(client: Client, limit: int, **filters: Any) -> None:
    """List reversals, the newest first."""

    def fetch(size: int, token: str) -> tuple[Any, str]:
        request = ListReversalsRequest(**given(filters), page_size=size, page_token=token)
        answer = client.cdrs.ListReversals(request, timeout=client.timeout)
        return answer.reversals, answer.next_page_token

    print_listing(client, Listing(fetch, limit), LIST_COLUMNS, "no reversals")


def _cost(reversal: Reversal) -> str:
    return f"{reversal.cost} {reversal.cdr.tenant.currency}" if reversal.HasField("cost") else ""
