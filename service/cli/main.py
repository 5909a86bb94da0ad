"""The ``tollwire`` command, with all its subcommands."""

from __future__ import annotations

import os
import sys

import click

from tollwire.service.cli.audit import audit
from tollwire.service.cli.cdrs import cdrs
from tollwire.service.cli.cdrs_reversals import list_reversals, reverse_cdrs, reverse_upload
from tollwire.service.cli.cdrs_tail import tail_cdrs
from tollwire.service.cli.cdrs_upload import upload_cdrs
from tollwire.service.cli.cdrs_uploads import list_failures, list_uploads, upload_status
from tollwire.service.cli.cdrs_verify import verify_cdrs
from tollwire.service.cli.connection import CONNECTION_OPTIONS
from tollwire.service.cli.failures import INTERRUPTED
from tollwire.service.cli.health import health
from tollwire.service.cli.installation import config, doctor
from tollwire.service.cli.ledger import ledger
from tollwire.service.cli.program import Program, prepare_streams
from tollwire.service.cli.rates import rates
from tollwire.service.cli.rates_export import export_rates
from tollwire.service.cli.rates_import import import_rates
from tollwire.service.cli.rating import rate
from tollwire.service.cli.serve import backup, migrate, serve
from tollwire.service.cli.tenants import extensions, tenants
from tollwire.service.cli.tokens import tokens
from tollwire.service.cli.usage import usage

EPILOG = (
    "Exit codes: 0 success; 1 the server refused the request or some records; 2 the command line"
    " or a file is invalid; 3 the server does not respond; 4 a defect of the server; 130"
    " interrupted; 141 the reader of the output closed it."
)


@click.group(
    cls=Program,
    params=CONNECTION_OPTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
@click.version_option(package_name="tollwire")
def main(**connection: object) -> None:
    """Rate telephone calls and keep the record of what each one cost.

    "serve" runs the server; "migrate", "backup", "config" and "doctor" are for its operator. All
    other commands are clients of a running server.
    """


_OPERATOR_COMMANDS = (serve, migrate, backup, config, doctor, health)
_CLIENT_COMMANDS = (tenants, extensions, rates, rate, cdrs, usage, ledger, tokens, audit)
_UPLOAD_COMMANDS = (upload_cdrs, upload_status, list_uploads, list_failures)
_RECORD_COMMANDS = (tail_cdrs, verify_cdrs, reverse_cdrs, reverse_upload, list_reversals)

for command in _OPERATOR_COMMANDS + _CLIENT_COMMANDS:
    main.add_command(command)
for rates_command in (import_rates, export_rates):
    rates.add_command(rates_command)
for cdrs_command in _UPLOAD_COMMANDS + _RECORD_COMMANDS:
    cdrs.add_command(cdrs_command)


def run() -> None:
    """Run the command as the program of this process.

    After an interrupt the process exits at once: the interrupt may have stopped gRPC's code at any
    point, and then its threads may never end.
    """
    prepare_streams()
    try:
        main(prog_name="tollwire")
    except SystemExit as done:
        if done.code == INTERRUPTED:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise


if __name__ == "__main__":
    run()
