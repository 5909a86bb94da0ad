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


# What each worker says of itself; its number comes before the labels named here.
WORKER_METRICS = (
    MetricDefinition(
        "tollwire_health", "1 where the service says that it serves, else 0.", ("service",)
    ),
    MetricDefinition("tollwire_tenants_loaded", "Tenants that the worker has in memory."),
    MetricDefinition(
        "tollwire_rates_loaded", "Rates that the worker has in memory, of all tenants."
    ),
    MetricDefinition(
        "tollwire_rate_change_number",
        "The number of the last change of any rates that the worker rates with.",
    ),
    MetricDefinition(
        "tollwire_rate_lag_seconds",
        "How long ago the worker last knew that it rates with all that was committed.",
    ),
    MetricDefinition(
        "tollwire_database_connections",
        "Connections to the database: in_use or idle.",
        ("state",),
    ),
    MetricDefinition(
        "tollwire_database_connections_limit", "How many connections the worker opens at most."
    ),
    MetricDefinition(
        "tollwire_certificate_expiry_time_seconds",
        "When the certificate in use ends, in seconds since 1970: server or client_ca.",
        ("certificate",),
    ),
    MetricDefinition("tollwire_process_resident_bytes", "Memory of the process that is in use."),
    MetricDefinition("tollwire_process_threads", "Threads of the process."),
    MetricDefinition(
        "tollwire_process_open_fds", "Files and connections that the process has open."
    ),
    MetricDefinition(
        "tollwire_process_open_fds_limit", "How many files and connections it may have open."
    ),
    MetricDefinition(
        "tollwire_process_cpu_seconds",
        "Time that processors worked for the process, also the system on its behalf.",
        kind="counter",
    ),
    MetricDefinition(
        "tollwire_process_start_time_seconds", "When it began, in seconds since 1970."
    ),
)

# What one worker says for all.
RECORD_METRICS = (
    MetricDefinition(
        "tollwire_unrated_cdrs",
        "Recorded calls without a price, by reason; no more than 50,000 of them are looked at.",
        ("reason",),
    ),
    MetricDefinition(
        "tollwire_unrated_oldest_seconds",
        "How long ago the first of these calls started; 0 where there is none.",
        ("reason",),
    ),
    MetricDefinition(
        "tollwire_database_bytes",
        "Size of the database: main, and on SQLite wal, the log beside its file.",
        ("part",),
    ),
    MetricDefinition(
        "tollwire_database_disk_free_bytes",
        "Free space on the disk of an SQLite database.",
    ),
    MetricDefinition(
        "tollwire_backup_last_success_time_seconds",
        "When the last backup was finished, in seconds since 1970; 0 where there was none.",
    ),
)

# What the process says that answers on the metrics port.
SERVER_METRICS = (
    MetricDefinition(
        "tollwire_worker_up", "1 where the worker answered in time, else 0.", ("worker",)
    ),
    MetricDefinition(
        "tollwire_worker_starts", "How often the worker was started.", ("worker",), "counter"
    ),
    MetricDefinition(
        "tollwire_build_info",
        "Always 1; what runs is in the labels.",
        ("version", "python"),
    ),
)
