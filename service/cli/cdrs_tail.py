"""``tollwire cdrs tail``: prints the feed of CDRs, in the order of recording."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import click

from tollwire.client import UnavailableError
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.failures import USAGE, Failure, one_line
from tollwire.service.cli.output import json_text, note
from tollwire.service.cli.values import (
    DIRECTION,
    DISPOSITION,
    ID,
    RATING_STATUS,
    enum_name,
    write_time,
)
from tollwire.v1.cdr_service_pb2 import WatchCdrsRequest, WatchCdrsResponse
from tollwire.v1.types_pb2 import Cdr

RETRY_SECONDS = 1.0
_MAX_CURSOR_BYTES = 8192
_HEADERS = ("id", "tenant", "started", "direction", "number", "disposition", "seconds", "cost")
_WIDTHS = (10, 8, 24, 9, 20, 11, 8, 0)


@click.command("tail")
@click.option("--tenant", "tenant_id", type=ID, help="Only CDRs of this tenant.")
@click.option(
    "--cursor-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Continue after the position in this file, and store the position there. The file need"
    " not exist.",
)
@click.option("--from-now", is_flag=True, help="Skip CDRs that are already recorded.")
@click.option("--no-follow", is_flag=True, help="End when all recorded CDRs are printed.")
@connected
def tail_cdrs(
    client: Client,
    tenant_id: int | None,
    cursor_file: Path | None,
    from_now: bool,
    no_follow: bool,
) -> None:
    """Print CDRs in the order of recording, and new ones as they are recorded.

    --cursor-file continues after the last run. A CDR is printed twice only if the command was
    interrupted between printing it and storing its position. --json prints one CDR in each line."""
    cursor = _read(cursor_file)
    request = WatchCdrsRequest(
        tenant_id=tenant_id or 0,
        cursor=cursor,
        from_now=from_now and not cursor,
        follow=not no_follow,
    )
    if not client.as_json:
        _print_row(_HEADERS)
    answered = lost = False
    while True:
        try:
            for response in client.watch_cdrs(request):
                answered, lost = True, False
                _print(client, response)
                request.cursor, request.from_now = response.cursor, False
                if cursor_file is not None:
                    _write(cursor_file, response.cursor)
            return
        except UnavailableError:
            if no_follow or not answered:
                raise
        if not lost:
            note(f"the connection to {client.server} is lost; trying again")
        lost = True
        time.sleep(RETRY_SECONDS)


def _print(client: Client, response: WatchCdrsResponse) -> None:
    for cdr in response.cdrs:
        if client.as_json:
            click.echo(json_text(cdr))
        else:
            _print_row(_row(cdr))
    sys.stdout.flush()


def _row(cdr: Cdr) -> tuple[str, ...]:
    return (
        str(cdr.id),
        str(cdr.tenant_id),
        write_time(cdr.started_at),
        enum_name(DIRECTION, cdr.direction),
        cdr.destination_number,
        enum_name(DISPOSITION, cdr.disposition),
        str(cdr.duration_seconds),
        f"{cdr.cost} {cdr.tenant.currency}"
        if cdr.HasField("cost")
        else enum_name(RATING_STATUS, cdr.status),
    )


def _print_row(cells: tuple[str, ...]) -> None:
    padded = (one_line(cell).ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
    click.echo("  ".join(padded).rstrip())


def _read(path: Path | None) -> str:
    """The cursor in a file; empty if the file does not exist."""
    if path is None or not path.exists():
        return ""
    try:
        found = path.read_bytes()
    except OSError as error:
        raise Failure(f"--cursor-file {path}: {error.strerror}", USAGE) from None
    text = found[:_MAX_CURSOR_BYTES].decode("ascii", "replace").strip()
    if not text or not text.isprintable() or len(text.split()) != 1:
        raise Failure(
            f"--cursor-file {path}: the file does not contain a cursor; delete it to begin with the"
            " first CDR",
            USAGE,
        )
    return text


def _write(path: Path, cursor: str) -> None:
    """Replace the file atomically: it has the old or the new cursor after an interruption."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            file.write(cursor + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as error:
        raise Failure(f"--cursor-file {path}: {error.strerror}", USAGE) from None
