"""The metrics of one worker, as plain data that can pass through a pipe.

Taking a snapshot does not block: database queries run in the background (background.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tollwire.service.observability import instruments, tallies
from tollwire.service.observability.metrics.backlog import UnratedCount
from tollwire.service.observability.metrics.database_size import Size
from tollwire.service.observability.metrics.process import process_gauges

# {"pid", "counters": [[name, labels, amount]], "histograms": [[name, labels, cells]],
#  "gauges": [[name, labels, value]], "record": [[name, labels, value]]}
Snapshot = dict[str, Any]

CALLS_RATED = "tollwire_calls_rated"


class LoadedDecks(Protocol):
    """The part of the deck cache that a snapshot reads."""

    def size(self) -> tuple[int, int]: ...

    def change_number(self) -> int: ...

    def lag_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Connections:
    in_use: int
    idle: int
    limit: int


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a snapshot."""

    decks: LoadedDecks
    connections: Callable[[], Connections]
    # By the name of the service: whether its health is SERVING.
    health: Callable[[], Mapping[str, bool]]
    unrated: Callable[[], Mapping[str, UnratedCount] | None]
    # By certificate (server, client_ca): when it expires, in seconds since 1970.
    certificates: Callable[[], Mapping[str, float]] = dict
    size: Callable[[], Size | None] = lambda: None
    # When the last backup was finished, in seconds since 1970; None if no file records it.
    last_backup_seconds: Callable[[], float | None] = lambda: None


def take_snapshot(sources: Sources, *, with_record: bool) -> Snapshot:
    """``with_record``: also the metrics that are the same for all workers."""
    return {
        "pid": os.getpid(),
        "counters": _counters(),
        "histograms": [
            [histogram.name, list(labels), cells]
            for histogram in instruments.HISTOGRAMS
            for labels, cells in histogram.cells().items()
        ],
        "gauges": [*_gauges(sources), *process_samples()],
        "record": _record(sources) if with_record else [],
    }


def process_samples() -> list[list[Any]]:
    return [[f"tollwire_process_{name}", [], value] for name, value in process_gauges().items()]


def _counters() -> list[list[Any]]:
    counted = [
        [counter.name, list(labels), amount]
        for counter in instruments.COUNTERS
        for labels, amount in counter.amounts().items()
    ]
    for method, tally in tallies.TALLIES.items():
        for labels, calls in tallies.named(tally).items():
            counted.append([CALLS_RATED, [method, *labels], calls])
    return counted


def _gauges(sources: Sources) -> list[list[Any]]:
    tenants, rates = sources.decks.size()
    connections = sources.connections()
    return [
        *(["tollwire_health", [name], int(on)] for name, on in sources.health().items()),
        ["tollwire_tenants_loaded", [], tenants],
        ["tollwire_rates_loaded", [], rates],
        ["tollwire_rate_change_number", [], sources.decks.change_number()],
        ["tollwire_rate_lag_seconds", [], sources.decks.lag_seconds()],
        *(
            ["tollwire_certificate_expiry_time_seconds", [name], end]
            for name, end in sources.certificates().items()
        ),
        ["tollwire_database_connections", ["in_use"], connections.in_use],
        ["tollwire_database_connections", ["idle"], connections.idle],
        ["tollwire_database_connections_limit", [], connections.limit],
    ]


def _record(sources: Sources) -> list[list[Any]]:
    now_seconds = time.time()
    samples: list[list[Any]] = []
    for reason, found in (sources.unrated() or {}).items():
        age = max(0.0, now_seconds - found.oldest_started_at_ns / 1e9) if found.calls else 0.0
        samples.append(["tollwire_unrated_cdrs", [reason], found.calls])
        samples.append(["tollwire_unrated_oldest_seconds", [reason], age])
    size = sources.size()
    if size is not None:
        samples.extend(
            ["tollwire_database_bytes", [part], count] for part, count in size.bytes_by_part.items()
        )
        if size.disk_free_bytes is not None:
            samples.append(["tollwire_database_disk_free_bytes", [], size.disk_free_bytes])
    last_backup_seconds = sources.last_backup_seconds()
    if last_backup_seconds is not None:
        samples.append(["tollwire_backup_last_success_time_seconds", [], last_backup_seconds])
    return samples
