"""``tollwire rates import`` and ``export``: whole decks as CSV.

The server takes a deck whole or not at all. The file is read to its end before anything is sent: so
it is known how many rates there are, and whether rows cannot even be read. Where some cannot, the
others go as a dry run, and one report has all that is wrong: here and there.
"""

from __future__ import annotations

import struct
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any, BinaryIO, TextIO

import click
from google.protobuf.timestamp_pb2 import Timestamp
from rich.progress import Progress

from tollwire.service.cli import tables
from tollwire.service.cli.confirm import confirm, yes_option
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.csv_file import CsvWriter
from tollwire.service.cli.deck_changes import KINDS, Change, deck_changes
from tollwire.service.cli.deck_csv import DeckFile, write_deck
from tollwire.service.cli.failures import REFUSED, USAGE, Failure
from tollwire.service.cli.files import export, multiline_option
from tollwire.service.cli.lines import BadFile
from tollwire.service.cli.output import (
    byte_progress,
    json_document,
    note,
    print_document,
    print_fields,
    print_json_lines,
    printable,
)
from tollwire.service.cli.streaming import RequestQueue
from tollwire.service.cli.tables import Table, terminal_width
from tollwire.service.cli.values import ID, IMPORT_MODE, TIME, EnumParameter, write_time
from tollwire.v1.rating_service_pb2 import (
    ExportRatesRequest,
    ImportRatesRequest,
    ImportRatesResponse,
)
from tollwire.v1.rating_service_pb2 import ImportError as DeckError
from tollwire.v1.types_pb2 import IMPORT_MODE_MERGE, IMPORT_MODE_REPLACE, ImportMode

