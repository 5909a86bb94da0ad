"""``tollwire rates import``: the command and its report. deck_sending.py reads and sends the
file."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.cli import tables
from tollwire.service.cli.confirm import confirm, yes_option
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.csv_file import CsvWriter
from tollwire.service.cli.deck_changes import KINDS, Change, deck_changes
from tollwire.service.cli.deck_csv import OPTIONAL, REQUIRED
from tollwire.service.cli.deck_sending import Outcome, SpooledDeck, read_deck, send_deck
from tollwire.service.cli.failures import REFUSED, USAGE, Failure
from tollwire.service.cli.files import export, multiline_option
from tollwire.service.cli.lines import BadFile
from tollwire.service.cli.output import (
    byte_progress,
    json_document,
    note,
    print_document,
    print_fields,
    printable,
)
from tollwire.service.cli.tables import Table, terminal_width
from tollwire.service.cli.values import ID, IMPORT_MODE, TIME, EnumParameter, write_time
from tollwire.v1.rating_service_pb2 import (
    ImportRatesRequest,
)
from tollwire.v1.types_pb2 import IMPORT_MODE_MERGE, IMPORT_MODE_REPLACE, ImportMode

SHOWN_PROBLEMS = 10
SHOWN_CHANGES = 50
SPOOLED_BYTES = 64 * 1024 * 1024


_HELP = f"""Import a rate deck from a CSV file ("-": standard input), as a whole or not at all.

Columns: {", ".join(REQUIRED)}; optional: {", ".join(OPTIONAL)}. Each line is a rate. gzip files are
decompressed. If a line cannot be read, nothing is imported.

