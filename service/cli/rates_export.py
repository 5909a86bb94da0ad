"""``tollwire rates export``: a whole deck as CSV or JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.deck_csv import write_deck
from tollwire.service.cli.files import export
from tollwire.service.cli.output import print_json_lines
from tollwire.service.cli.values import ID
from tollwire.v1.rating_service_pb2 import ExportRatesRequest


@click.command("export")
@click.option("--tenant", "tenant_id", type=ID, required=True, help="The owner of the rates.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write to this file. It appears only when the export is complete.",
)
@connected
def export_rates(client: Client, tenant_id: int, output: Path | None) -> None:
    """Export a tenant's rate deck as CSV, which "rates import" can read."""
    answers = client.rating.ExportRates(
        ExportRatesRequest(tenant_id=tenant_id), timeout=client.long_timeout
    )
    parts = (answer.rates for answer in answers)

    def write(out: TextIO) -> int:
        if client.as_json:
            return print_json_lines((rate for part in parts for rate in part), out)
        return write_deck(parts, out)

    export(write, output)