RATES_A_MESSAGE = 5_000
SHOWN_PROBLEMS = 10
SHOWN_CHANGES = 50
KEPT_PROBLEMS = 1_000
SPOOLED_BYTES = 64 * 1024 * 1024
_SIZE = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong on one line of the file."""

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        what = f"{self.field}: {self.message}" if self.field else self.message
        return f"line {self.line}: {what}"


@dataclass(slots=True)
class Outcome:
    """What became of a deck. ``unreadable`` counts the rows that were never sent."""

    response: ImportRatesResponse
    problems: list[Problem]
    unreadable: int

    @property
    def rejected(self) -> int:
        return self.response.rejected + self.unreadable


@dataclass(slots=True)
class SpooledDeck:
    """A deck that was read from a file to its end, ready to be sent. ``spool``: its parts, as
    messages; ``lines``: the line of each rate; ``unreadable``: how many rows no rate could be made
    of; ``problems``: the first of these."""

    spool: IO[bytes]
    lines: array[int] = field(default_factory=lambda: array("Q"))
    unreadable: int = 0
    problems: list[Problem] = field(default_factory=list)

    def requests(self, head: ImportRatesRequest) -> Iterator[ImportRatesRequest]:
        """The deck as it is sent; ``head`` is what each message repeats. The first one says how
        many rates there are in all, so that the server never takes a part of them for the whole."""
        self.spool.seek(0)
        for number in count():
            size = self.spool.read(_SIZE.size)
            if not size:
                return
            request = ImportRatesRequest.FromString(self.spool.read(*_SIZE.unpack(size)))
            request.MergeFrom(head)
            if number == 0:
                request.rate_count = len(self.lines)
            yield request


def read_deck(
    stream: BinaryIO, spool: IO[bytes], progress: Progress, *, multiline: bool = False
) -> SpooledDeck:
    """Reads a whole file, and writes what is to be sent of it to ``spool``."""
    task = progress.add_task("reading", total=_size(stream), records="")
    deck = SpooledDeck(spool)
    part = ImportRatesRequest()

    def put_by() -> None:
        data = part.SerializeToString()
        spool.write(_SIZE.pack(len(data)) + data)
        part.Clear()

    for line, rate in DeckFile(stream, multiline=multiline):
        if isinstance(rate, str):
            deck.unreadable += 1
            if len(deck.problems) < KEPT_PROBLEMS:
                deck.problems.append(Problem(line, "", rate))
            continue
        part.rates.append(rate)
        deck.lines.append(line)
        if len(part.rates) == RATES_A_MESSAGE:
            put_by()
            done = stream.tell() if stream.seekable() else None
            progress.update(task, completed=done, records=f"{len(deck.lines):,} rates")
    put_by()
    progress.update(task, description="server is checking", total=None)
    return deck


def send_deck(client: Client, deck: SpooledDeck, head: ImportRatesRequest) -> Outcome:
    """Imports a deck as ``head`` says. Where rows could not be read nothing is to change: a dry run
    then reports what else is wrong."""
    if deck.unreadable:
        complete, head = head, ImportRatesRequest()
        head.CopyFrom(complete)
        head.dry_run = head.allow_gap = True
    queue: RequestQueue[ImportRatesRequest] = RequestQueue(2)
    call = client.rating.ImportRates.future(iter(queue), timeout=client.long_timeout)
    try:
        for request in deck.requests(head):
            if not queue.send(request, call):
                break
    except BaseException:
        call.cancel()
        raise
    finally:
        queue.close(call)
    response = call.result()
    problems = deck.problems + [_problem(deck, error) for error in response.errors]
    problems.sort(key=lambda problem: problem.line)
    return Outcome(response, problems, deck.unreadable)


def _problem(deck: SpooledDeck, error: DeckError) -> Problem:
    """An error of the server, with the lines of the file in place of indexes."""
    message = error.message
    if error.HasField("first_index"):
        line = deck.lines[error.first_index]
        message = f"has the same prefix and effective_from as line {line}; remove one of them"
    return Problem(deck.lines[error.index], error.field, message)


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--tenant", "tenant_id", type=ID, required=True, help="The owner of the rates.")
@click.option(
    "--mode",
    type=EnumParameter(IMPORT_MODE),
    default=IMPORT_MODE_MERGE,
    help="merge (the default) creates and updates; replace also deletes what the file lacks.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--allow-empty", is_flag=True, help="With --mode replace: delete all rates.")
@click.option(
    "--effective-from",
    type=TIME,
    help="When the deck begins: for rates that state no effective_from. With --mode replace the"
    " present rates end at this time and are not deleted.",
)
@click.option(
    "--allow-gap",
    is_flag=True,
    help="With --mode replace: import a deck that leaves calls without a rate until it begins.",
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
    """Import a deck of rates from a CSV file ("-": standard input): all of it or none.

    Columns: prefix, destination, cost_per_minute, billing_increment; optional: connect_fee,
    minimum_seconds, effective_from, effective_to, blocked, intervals. A line is a rate. A gzip file
    is read as it is. Where a line cannot be read, nothing is imported.

    With --dry-run nothing is changed, and the prefixes that get dearer, cheaper, new or are gone
    are listed.
    """
    if output is not None and not dry_run:
        raise click.UsageError("--output is for --dry-run")
    head = ImportRatesRequest(
        tenant_id=tenant_id,
        mode=mode,
        dry_run=dry_run,
        effective_from=effective_from,
        allow_gap=allow_gap,
    )
    may_be_empty = allow_empty and mode == IMPORT_MODE_REPLACE
    # In memory, and on disk where it is much.
    with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as spool:
        try:
            with byte_progress() as progress:
                deck = read_deck(file, spool, progress, multiline=multiline)
        except BadFile as error:
            raise Failure(f"{file.name}: {error}", USAGE) from None
        if not deck.lines and not deck.unreadable and not may_be_empty:
            raise Failure("the file has no rates in it", USAGE)
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
    """What the deck changes in the prices of now."""
    answers = client.rating.ExportRates(
        ExportRatesRequest(tenant_id=head.tenant_id), timeout=client.long_timeout
    )
    start = head.effective_from
    return deck_changes(
        (rate for answer in answers for rate in answer.rates),
        (rate for request in deck.requests(head) for rate in request.rates),
        divmod(time.time_ns(), 10**9),
        (start.seconds, start.nanos) if head.HasField("effective_from") else None,
        replace=head.mode == IMPORT_MODE_REPLACE,
    )


_COUNTS = ("created", "updated", "deleted", "unchanged")


def _report(
    client: Client, outcome: Outcome, changes: Sequence[Change] | None, output: Path | None
) -> None:
    """``changes``: of a dry run."""
    response = outcome.response
    if outcome.rejected:
        # The dry run that looked for more errors counted what will not happen.
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
        raise Failure(f"{outcome.rejected:,} {rates} rejected; nothing was changed", REFUSED)
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


def _size(stream: BinaryIO) -> int | None:
    """Bytes; None where that cannot be known."""
    if not stream.seekable():
        return None
    here = stream.tell()
    try:
        size = stream.seek(0, 2)
    except OSError:  # a device
        return None
    stream.seek(here)
    return size


@click.command("export")
@click.option("--tenant", "tenant_id", type=ID, required=True, help="The owner of the rates.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write to this file. It is created when it is complete.",
)
@connected
def export_rates(client: Client, tenant_id: int, output: Path | None) -> None:
    """Export a tenant's deck of rates as CSV, which import takes back."""
    answers = client.rating.ExportRates(
        ExportRatesRequest(tenant_id=tenant_id), timeout=client.long_timeout
    )
    parts = (answer.rates for answer in answers)

    def write(out: TextIO) -> int:
        if client.as_json:
            return print_json_lines((rate for part in parts for rate in part), out)
        return write_deck(parts, out)

    export(write, output)
