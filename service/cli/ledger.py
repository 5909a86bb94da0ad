"""``tollwire ledger``: shows the root of the ledger, and checks the records against it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

import click

from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.failures import Failure
from tollwire.service.cli.output import json_text, note, print_fields, print_json, print_table
from tollwire.service.cli.values import GIVEN_TEXT, enum_name, write_time
from tollwire.v1.cdr_service_pb2 import (
    GetLedgerRootRequest,
    LedgerDifference,
    VerifyLedgerRequest,
    VerifyLedgerResponse,
)
from tollwire.v1.types_pb2 import LedgerDifferenceKind

_HEADERS = ("kind", "chain", "seq", "first id", "rows", "message")


@click.group()
def ledger() -> None:
    """Prove that no record was changed, deleted or inserted afterwards."""


@ledger.command("root")
@connected
def show_root(client: Client) -> None:
    """Show the current root of the ledger: one line to store for a later check."""
    answer = client.get_ledger_root(GetLedgerRootRequest())
    if client.as_json:
        print_json(answer)
    else:
        print_fields(
            [
                ("root", answer.root),
                ("entries", str(answer.entries)),
                ("created at", write_time(answer.created_at)),
            ]
        )


@ledger.command("verify")
@click.option(
    "--root",
    type=GIVEN_TEXT,
    metavar="ROOT",
    help='A root that "tollwire ledger root" printed before.',
)
@click.option(
    "--public-key",
    "public_keys",
    type=click.File("r", encoding="utf-8"),
    multiple=True,
    metavar="FILE",
    help="The Ed25519 public key, PEM, of a server's --ledger-key-file. May be repeated.",
)
@connected
def verify_ledger(client: Client, root: str | None, public_keys: Sequence[TextIO]) -> None:
    """Check that all records are unchanged since they were entered in the ledger.

    --root also checks that the ledger continues the ledger with that root. --public-key also checks
    that one of the keys has signed each entry, or each entry after the root. Exits with 1 if there
    are differences.
    """
    request = VerifyLedgerRequest(root=root or "", public_keys=[key.read() for key in public_keys])
    answers = client.verify_ledger(request)
    different = 0
    last = VerifyLedgerResponse()
    for last in answers:
        different += len(last.differences)
        if client.as_json:
            click.echo(json_text(last))
            continue
        if last.differences:
            print_table(_HEADERS, map(_cells, last.differences), right=_HEADERS[1:5])
        if sys.stderr.isatty() and not last.done:
            note(f"{last.rows_checked} rows checked, {last.rows_per_second:,.0f} a second")
    if not client.as_json:
        note(
            f"{last.entries_checked} entries and {last.rows_checked} rows checked,"
            f" {last.rows_per_second:,.0f} rows a second"
        )
    if different:
        raise Failure(f"{different} {'difference' if different == 1 else 'differences'} found")


def _cells(difference: LedgerDifference) -> tuple[str, ...]:
    numbers = (difference.chain, difference.seq, difference.first_id, difference.row_count)
    kind = enum_name(LedgerDifferenceKind.DESCRIPTOR, difference.kind)
    return (kind, *map(str, numbers), difference.message)
