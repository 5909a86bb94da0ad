"""``tollwire rates import`` and ``export``: whole decks as CSV.

The server takes a deck whole or not at all. The file is sent while it is read. On the first row
that cannot even be read the import is called off before the server can take it, and the deck goes
once more as a dry run, so that one report has all that is wrong: here and there.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click
from rich.progress import Progress

from service.cli.connection import Client, connected
from service.cli.csv_file import BadFile
from service.cli.deck_csv import DeckFile, write_deck
from service.cli.failures import REFUSED, USAGE, Failure
from service.cli.files import export
from service.cli.output import (
    byte_progress,
    json_document,
    note,
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
from tollwire.v1.types_pb2 import IMPORT_MODE_MERGE, IMPORT_MODE_REPLACE, ImportMode, Rate

RATES_A_MESSAGE = 5_000
SHOWN_PROBLEMS = 10
KEPT_PROBLEMS = 1_000


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

    response: ImportRatesResponse = field(default_factory=ImportRatesResponse)
    problems: list[Problem] = field(default_factory=list)
    unreadable: int = 0

    @property
    def rejected(self) -> int:
        return self.response.rejected + self.unreadable


class _UnreadableRow(Exception):
    """The import was called off; the server has changed nothing."""


@dataclass(slots=True)
class DeckImport:
    """One import of a deck from a file that can be read from its start again."""

    client: Client
    stream: BinaryIO
    tenant_id: int
    mode: ImportMode.ValueType
    allow_empty: bool
    progress: Progress

    def run(self, dry_run: bool) -> Outcome:
        try:
            return self._send(dry_run, call_off=True)
        except _UnreadableRow:
            return self._send(dry_run=True, call_off=False)

    def _send(self, dry_run: bool, call_off: bool) -> Outcome:
        self.stream.seek(0)
        deck = DeckFile(self.stream)
        outcome, lines = Outcome(), array("Q")
        requests: RequestQueue[ImportRatesRequest] = RequestQueue(2)
        call = self.client.rating.ImportRates.future(
            iter(requests), timeout=self.client.long_timeout
        )
        try:
            for rates_ in self._messages(deck, lines, outcome, call_off):
                request = ImportRatesRequest(
                    tenant_id=self.tenant_id, mode=self.mode, dry_run=dry_run, rates=rates_
                )
                if not requests.send(request, call):
                    break
        except BaseException:
            call.cancel()  # before the stream can look complete
            raise
        finally:
            requests.close(call)
        outcome.response = call.result()
        outcome.problems += [
            Problem(lines[error.index], error.field, error.message)
            for error in outcome.response.errors
        ]
        outcome.problems.sort(key=lambda problem: problem.line)
        return outcome

    def _messages(
        self, deck: DeckFile, lines: array[int], outcome: Outcome, call_off: bool
    ) -> Iterator[list[Rate]]:
        """The deck in parts; notes the line of each rate, and what cannot be read."""
        task = self.progress.add_task("reading", total=_size(self.stream), records="")
        part: list[Rate] = []
        for line, rate in deck:
            if isinstance(rate, str):
                if call_off:
                    raise _UnreadableRow
                outcome.unreadable += 1
                if len(outcome.problems) < KEPT_PROBLEMS:
                    outcome.problems.append(Problem(line, "", rate))
                continue
            part.append(rate)
            lines.append(line)
            if len(part) == RATES_A_MESSAGE:
                yield part
                part = []
                done = self.stream.tell()
                self.progress.update(task, completed=done, records=f"{len(lines):,} rates")
        if not lines and not outcome.unreadable and not self.allow_empty:
            raise Failure("the file has no rates in it", USAGE)
        yield part
        self.progress.update(task, description="server is checking", total=None)


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--tenant", "tenant_id", type=ID, required=True, help="The owner of the rates.")
@click.option(
    "--mode",
    type=EnumParameter(IMPORT_MODE),
    default=IMPORT_MODE_MERGE,
    help="merge (the default) creates and updates; replace also deletes what the file lacks.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option("--allow-empty", is_flag=True, help="With --mode replace: delete all rates.")
@connected
def import_rates(
    client: Client,
    file: BinaryIO,
    tenant_id: int,
    mode: ImportMode.ValueType,
    dry_run: bool,
    allow_empty: bool,
) -> None:
    """Import a deck of rates from a CSV file ("-": standard input): all of it or none.

    Columns: prefix, destination, cost_per_minute, billing_increment; optional: connect_fee,
    minimum_seconds, effective_from, effective_to, blocked, intervals.
    """
    with _rereadable(file) as stream, byte_progress() as progress:
        allow_empty = allow_empty and mode == IMPORT_MODE_REPLACE
        deck = DeckImport(client, stream, tenant_id, mode, allow_empty, progress)
        try:
            outcome = deck.run(dry_run)
        except BadFile as error:
            raise Failure(f"{file.name}: {error}", USAGE) from None
    _report(client, outcome, dry_run)


def _report(client: Client, outcome: Outcome, dry_run: bool) -> None:
    response = outcome.response
    if outcome.rejected:
        # The dry run that looked for more errors counted what will not happen.
        for name in ("created", "updated", "deleted", "unchanged"):
            response.ClearField(name)
    if client.as_json:
        click.echo(json.dumps(_as_json(outcome), indent=2, ensure_ascii=False))
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


def _rereadable(file: BinaryIO) -> BinaryIO:
    """The file itself, or a copy on disk of one that can be read only once."""
    if file.seekable():
        return file
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    shutil.copyfileobj(file, copy)
    return copy


def _size(stream: BinaryIO) -> int:
    here = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(here)
    return size


@click.command("export")
@click.option("--tenant", "tenant_id", type=ID, required=True, help="The owner of the rates.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write to this file; it appears when it is complete.",
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
