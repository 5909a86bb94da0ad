"""The report of ``tollwire cdrs upload``: totals of file and server, and failed records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import click

from tollwire.client import UploadedChunk
from tollwire.service.cli.connection import Client
from tollwire.service.cli.failed_records import UNREADABLE
from tollwire.service.cli.failures import REFUSED, Failure
from tollwire.service.cli.output import (
    json_document,
    note,
    print_document,
    print_fields,
    printable,
)
from tollwire.service.cli.tables import grouped
from tollwire.v1.cdr_service_pb2 import (
    FailedRecord,
    GetUploadResponse,
    UploadFailure,
)

SHOWN_PROBLEMS = 10
KEPT_PROBLEMS = 1_000


@dataclass(slots=True)
class Report:
    """The failed records: the counts of all, and the first ones in full. ``already_settled`` and
    ``duplicates_of_reversed`` are sums over the responses to the chunks."""

    everything: TextIO | None  # a file for all of them, as JSON lines
    already_settled: int = 0
    duplicates_of_reversed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: list[dict[str, Any]] = field(default_factory=list)

    @property
    def unreadable(self) -> int:
        """The number of records that could not be read from the file."""
        return self.reasons[UNREADABLE]

    def settled(self, chunk: UploadedChunk, lines: Sequence[int]) -> None:
        """Count a chunk. ``lines``: the lines of its calls in the file."""
        response = chunk.response
        self.already_settled += response.already_settled
        self.duplicates_of_reversed += response.duplicates_of_reversed
        for failure in response.failures:
            self.failed(lines[failure.index - chunk.offset], failure)

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


def show_report(
    client: Client,
    totals: GetUploadResponse,
    report: Report,
    file_counts: tuple[int, int],
    numbered: bool,
) -> None:
    """Print the totals of file and server and the outcomes, as a table or as JSON.
    ``file_counts``: the numbers of lines and records of the file."""
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
            f" {totals.upload_id} has {totals.committed_offset:,} of {totals.duration_seconds:,} s;"
            " check that it is an upload of this file",
            REFUSED,
        )
    not_stored = totals.conflicts + totals.rejected
    if not_stored:
        were = "record was" if not_stored == 1 else "records were"
        raise Failure(f"{not_stored:,} {were} not stored", REFUSED)


def _warn(totals: GetUploadResponse, numbered: bool) -> None:
    """Print the warnings of a successful upload, for example about records that are not billed.
    ``numbered``: equal records were numbered."""
    for warning in totals.warnings:
        note(f"warning: {warning}")
    if totals.derived_duplicates and not numbered:
        note(
            "if equal records are distinct calls, upload the file with --occurrence: it numbers"
            " them"
        )
