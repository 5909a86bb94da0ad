"""``tollwire cdrs upload``: uploads files of any size, and resumes after an interruption."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import click
from rich.progress import Progress, TaskID

from tollwire.client import NotFoundError, TollwireError, Upload
from tollwire.client.uploads import DEFAULT_CHUNK_CALLS, DEFAULT_RETRIES, DEFAULT_WINDOW
from tollwire.service.cli.call_files import CSV, JSON_LINES, CallFile, format_of
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.control_totals import TotalsCounter
from tollwire.service.cli.failures import (
    INTERRUPTED,
    USAGE,
    Failure,
    failure_of,
)
from tollwire.service.cli.files import multiline_option
from tollwire.service.cli.interrupts import Interrupts
from tollwire.service.cli.lines import BadFile, BadLine
from tollwire.service.cli.occurrences import Occurrences
from tollwire.service.cli.output import (
    byte_progress,
    note,
)
from tollwire.service.cli.upload_report import Report, show_report
from tollwire.service.cli.upload_state import UploadState
from tollwire.service.cli.values import ID
from tollwire.v1.cdr_service_pb2 import (
    GetUploadResponse,
)
from tollwire.v1.types_pb2 import Call, UnreadableRecord


@click.command("upload")
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True))
@click.option("--tenant", "tenant_id", type=ID, help="The tenant of records without a tenant.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice([CSV, JSON_LINES]),
    help="Default: by the file's name: .csv or .jsonl, also with .gz.",
)
@multiline_option
@click.option(
    "--chunk",
    type=click.IntRange(1, 10_000),
    default=DEFAULT_CHUNK_CALLS,
    show_default=True,
    help="The number of calls in one message. Each message is one transaction.",
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
    help="Treat equal records without a call_id as distinct calls, and number them in the order"
    " of the file. Default: they are one call that was sent twice.",
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

    The file is CSV with Call's field names in the header, or JSON lines. Each line is a record; an
    invalid record does not block others. gzip files are decompressed. After a broken connection the
    upload resumes; after a crash, repeat the command. A record that is sent twice is stored once.
    At the end the command checks that the server has as many records as the file, with the same
    total duration. Records that cannot be read count too: the server stores their lines.
    """
    format_name = format_name or format_of(file)
    if format_name is None:
        raise click.UsageError(
            "--format is required: the name of the file does not end in .csv or .jsonl"
        )
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
            note(f"ignored columns, which only CDRs have: {', '.join(records.ignored)}")
        bar = _ProgressBar(progress, stream, None if file == "-" else Path(file).stat().st_size)

        def broken(error: TollwireError, delay_seconds: float) -> None:
            message = failure_of(error, client.server).message
            note(f"{message}; trying again in {delay_seconds:g} s")
            interrupts.check()

        counter = TotalsCounter()
        calls = counter.count(_calls(records, Occurrences() if occurrence else None))
        lines: deque[int] = deque()  # of the calls that are not settled yet
        resumed = _resumed(client, upload_id, state, no_resume)
        settled_before = resumed.committed_offset
        upload = client.upload(
            _without_lines(calls, lines),
            upload_id=resumed.upload_id,
            offset=settled_before,
            chunk_calls=chunk,
            window=window,
            retries=retries,
            control_totals=counter.totals,
            on_interrupted=broken,
        )
        if not resumed.upload_id:
            upload.begin()
            if state is not None:
                state.write(upload.id)
        with _with_resume_advice(client, upload, state), upload:
            _skip_settled(calls, settled_before, upload, report)
            for settled in upload:
                report.settled(settled, [lines.popleft() for _ in settled.calls])
                bar.show(settled.response.committed_offset)
                interrupts.check()
            totals = upload.state()
    if state is not None:
        state.remove()
    counted = (records.line_count, counter.totals().calls)
    show_report(client, totals, report, counted, occurrence)


def _resumed(
    client: Client, given_id: int | None, state: UploadState | None, no_resume: bool
) -> GetUploadResponse:
    """The upload to continue, with its committed offset; without an id for a new one."""
    upload_id = given_id or 0
    if not upload_id and state is not None and not no_resume:
        upload_id = state.upload_id()
    if not upload_id:
        return GetUploadResponse()
    try:
        found = client.get_upload(upload_id=upload_id)
    except NotFoundError:
        # A stored id that the server does not have belongs to another database.
        if given_id:
            raise
        return GetUploadResponse()
    note(f"resuming upload {upload_id}, which has {found.committed_offset:,} committed calls")
    return found


def _without_lines(calls: Iterable[tuple[int, Call]], lines: deque[int]) -> Iterator[Call]:
    """The calls; their lines are added to ``lines``."""
    for line, call in calls:
        lines.append(line)
        yield call


def _calls(records: CallFile, occurrences: Occurrences | None) -> Iterator[tuple[int, Call]]:
    """The message for each record. A record that cannot be read also gets a message, so that the
    indexes are those of the file."""
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


def _skip_settled(
    calls: Iterator[tuple[int, Call]], settled_before: int, upload: Upload, report: Report
) -> None:
    """Skip the calls that an earlier run has sent, and report their failures."""
    if not settled_before:
        return
    failures = upload.failures()
    failure = next(failures, None)
    for index, (line, _) in enumerate(islice(calls, settled_before)):
        if failure is not None and failure.index == index:
            report.failed(line, failure)
            failure = next(failures, None)


@dataclass(slots=True)
class _ProgressBar:
    """Shows the part of the file that was read, and the number of committed calls."""

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
def _with_resume_advice(
    client: Client, upload: Upload, state: UploadState | None
) -> Iterator[None]:
    """Add to an error how to resume the upload."""
    how = (
        "repeat the command to resume"
        if state is not None
        else f"resume with --upload-id {upload.id} and the same input"
    )
    try:
        yield
    except TollwireError as error:
        failure = failure_of(error, client.server)
        message = f"{failure.message}; {how} (upload {upload.id})"
        raise Failure(message, failure.exit_code) from None
    except BadFile as error:
        message = (
            f"{error}; correct the file and upload it again: recorded calls are not recorded"
            f" twice (upload {upload.id})"
        )
        raise Failure(message, USAGE) from None
    except KeyboardInterrupt:
        message = f"interrupted; {how} (upload {upload.id})"
        raise Failure(message, INTERRUPTED) from None
