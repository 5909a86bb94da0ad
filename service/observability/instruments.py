"""The counters and histograms of the service, under the names of the metrics.

Plain numbers in memory; an update takes well under a microsecond. The package ``metrics`` exports
them. Must not depend on a metrics library or on requests. The rating core counts the rated calls
(tallies.py).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence

Labels = tuple[str, ...]

# From the time to rate a call in memory up to the longest usual timeout of a client.
RPC_BUCKETS_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
# From a few records up to a full chunk on a busy disk.
CHUNK_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counter:
    """Amounts that only increase, one for each combination of labels. Thread-safe."""

    def __init__(self, name: str, help: str, labels: Labels) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self._lock = threading.Lock()
        self._amounts: dict[Labels, int] = {}

    def add(self, amount: int, *labels: str) -> None:
        with self._lock:
            self._amounts[labels] = self._amounts.get(labels, 0) + amount

    def amounts(self) -> dict[Labels, int]:
        with self._lock:
            return dict(self._amounts)


class Histogram:
    """Durations, one distribution for each combination of labels. Thread-safe."""

    def __init__(self, name: str, help: str, labels: Labels, bounds: Sequence[float]) -> None:
        """``bounds``: the upper bounds of the buckets, ascending; the last bucket has none."""
        self.name = name
        self.help = help
        self.labels = labels
        self.bounds = tuple(bounds)
        self._lock = threading.Lock()
        # The count of each bucket (not cumulative), then the sum of all seconds.
        self._cells: dict[Labels, list[float]] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        bucket = bisect_left(self.bounds, seconds)
        with self._lock:
            cells = self._cells.get(labels)
            if cells is None:
                cells = self._cells[labels] = [0] * (len(self.bounds) + 1) + [0.0]
            cells[bucket] += 1
            cells[-1] += seconds

    def cells(self) -> dict[Labels, list[float]]:
        """By labels: the count of each bucket (not cumulative), then the sum of all seconds."""
        with self._lock:
            return {labels: list(cells) for labels, cells in self._cells.items()}


RPCS = Counter("tollwire_rpcs", "RPCs that have ended, by status code.", ("method", "code"))
RPC_SECONDS = Histogram(
    "tollwire_rpc_seconds",
    "Duration of RPCs in the server; for streams, from the first to the last message.",
    ("method",),
    RPC_BUCKETS_SECONDS,
)
RECORDS = Counter(
    "tollwire_records",
    "Calls that were sent to be recorded, by outcome: created, duplicate, conflict or rejected.",
    ("method", "outcome"),
)
CHUNK_SECONDS = Histogram(
    "tollwire_upload_chunk_seconds",
    "Time to record a chunk of an upload, from its arrival in the queue to its commit.",
    (),
    CHUNK_BUCKETS_SECONDS,
)

COUNTERS = (RPCS, RECORDS)
HISTOGRAMS = (RPC_SECONDS, CHUNK_SECONDS)
