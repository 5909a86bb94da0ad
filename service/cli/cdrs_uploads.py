"""``tollwire cdrs uploads``, ``upload-status`` and ``failures``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import click

from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.control_totals import is_time
from tollwire.service.cli.failed_records import (
    UNREADABLE,
    of_csv,
    write_csv,
    write_json_lines,
    write_unreadable_csv,
)
from tollwire.service.cli.files import export
from tollwire.service.cli.listing import Listing, limit_option, print_listing, table_options
from tollwire.service.cli.output import note, print_fields, print_json
from tollwire.service.cli.tables import exact, grouped, number, text, time
from tollwire.service.cli.values import ID, write_time
from tollwire.v1.cdr_service_pb2 import (
    FailedRecord,
    GetUploadRequest,
    GetUploadResponse,
)

UPLOAD_COLUMNS = (
    number("upload", lambda u: str(u.upload_id)),
    number("settled", lambda u: grouped(u.committed_offset), 2),
    number("created", lambda u: grouped(u.created)),
    number("duplicates", lambda u: grouped(u.duplicates), 4),
    number("conflicts", lambda u: grouped(u.conflicts), 3),
    number("rejected", lambda u: grouped(u.rejected)),
    number("unrated", lambda u: grouped(u.unrated), 1),
    number("seconds", lambda u: grouped(u.duration_seconds), 6),
    exact("complete", lambda u: _complete(u), 1),
    time("begun", lambda u: write_time(u.created_at)),
    time("changed", lambda u: write_time(u.updated_at), 5),
)


@click.command("uploads")
@table_options(UPLOAD_COLUMNS)
@limit_option
@connected
def list_uploads(client: Client, limit: int) -> None:
    """List uploads, the newest first."""

    print_listing(client, Listing(client.list_uploads, limit), UPLOAD_COLUMNS, "no uploads")


@click.command("upload-status")
@click.argument("upload_id", metavar="ID", type=ID)
@connected
def upload_status(client: Client, upload_id: int) -> None:
    """Show the progress and the totals of an upload."""
    request = GetUploadRequest(upload_id=upload_id)
    answer = client.get_upload(request)
    if client.as_json:
        print_json(answer)
        return
    totals = answer.control_totals
    stated = f"{totals.calls:,} of {totals.duration_seconds:,} s" if _complete(answer) else ""
    print_fields(
        [
            ("upload", str(answer.upload_id)),
            ("settled", grouped(answer.committed_offset)),
            ("created", grouped(answer.created)),
            ("duplicates", grouped(answer.duplicates)),
            ("conflicts", grouped(answer.conflicts)),
            ("rejected", grouped(answer.rejected)),
            ("unrated", grouped(answer.unrated)),
            ("seconds", grouped(answer.duration_seconds)),
            ("stated", stated),
            ("complete", _complete(answer)),
            ("begun", write_time(answer.created_at)),
            ("changed", write_time(answer.updated_at)),
            ("reversed", write_time(answer.reversed_at) if answer.HasField("reversed_at") else ""),
        ]
    )


def _complete(upload: GetUploadResponse) -> str:
    """Whether the control totals match; empty if the sender gave none."""
    if not upload.HasField("control_totals_match"):
        return ""
    return "yes" if upload.control_totals_match else "no"


FAILURE_COLUMNS = (
    number("index", lambda f: grouped(f.index)),
    exact("reason", lambda f: f.reason),
    exact("call-id", lambda f: f.call_id, 3),
    number("tenant", lambda f: str(f.call.tenant_id or ""), 5),
    time(
        "started",
        lambda f: write_time(f.call.started_at) if f.call.HasField("started_at") else "",
        2,
    ),
    exact("destination", lambda f: f.call.destination_number, 4),
    text("message", lambda f: f.message, 1),
)


@click.command("failures")
@click.argument("upload_id", metavar="ID", type=ID)
@click.option("--reason", default="", help="Only records with this reason, such as CDR_CONFLICT.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all of these records to this file, as CSV if its name ends in"
    " .csv, else as JSON lines.",
)
@table_options(FAILURE_COLUMNS)
@limit_option
@connected
def list_failures(
    client: Client, upload_id: int, reason: str, output: Path | None, limit: int
) -> None:
    """List the records of an upload that were not stored, with their reasons.

    You can correct the file of --output and upload it again. Records of a CSV file that could not
    be read are written unchanged: to FILE if its name ends in .csv, else to a second file whose
    name ends in .unreadable.csv.
    """
    wanted = reason.upper().replace("-", "_")

    found = partial(client.list_upload_failures, upload_id=upload_id)
    if output is not None:
        unreadable: list[FailedRecord] = []
        if wanted in ("", UNREADABLE):
            unreadable = list(islice(found(reason=UNREADABLE, page_size=1), 1))
        _write_failures(lambda: map(_writable, found(reason=wanted)), unreadable, output)
        return
    listing = Listing(partial(found, reason=wanted), limit, _writable)
    print_listing(client, listing, FAILURE_COLUMNS, "no failed records")


def _write_failures(
    records: Callable[[], Iterator[FailedRecord]], unreadable: list[FailedRecord], output: Path
) -> None:
    """``records``: a listing of all; ``unreadable``: the first record that could not be read, if
    there is one."""
    header = unreadable[0].call.unreadable.header if unreadable else b""
    if output.suffix.lower() == ".csv":
        export(lambda out: write_csv(records(), header, out), output)
        return
    export(lambda out: write_json_lines(records(), out), output)
    if unreadable:
        beside = output.with_suffix(".unreadable.csv")
        if any(map(of_csv, records())):
            export(lambda out: write_unreadable_csv(records(), out), beside)


def _writable(failed: FailedRecord) -> FailedRecord:
    """The record without invalid times, which cannot be written as text."""
    for name in ("started_at", "ended_at"):
        if failed.call.HasField(name) and not is_time(getattr(failed.call, name)):
            failed.call.ClearField(name)
            note(f"record {failed.index}: {name} is not a valid time and is left out")
    return failed
