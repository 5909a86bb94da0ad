"""The lines that a server's processes print for people: that it serves, or why it cannot."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from tollwire.service.domain.errors import CannotListen, TollwireError
from tollwire.service.process.database_wait import DatabaseWaitTimeout
from tollwire.service.process.workers import WorkersFailed
from tollwire.service.rpc import traces
from tollwire.service.rpc.error_map import cause_of
from tollwire.service.rpc.transports.native_front import NativeUnavailable
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.service.settings.pem_files import BadCertificate
from tollwire.service.storage.refusals import DatabaseRefused
from tollwire.service.storage.schema.migrate import SchemaError

# Failures that the operator can correct: the text is enough, and no traceback is printed.
EXPECTED_ERRORS = (
    BadCertificate,
    CannotListen,
    SchemaError,
    DatabaseRefused,
    DatabaseWaitTimeout,
    traces.TracesUnavailable,
    NativeUnavailable,
    TollwireError,
    WorkersFailed,
)


def report_failure(error: Exception) -> int:
    """Print the failure on standard error, in one line. Returns the exit code."""
    cause = cause_of(error) if isinstance(error, TollwireError) else ""
    # In one write: several workers may fail at the same time and share the terminal.
    sys.stderr.write(f"tollwire: {error}{cause}\n")
    return 1


def serving_line(settings: Settings, listen: Listen, loaded: Mapping[str, Any]) -> str:
    database = settings.database.partition(":")[0].partition("+")[0]
    tls = "mutual TLS, " if settings.tls_client_ca_file else "TLS, " if settings.uses_tls else ""
    access = "open: requests need no token, " if loaded["is_open"] else ""
    return (
        f"tollwire: serving on {listen} ({access}{tls}{database},"
        f" {_count(settings.workers, 'worker')}, {_count(loaded['tenants'], 'tenant')} and"
        f" {_count(loaded['rates'], 'rate')} loaded in {loaded['seconds']:.1f} s,"
        f" pid {os.getpid()})"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