--dry-run changes nothing, and lists the prefixes that become dearer or cheaper, are new or deleted.
"""


@click.command("import", help=_HELP)
@click.argument("file", type=click.File("rb"))
@click.option("--tenant", "tenant_id", type=ID, required=True, help="The owner of the rates.")
@click.option(
    "--mode",
    type=EnumParameter(IMPORT_MODE),
    default=IMPORT_MODE_MERGE,
    help="merge (the default) creates and updates rates; replace also deletes rates that the"
    " file does not have.",
)
@click.option("--dry-run", is_flag=True, help="Show the changes, but do not make them.")
@click.option("--allow-empty", is_flag=True, help="With --mode replace: delete all rates.")
@click.option(
    "--effective-from",
    type=TIME,
    help="The start of rates without an effective_from. With --mode replace, current rates end"
    " at this time instead of being deleted.",
)
@click.option(
    "--allow-gap",
    is_flag=True,
    help="With --mode replace: allow a gap without rates until the new deck begins.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="With --dry-run: write all changes of prices to this file, as CSV.",
)
@multiline_option
@yes_option
@connected
def import_rates(
    client: Client,
    file: BinaryIO,
    tenant_id: int,
    mode: ImportMode.ValueType,
    dry_run: bool,
    allow_empty: bool,
    effective_from: Timestamp | None,
    allow_gap: bool,
    output: Path | None,
    multiline: bool,
    yes: bool,
) -> None:
    if output is not None and not dry_run:
        raise click.UsageError("--output needs --dry-run")
    head = ImportRatesRequest(
        tenant_id=tenant_id,
        mode=mode,
        dry_run=dry_run,
        effective_from=effective_from,
        allow_gap=allow_gap,
    )
    may_be_empty = allow_empty and mode == IMPORT_MODE_REPLACE
    # In memory; on disk if it is large.
    with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as spool:
        try:
            with byte_progress() as progress:
                deck = read_deck(file, spool, progress, multiline=multiline)
        except BadFile as error:
            raise Failure(f"{file.name}: {error}", USAGE) from None
        if not deck.lines and not deck.unreadable and not may_be_empty:
            raise Failure("the file contains no rates", USAGE)
        if mode == IMPORT_MODE_REPLACE and not dry_run and not deck.unreadable:
            source = getattr(file, "name", "standard input")
            rates = f"the {len(deck.lines):,} rates of {source}"
            confirm(f"Replace the rates of tenant {tenant_id} by {rates}?", yes=yes)
        outcome = send_deck(client, deck, head)
        found: list[Change] = []
        if dry_run and not outcome.rejected:
            found = list(_changes(client, deck, head))
    _report(client, outcome, found if dry_run else None, output)


def _changes(client: Client, deck: SpooledDeck, head: ImportRatesRequest) -> Iterator[Change]:
    """The changes of prices that the deck makes."""
    start = head.effective_from
    return deck_changes(
        client.export_rates(tenant_id=head.tenant_id),
        (rate for request in deck.requests(head) for rate in request.rates),
        divmod(time.time_ns(), 10**9),
        (start.seconds, start.nanos) if head.HasField("effective_from") else None,
        replace=head.mode == IMPORT_MODE_REPLACE,
    )


_COUNTS = ("created", "updated", "deleted", "unchanged")


def _report(
    client: Client, outcome: Outcome, changes: Sequence[Change] | None, output: Path | None
) -> None:
    """``changes``: the price changes that a dry run found."""
    response = outcome.response
    if outcome.rejected:
        # The dry run that searched for more errors has counted changes that were not made.
        for name in ("created", "updated", "closed", "deleted", "unchanged"):
            response.ClearField(name)
    elif output is not None:
        export(partial(_write_changes, changes or ()), output)
    if client.as_json:
        print_document(_as_json(outcome, changes))
    else:
        _print_report(outcome, changes, output)
    if outcome.rejected:
        rates = "rate" if outcome.rejected == 1 else "rates"
        count = f"{outcome.rejected:,} {rates} rejected"
        if outcome.is_cut:
            count = f"at least {count}"
        raise Failure(f"{count}; nothing was changed", REFUSED)
    if changes is not None:
        note("dry run: nothing was changed")


def _print_report(outcome: Outcome, changes: Sequence[Change] | None, output: Path | None) -> None:
    response = outcome.response
    counts = Counter(change.kind for change in changes or ())
    print_fields(
        [
            *((name, str(getattr(response, name))) for name in _COUNTS),
            ("closed", str(response.closed or "")),
            ("rejected", str(outcome.rejected)),
            ("rate revision", str(response.rate_revision)),
            *((kind, str(counts[kind])) for kind in KINDS if changes and not outcome.rejected),
        ]
    )
    for problem in outcome.problems[:SHOWN_PROBLEMS]:
        click.echo(printable(str(problem)))
    if outcome.rejected > SHOWN_PROBLEMS:
        click.echo(f"and {outcome.rejected - SHOWN_PROBLEMS} more; --json lists up to 1,000")
    if not changes or outcome.rejected or output is not None:
        return
    click.echo()
    for line in Table(_COLUMNS, width=terminal_width()).page(changes[:SHOWN_CHANGES]):
        click.echo(line)
    if len(changes) > SHOWN_CHANGES:
        more = len(changes) - SHOWN_CHANGES
        click.echo(f"and {more:,} more changes; --output FILE writes them all")


_CHANGE_FIELDS: dict[str, Callable[[Change], str]] = {
    "change": lambda one: one.kind,
    "prefix": lambda one: one.prefix,
    "destination": lambda one: one.destination,
    "from": lambda one: _moment(one.start),
    "old_price": lambda one: one.old_price,
    "new_price": lambda one: one.new_price,
    "percent": lambda one: one.percent,
    "other": lambda one: one.other,
}
_COLUMNS = (
    tables.exact("change", _CHANGE_FIELDS["change"]),
    tables.exact("prefix", _CHANGE_FIELDS["prefix"]),
    tables.text("destination", _CHANGE_FIELDS["destination"], 1),
    tables.number("old price", _CHANGE_FIELDS["old_price"]),
    tables.number("new price", _CHANGE_FIELDS["new_price"]),
    tables.number("percent", _CHANGE_FIELDS["percent"], 1),
    tables.exact("from", _CHANGE_FIELDS["from"], 2),
    tables.text("other", _CHANGE_FIELDS["other"], 3),
)


def _moment(at: tuple[int, int] | None) -> str:
    return "" if at is None else write_time(Timestamp(seconds=at[0], nanos=at[1]))


def _write_changes(changes: Sequence[Change], out: TextIO) -> int:
    writer = CsvWriter(out)
    writer.write(tuple(_CHANGE_FIELDS))
    for change in changes:
        writer.write([value(change) for value in _CHANGE_FIELDS.values()])
    return len(changes)


def _as_json(outcome: Outcome, changes: Sequence[Change] | None) -> dict[str, Any]:
    """The response's protobuf JSON, with the file's lines instead of the deck's indexes."""
    document = json_document(outcome.response)
    document["rejected"] = str(outcome.rejected)
    document["errors"] = [
        {"line": p.line, "field": p.field, "message": p.message} for p in outcome.problems
    ]
    if changes is not None:
        document["changes"] = [
            {name: value(change) for name, value in _CHANGE_FIELDS.items()} for change in changes
        ]
    return document
