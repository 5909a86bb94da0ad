"""``tollwire cdrs verify``: recomputes recorded costs from the rates stored with the CDRs."""

from __future__ import annotations

import sys
from typing import Any

import click

from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.failures import Failure
from tollwire.service.cli.output import json_text, print_fields, print_table
from tollwire.service.cli.tenants import given
from tollwire.service.cli.values import ID, TIME
from tollwire.v1.cdr_service_pb2 import (
    CdrDifference,
    VerifyCdrsRequest,
    VerifyCdrsResponse,
)

# The limit of the table; --json prints all differences.
SHOWN_DIFFERENCES = 1_000


@click.command("verify")
@click.option("--tenant", "tenant_id", type=ID, help="Only CDRs of this tenant.")
@click.option(
    "--from",
    "--after",
    "started_after",
    type=TIME,
    help="Only calls that started at or after this time, or date (UTC).",
)
@click.option(
    "--to",
    "--before",
    "started_before",
    type=TIME,
    help="Only calls that started before this time, or date (UTC).",
)
@click.option("--upload", "upload_id", type=ID, help="Only CDRs that this upload created.")
@connected
def verify_cdrs(client: Client, **filters: Any) -> None:
    """Recompute recorded costs from the rates stored with the CDRs.

    Prints the first 1,000 differences; exits with 1 if there are any. --json prints a line for each
    difference and a last line with the totals.
    """
    differences: list[CdrDifference] = []
    last = VerifyCdrsResponse()
    request = VerifyCdrsRequest(**given(filters))
    for answer in client.verify_cdrs(request):
        last = answer
        if client.as_json:
            for difference in answer.differences:
                click.echo(json_text(difference))
        differences += answer.differences[: SHOWN_DIFFERENCES - len(differences)]
        _show_progress(answer)
    if not last.done:
        raise Failure("the server ended the stream before all CDRs were checked")
    _show(client, last, differences)
    if last.different:
        raise Failure(
            f"{last.different:,} of {last.checked:,} CDRs differ from the recomputed values"
        )


def _show_progress(answer: VerifyCdrsResponse) -> None:
    """Show the progress on a terminal: one line, overwritten, and cleared at the end."""
    if sys.stderr.isatty():
        text = f"{answer.checked:,} checked, {answer.different:,} differ"
        click.echo(f"\r\x1b[K{'' if answer.done else text}", err=True, nl=False)


def _show(client: Client, last: VerifyCdrsResponse, differences: list[CdrDifference]) -> None:
    if client.as_json:
        del last.differences[:]
        click.echo(json_text(last))
        return
    if differences:
        print_table(
            ("cdr", "tenant", "call id", "field", "stored", "recomputed", "what is wrong"),
            (
                (
                    str(one.cdr_id),
                    str(one.tenant_id or ""),
                    one.call_id,
                    one.field,
                    one.stored,
                    one.recomputed,
                    one.message,
                )
                for one in differences
            ),
            right=("cdr", "tenant"),
        )
    print_fields(
        [
            ("checked", f"{last.checked:,}"),
            ("a second", f"{last.checked_per_second:,.0f}"),
            ("different", f"{last.different:,}"),
        ]
    )
