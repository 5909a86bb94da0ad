"""``tollwire rates import`` and ``export``: whole decks as CSV.

The server takes a deck whole or not at all. The file is read to its end before anything is sent: so
it is known how many rates there are, and whether rows cannot even be read. Where some cannot, the
others go as a dry run, and one report has all that is wrong: here and there.
"""

from __future__ import annotations

import struct
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any, BinaryIO, TextIO

import click
from rich.progress import Progress

from service.cli.connection import Client, connected
from service.cli.deck_csv import DeckFile, write_deck
from service.cli.failures import REFUSED, USAGE, Failure
from service.cli.files import export, multiline_option
from service.cli.lines import BadFile
from service.cli.output import (
    byte_progress,
    json_document,
    note,
    print_document,
    print_fields,
    print_json_lines,
    printable,
)
from service.cli.streaming import RequestQueue
from service.cli.values import ID, IMPORT_MODE, EnumParameter
from tollwire.v1.rating_service_pb2 import (
    ExportRatesRequest,
    ImportRatesRequest,
    ImportRatesResponse,
)
from tollwire.v1.rating_service_pb2 import ImportError as DeckError
from tollwire.v1.types_pb2 import IMPORT_MODE_MERGE, IMPORT_MODE_REPLACE, ImportMode

RATES_A_MESSAGE = 5_000
SHOWN_PROBLEMS = 10
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

    def requests(
        self, tenant_id: int, mode: ImportMode.ValueType, dry_run: bool
    ) -> Iterator[ImportRatesRequest]:
        """The deck as it is sent. The first message says how many rates there are in all, so that
        the server never takes a part of them for the whole."""
        self.spool.seek(0)
        for number in count():
            size = self.spool.read(_SIZE.size)
            if not size:
                return
            request = ImportRatesRequest.FromString(self.spool.read(*_SIZE.unpack(size)))
            request.tenant_id, request.mode, request.dry_run = tenant_id, mode, dry_run
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


def send_deck(
    client: Client, deck: SpooledDeck, tenant_id: int, mode: ImportMode.ValueType, dry_run: bool
) -> Outcome:
    """Imports a deck. Where rows could not be read nothing is to change: a dry run then reports
    what else is wrong."""
    dry_run = dry_run or deck.unreadable > 0
    queue: RequestQueue[ImportRatesRequest] = RequestQueue(2)
    call = client.rating.ImportRates.future(iter(queue), timeout=client.long_timeout)
    try:
        for request in deck.requests(tenant_id, mode, dry_run):
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
@multiline_option
@connected
def import_rates(
    client: Client,
    file: BinaryIO,
    tenant_id: int,
    mode: ImportMode.ValueType,
    dry_run: bool,
    allow_empty: bool,
    multiline: bool,
) -> None:
    """Import a deck of rates from a CSV file ("-": standard input): all of it or none.

    Columns: prefix, destination, cost_per_minute, billing_increment; optional: connect_fee,
    minimum_seconds, effective_from, effective_to, blocked, intervals. A line is a rate. A gzip file
    is read as it is. Where a line cannot be read, nothing is imported.
    """
    may_be_empty = allow_empty and mode == IMPORT_MODE_REPLACE
    # In memory, and on disk where it is much.
    with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as spool, byte_progress() as progress:
        try:
            deck = read_deck(file, spool, progress, multiline=multiline)
        except BadFile as error:
            raise Failure(f"{file.name}: {error}", USAGE) from None
        if not deck.lines and not deck.unreadable and not may_be_empty:
            raise Failure("the file has no rates in it", USAGE)
        outcome = send_deck(client, deck, tenant_id, mode, dry_run)
    _report(client, outcome, dry_run)


def _report(client: Client, outcome: Outcome, dry_run: bool) -> None:
    response = outcome.response
    if outcome.rejected:
        # The dry run that looked for more errors counted what will not happen.
        for name in ("created", "updated", "deleted", "unchanged"):
            response.ClearField(name)
    if client.as_json:
        print_document(_as_json(outcome))
    else:
        print_fields(
            [
                *(
                    (name, str(getattr(response, name)))
                    for name in ("created", "updated", "deleted", "unchanged")
                ),
                ("rejected", str(outcome.rejected)),
                ("rate revision", str(response.rate_revision)),
            ]
        )
        for problem in outcome.problems[:SHOWN_PROBLEMS]:
            click.echo(printable(str(problem)))
        if outcome.rejected > SHOWN_PROBLEMS:
            click.echo(f"and {outcome.rejected - SHOWN_PROBLEMS} more; --json lists up to 1,000")
    if outcome.rejected:
        rates = "rate" if outcome.rejected == 1 else "rates"
        raise Failure(f"{outcome.rejected:,} {rates} rejected; nothing was changed", REFUSED)
    if dry_run:
        note("dry run: nothing was changed")


def _as_json(outcome: Outcome) -> dict[str, Any]:
    """The response's protobuf JSON, with the file's lines instead of the deck's indexes."""
    document = json_document(outcome.response)
    document["rejected"] = str(outcome.rejected)
    document["errors"] = [
        {"line": p.line, "field": p.field, "message": p.message} for p in outcome.problems
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
