"""``tollwire cdrs upload``: files of calls of any size, resumed where they broke off."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import click
import grpc
from rich.progress import Progress, TaskID

from tollwire.service.cli.call_files import CSV, JSON_LINES, CallFile, format_of
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.control_totals import Tally
from tollwire.service.cli.failed_records import UNREADABLE
from tollwire.service.cli.failures import (
    INTERRUPTED,
    REFUSED,
    USAGE,
    Failure,
    failure_of,
    reason_of,
)
from tollwire.service.cli.files import multiline_option
from tollwire.service.cli.interrupts import Interrupts
from tollwire.service.cli.lines import BadFile, BadLine
from tollwire.service.cli.occurrences import Occurrences
from tollwire.service.cli.output import (
    byte_progress,
    json_document,
    note,
    print_document,
    print_fields,
    printable,
)
from tollwire.service.cli.tables import grouped
from tollwire.service.cli.upload import (
    DEFAULT_CHUNK_CALLS,
    DEFAULT_RETRIES,
    DEFAULT_WINDOW,
    Chunk,
    Upload,
    chunked,
)
from tollwire.service.cli.upload_state import UploadState
from tollwire.service.cli.values import ID
from tollwire.v1.cdr_service_pb2 import (
    FailedRecord,
    GetUploadResponse,
    UploadCdrsResponse,
    UploadFailure,
)
from tollwire.v1.types_pb2 import Call, UnreadableRecord

SHOWN_PROBLEMS = 10
KEPT_PROBLEMS = 1_000


@dataclass(slots=True)
class Report:
    """What went wrong with single records: counts of all, the first ones in full.
    ``already_settled`` and ``duplicates_of_reversed`` add up what the chunks were answered."""

    everything: TextIO | None  # a file for all of them, as JSON lines
    already_settled: int = 0
    duplicates_of_reversed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: list[dict[str, Any]] = field(default_factory=list)

    @property
    def unreadable(self) -> int:
        """Those of the rejected records that could not be read from the file."""
        return self.reasons[UNREADABLE]

    def settled(self, chunk: Chunk, response: UploadCdrsResponse) -> None:
        self.already_settled += response.already_settled
        self.duplicates_of_reversed += response.duplicates_of_reversed
        for failure in response.failures:
            self.failed(chunk.lines[failure.index - chunk.offset], failure)

    def failed(self, line: int, failure: UploadFailure | FailedRecord) -> None:
        self._add(
            {
                "line": line,
                "index": str(failure.index),
                "call_id": failure.call_id,
                "reason": failure.reason,
                "message": failure.message.removeprefix(f"line {line}: "),
            }
        )

    def _add(self, problem: dict[str, Any]) -> None:
        self.reasons[problem["reason"]] += 1
        if len(self.first) < KEPT_PROBLEMS:
            self.first.append(problem)
        if self.everything is not None:
            print(json.dumps(problem, ensure_ascii=False), file=self.everything)


@click.command("upload")
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True))
@click.option("--tenant", "tenant_id", type=ID, help="The tenant of records that name none.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice([CSV, JSON_LINES]),
    help="Default: by the file's name, .csv or .jsonl, or these with .gz.",
)
@multiline_option
@click.option(
    "--chunk",
    type=click.IntRange(1, 10_000),
    default=DEFAULT_CHUNK_CALLS,
    show_default=True,
    help="The number of calls in one message, which is one transaction.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 64),
    default=DEFAULT_WINDOW,
    show_default=True,
    help="The number of messages in flight.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=DEFAULT_RETRIES,
    show_default=True,
    help="Give up after this many failed attempts in a row.",
)
@click.option("--upload-id", type=ID, help="Resume this upload of the same file.")
@click.option(
    "--no-resume", is_flag=True, help="Start a new upload, even if the last run was interrupted."
)
@click.option(
    "--occurrence",
    is_flag=True,
    help="Equal records without a call_id are distinct calls, numbered as they follow each other"
    " in the file. Without it they count as one call sent twice.",
)
@click.option(
    "--failures",
    type=click.File("w", encoding="utf-8", lazy=False),
    help="Write each record that was not stored, and the reason, to this file, as JSON lines.",
)
@connected
def upload_cdrs(
    client: Client,
    file: str,
    tenant_id: int | None,
    format_name: str | None,
    multiline: bool,
    chunk: int,
    window: int,
    retries: int,
    occurrence: bool,
    upload_id: int | None,
    no_resume: bool,
    failures: TextIO | None,
) -> None:
    """Upload a file of calls ("-": standard input), rate them and record them.

    CSV with Call's field names in the header, or JSON lines. A line is a record, and a bad one
    stops no other. A gzip file is read as it is. A broken connection is resumed; so is a run that
    was killed, by the same command again. A record that is sent twice is there once. In the end the
    server must have as many records as the file has, and of the same duration. A record that cannot
    be read counts as well: the server keeps its line.
    """
    format_name = format_name or format_of(file)
    if format_name is None:
        raise click.UsageError("--format is needed: the file's name does not tell it")
    state = None
    if file != "-":
        reading: dict[str, str | int] = {"format": format_name, "tenant_id": tenant_id or 0}
        reading |= {"multiline": multiline, "occurrence": occurrence}
        state = UploadState.of(Path(file), client.server, reading)
    report = Report(failures)
    with (
        click.open_file(file, "rb") as opened,
        byte_progress() as progress,
        Interrupts() as interrupts,
    ):
        stream = cast(BinaryIO, opened)
        try:
            records = CallFile(stream, format_name, tenant_id or 0, multiline=multiline)
        except BadFile as error:
            raise Failure(f"{file}: {error}", USAGE) from None
        if records.ignored:
            note(f"not read, because only a CDR has them: columns {', '.join(records.ignored)}")
        bar = _Bar(progress, stream, None if file == "-" else Path(file).stat().st_size)

        def settled(chunk: Chunk, response: UploadCdrsResponse) -> None:
            report.settled(chunk, response)
            bar.show(response.committed_offset)
            interrupts.check()

        def broken(message: str, delay_seconds: float) -> None:
            note(f"{message}; trying again in {delay_seconds:g} s")
            interrupts.check()

        upload = Upload(client, upload_id or 0, settled, broken, window, retries)
        settled_before = _begin(upload, state, no_resume)
        tally = Tally()
        calls = tally.count(_calls(records, Occurrences() if occurrence else None))
        with _says_how_to_resume(client, upload, state):
            _pass_by(calls, settled_before, upload, report)
            upload.send(chunked(calls, chunk, settled_before), tally.totals)
            totals = upload.final_state()
    if state is not None:
        state.remove()
    counted = (records.line_count, tally.totals().calls)
    _show_report(client, totals, report, counted, occurrence)


def _begin(upload: Upload, state: UploadState | None, no_resume: bool) -> int:
    """Begins the upload, or finds out where it stands; returns how many calls are settled."""
    by_hand = upload.id
    if not by_hand and state is not None and not no_resume:
        upload.id = state.upload_id()
    if upload.id:
        try:
            settled = upload.state().committed_offset
        except grpc.RpcError as error:
            # A note about an upload that the server never heard of is of another database.
            if by_hand or reason_of(error) != "UPLOAD_NOT_FOUND":
                raise
            upload.id = 0
        else:
            note(f"going on with upload {upload.id}, of which {settled:,} calls are settled")
            return settled
    upload.begin()
    if state is not None:
        state.write(upload.id)
    return 0


def _calls(records: CallFile, occurrences: Occurrences | None) -> Iterator[tuple[int, Call]]:
    """What is sent for each record: a record that cannot be read keeps its place."""
    for line, call in records:
        if isinstance(call, BadLine):
            record = UnreadableRecord(
                line=line, text=call.content, header=records.header, message=call.message
            )
            yield line, Call(unreadable=record)
        else:
            if occurrences is not None:
                occurrences.number(call)
            yield line, call


def _pass_by(
    calls: Iterator[tuple[int, Call]], settled_before: int, upload: Upload, report: Report
) -> None:
    """Takes the calls that an earlier run has sent, and reports what became of them."""
    if not settled_before:
        return
    failures = upload.failures()
    failure = next(failures, None)
    for index, (line, _) in enumerate(islice(calls, settled_before)):
        if failure is not None and failure.index == index:
            report.failed(line, failure)
            failure = next(failures, None)


@dataclass(slots=True)
class _Bar:
    """Shows how much of the file is read, and how many calls are settled."""

    progress: Progress
    stream: BinaryIO
    size: int | None
    task: TaskID | None = None

    def show(self, settled: int) -> None:
        if self.task is None:
            self.task = self.progress.add_task("uploading", total=self.size, records="")
        done = self.stream.tell() if self.size is not None else 0
        self.progress.update(self.task, completed=done, records=f"{settled:,} calls")


@contextlib.contextmanager
def _says_how_to_resume(
    client: Client, upload: Upload, state: UploadState | None
) -> Iterator[None]:
    """Adds to whatever ends the upload how it can go on."""
    how = (
        "run the same command again to go on"
        if state is not None
        else f"go on with --upload-id {upload.id} and the same input"
    )
    try:
        yield
    except grpc.RpcError as error:
        failure = failure_of(error, client.server)
        message = f"{failure.message}; {how} (upload {upload.id})"
        raise Failure(message, failure.exit_code) from None
    except BadFile as error:
        message = (
            f"{error}; mend the file and upload it again: what is recorded already is not recorded"
            f" twice (upload {upload.id})"
        )
        raise Failure(message, USAGE) from None
    except KeyboardInterrupt:
        message = f"interrupted; {how} (upload {upload.id})"
        raise Failure(message, INTERRUPTED) from None


def _show_report(
    client: Client,
    totals: GetUploadResponse,
    report: Report,
    file_counts: tuple[int, int],
    numbered: bool,
) -> None:
    """One set of numbers, as a table and as JSON: what the file has, what the server settled, and
    what became of it. ``file_counts``: lines and records of the file."""
    line_count, record_count = file_counts
    if client.as_json:
        document = json_document(totals)
        document |= {
            "lines": str(line_count),
            "records": str(record_count),
            "settled": str(totals.committed_offset),
            "unreadable": str(report.unreadable),
            "already_settled": str(report.already_settled),
            "duplicates_of_reversed": str(report.duplicates_of_reversed),
            "failures": report.first,
        }
        print_document(document)
    else:
        print_fields(
            [
                ("upload", str(totals.upload_id)),
                ("lines", grouped(line_count)),
                ("records", grouped(record_count)),
                ("settled", grouped(totals.committed_offset)),
                ("created", grouped(totals.created)),
                ("duplicates", grouped(totals.duplicates)),
                ("conflicts", grouped(totals.conflicts)),
                ("rejected", grouped(totals.rejected)),
                ("unrated", grouped(totals.unrated)),
                ("seconds", grouped(totals.duration_seconds)),
                *(
                    (name, grouped(count))
                    for name, count in (
                        ("unreadable", report.unreadable),
                        ("already settled", report.already_settled),
                        ("recorded again", totals.recorded_again),
                        ("duplicates of reversed", report.duplicates_of_reversed),
                        ("derived call ids", totals.derived_call_ids),
                        ("derived duplicates", totals.derived_duplicates),
                    )
                    if count
                ),
            ]
        )
        for problem in report.first[:SHOWN_PROBLEMS]:
            text = f"line {problem['line']}: {problem['reason']}: {problem['message']}"
            click.echo(printable(text))
        unshown = sum(report.reasons.values()) - SHOWN_PROBLEMS
        if unshown > 0:
            counts = ", ".join(f"{n:,} {reason}" for reason, n in report.reasons.most_common())
            click.echo(f"and {unshown:,} more ({counts}); --failures FILE writes them all")
    _warn(totals, numbered)
    if totals.HasField("control_totals_match") and not totals.control_totals_match:
        sent = totals.control_totals
        raise Failure(
            f"{sent.calls:,} records of {sent.duration_seconds:,} s were sent, but upload"
            f" {totals.upload_id} has {totals.committed_offset:,} of {totals.duration_seconds:,} s:"
            " is it of another file?",
            REFUSED,
        )
    not_stored = totals.conflicts + totals.rejected
    if not_stored:
        were = "record was" if not_stored == 1 else "records were"
        raise Failure(f"{not_stored:,} {were} not stored", REFUSED)


def _warn(totals: GetUploadResponse, numbered: bool) -> None:
    """What bills nothing, or replaces a bill, although the upload succeeded. ``numbered``: equal
    records were numbered."""
    for warning in totals.warnings:
        note(f"warning: {warning}")
    if totals.derived_duplicates and not numbered:
        note(
            "if equal records are distinct calls, upload the file with --occurrence: it numbers"
            " them"
        )
