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
    rates = client.export_rates(tenant_id=tenant_id)

    def write(out: TextIO) -> int:
        if client.as_json:
            return print_json_lines(rates, out)
        return write_deck(rates, out)

    export(write, output)
