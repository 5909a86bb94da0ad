"""The snapshots of all workers, as one page of metrics.

Counters are summed over all workers. The amounts of a worker that has ended stay in the sum: if a
sum fell, Prometheus would treat it as a restart of the server. Counts after a worker's last
snapshot are lost. Gauges are shown for each worker.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from tollwire.service.observability import instruments
from tollwire.service.observability.metrics.gauges import (
    RECORD_METRICS,
    SERVER_METRICS,
    SUPERVISOR,
    WORKER_METRICS,
    MetricDefinition,
)
from tollwire.service.observability.metrics.snapshot import CALLS_RATED, Snapshot, process_samples

COUNTERS = (
    *(MetricDefinition(one.name, one.help, one.labels, "counter") for one in instruments.COUNTERS),
    MetricDefinition(
        CALLS_RATED,
        "Calls that were rated, by status; the reason is empty unless UNRATED.",
        ("method", "status", "reason"),
        "counter",
    ),
)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker: its last snapshot (None before the first), whether it answered this scrape, and
    how often it was started."""

    snapshot: Snapshot | None
    answered: bool
    starts: int = 1


# Returns the reports by worker number.
CollectReports = Callable[[], Mapping[int, WorkerReport]]

_Key = tuple[str, tuple[str, ...]]


class CounterTotals:
    """The sums of all counters, of ended and of running workers."""

    def __init__(self) -> None:
        self._ended: dict[_Key, list[float]] = {}
        self._last: dict[int, tuple[int, dict[_Key, list[float]]]] = {}

    def update(self, worker: int, snapshot: Snapshot) -> None:
        """Apply the latest snapshot of a worker. A new process starts to count at 0."""
        before = self._last.get(worker)
        if before is not None and before[0] != snapshot["pid"]:
            _add(self._ended, before[1])
        counted = {(name, tuple(labels)): [n] for name, labels, n in snapshot["counters"]}
        counted |= {(name, tuple(labels)): cells for name, labels, cells in snapshot["histograms"]}
        self._last[worker] = (snapshot["pid"], counted)

    def sums(self) -> dict[_Key, list[float]]:
        sums = {key: list(cells) for key, cells in self._ended.items()}
        for _, counted in self._last.values():
            _add(sums, counted)
        return sums


def _add(sums: dict[_Key, list[float]], more: Mapping[_Key, list[float]]) -> None:
    for key, cells in more.items():
        known = sums.get(key)
        sums[key] = [a + b for a, b in zip(known, cells, strict=True)] if known else list(cells)


class Exposition:
    """Writes the page. Thread-safe; one page is written at a time."""

    def __init__(self, collect: CollectReports, *, supervised: bool) -> None:
        """``collect`` gets the reports of all workers. ``supervised``: this process is not a
        worker."""
        self._collect = collect
        self._supervised = supervised
        self._totals = CounterTotals()
        self._lock = threading.Lock()

    def page(self, as_openmetrics: bool = False) -> tuple[bytes, str]:
        """The metrics and their content type, in the format of Prometheus or of OpenMetrics."""
        with self._lock:
            reports = self._collect()
            for worker, one in reports.items():
                if one.snapshot is not None:
                    self._totals.update(worker, one.snapshot)
            families = _Page(self._families(reports))
        if as_openmetrics:
            page: bytes = openmetrics.generate_latest(families)  # type: ignore[no-untyped-call]
            return page, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(families), CONTENT_TYPE_PLAIN_0_0_4

    def _families(self, reports: Mapping[int, WorkerReport]) -> list[Metric]:
        sums = self._totals.sums()
        return [
            *_counters(sums),
            *_histograms(sums),
            *self._gauges(reports),
            *_server(reports),
        ]

    def _gauges(self, reports: Mapping[int, WorkerReport]) -> Iterator[Metric]:
        samples_by_name: dict[str, list[tuple[list[str], float]]] = {}
        for worker, one in reports.items():
            # The gauges of a worker that does not answer are out of date; those of the database
            # are still valid.
            if one.snapshot is not None and one.answered:
                _sort(samples_by_name, str(worker), one.snapshot["gauges"])
        if self._supervised:
            _sort(samples_by_name, SUPERVISOR, process_samples())
        for definition in WORKER_METRICS:
            yield _family(
                definition, ("worker", *definition.labels), samples_by_name.get(definition.name, ())
            )
        record = next(filter(None, map(_record_of, reports.values())), [])
        for definition in RECORD_METRICS:
            samples = [(labels, value) for name, labels, value in record if name == definition.name]
            yield _family(definition, definition.labels, samples)


class _Page(Collector):
    """The families of one page, as prometheus_client reads them."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _record_of(one: WorkerReport) -> list[list[Any]]:
    return one.snapshot["record"] if one.snapshot is not None else []


def _sort(
    samples_by_name: dict[str, list[tuple[list[str], float]]],
    worker: str,
    samples: Iterable[list[Any]],
) -> None:
    for name, labels, value in samples:
        samples_by_name.setdefault(name, []).append(([worker, *labels], value))


def _family(
    definition: MetricDefinition,
    labels: tuple[str, ...],
    samples: Iterable[tuple[list[str], float]],
) -> Metric:
    kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = kind(definition.name, definition.help, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counters(sums: Mapping[_Key, list[float]]) -> Iterator[Metric]:
    for definition in COUNTERS:
        samples = [
            (list(labels), cells[0])
            for (name, labels), cells in sums.items()
            if name == definition.name
        ]
        yield _family(definition, definition.labels, samples)


def _histograms(sums: Mapping[_Key, list[float]]) -> Iterator[Metric]:
    for histogram in instruments.HISTOGRAMS:
        ends = [*map(str, histogram.bounds), "+Inf"]
        family = HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.labels)
        for (name, labels), cells in sums.items():
            if name == histogram.name:
                counts = accumulate(cells[:-1])
                family.add_metric(list(labels), list(zip(ends, counts, strict=True)), cells[-1])
        yield family


def _server(reports: Mapping[int, WorkerReport]) -> Iterator[Metric]:
    up, starts, build = SERVER_METRICS
    workers = [(str(worker), one) for worker, one in reports.items()]
    yield _family(up, up.labels, [([name], int(one.answered)) for name, one in workers])
    yield _family(starts, starts.labels, [([name], one.starts) for name, one in workers])
    yield _family(build, build.labels, [([_version(), platform.python_version()], 1)])


def _version() -> str:
    try:
        return version("tollwire")
    except PackageNotFoundError:
        return "unknown"
