"""The metrics that are read at a scrape, and not counted as requests run.

One table: name, meaning, labels. ``worker`` is the number of a worker from 0 on, or "supervisor"
for the process above several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One metric. A counter's samples have "_total" after their name."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"


# One sample for each worker, with its number as the first label.
WORKER_METRICS = (
    MetricDefinition(
        "tollwire_health", "1 if the health of the service is SERVING, else 0.", ("service",)
    ),
    MetricDefinition("tollwire_tenants_loaded", "Tenants in the worker's memory."),
    MetricDefinition("tollwire_rates_loaded", "Rates in the worker's memory, of all tenants."),
    MetricDefinition(
        "tollwire_rate_change_number",
        "The number of the last change of rates that the worker has loaded.",
    ),
    MetricDefinition(
        "tollwire_rate_lag_seconds",
        "Seconds since the worker last had all committed changes of rates.",
    ),
    MetricDefinition(
        "tollwire_database_connections",
        "Connections to the database: in_use or idle.",
        ("state",),
    ),
    MetricDefinition(
        "tollwire_database_connections_limit", "Maximum number of connections of the worker."
    ),
    MetricDefinition(
        "tollwire_certificate_expiry_time_seconds",
        "When the certificate in use expires, in seconds since 1970: server or client_ca.",
        ("certificate",),
    ),
    MetricDefinition("tollwire_process_resident_bytes", "Resident memory of the process."),
    MetricDefinition("tollwire_process_threads", "Threads of the process."),
    MetricDefinition(
        "tollwire_process_open_fds", "Files and connections that the process has open."
    ),
    MetricDefinition(
        "tollwire_process_open_fds_limit", "Maximum number of open files and connections."
    ),
    MetricDefinition(
        "tollwire_process_cpu_seconds",
        "Processor time of the process, in user and system mode.",
        kind="counter",
    ),
    MetricDefinition(
        "tollwire_process_start_time_seconds", "When the process started, in seconds since 1970."
    ),
)

# The same for all workers: read from one of them.
RECORD_METRICS = (
    MetricDefinition(
        "tollwire_unrated_cdrs",
        "Recorded calls without a price, by reason; the count stops at 50,000 calls.",
        ("reason",),
    ),
    MetricDefinition(
        "tollwire_unrated_oldest_seconds",
        "Seconds since the start of the earliest of these calls; 0 if there is none.",
        ("reason",),
    ),
    MetricDefinition(
        "tollwire_database_bytes",
        "Size of the database: main; on SQLite also wal, its write-ahead log.",
        ("part",),
    ),
    MetricDefinition(
        "tollwire_database_disk_free_bytes",
        "Free space on the disk of an SQLite database.",
    ),
    MetricDefinition(
        "tollwire_backup_last_success_time_seconds",
        "When the last backup was finished, in seconds since 1970; 0 if there was none.",
    ),
)

# From the process that serves the metrics port.
SERVER_METRICS = (
    MetricDefinition(
        "tollwire_worker_up", "1 if the worker answered in time, else 0.", ("worker",)
    ),
    MetricDefinition(
        "tollwire_worker_starts", "How often the worker was started.", ("worker",), "counter"
    ),
    MetricDefinition(
        "tollwire_build_info",
        "Always 1; the labels have the versions.",
        ("version", "python"),
    ),
)
