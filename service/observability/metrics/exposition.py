"""The snapshots of all workers, as one page of metrics.

Counters are added up over all workers, and what a worker had counted stays in the sum when it is
gone: a sum that fell would look like a new server. What it counted after it was last asked is
lost with it. Gauges are shown for each worker.
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
    OF_THE_RECORD,
    OF_THE_SERVER,
    OF_WORKERS,
    SUPERVISOR,
    Definition,
)
from tollwire.service.observability.metrics.snapshot import CALLS_RATED, Snapshot, process_samples

COUNTERS = (
    *(Definition(one.name, one.help, one.labels, "counter") for one in instruments.COUNTERS),
    Definition(
        CALLS_RATED,
        "Calls that were rated, by what became of them; the reason is empty unless UNRATED.",
        ("method", "status", "reason"),
        "counter",
    ),
)


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of one worker: its last snapshot, if there was any, and whether it answered
    this time."""

    snapshot: Snapshot | None
    answered: bool
    starts: int = 1


# By the workers' numbers.
Ask = Callable[[], Mapping[int, Heard]]

_Key = tuple[str, tuple[str, ...]]


class Totals:
    """What was counted so far: by workers that are gone, and by those that are there."""

    def __init__(self) -> None:
        self._gone: dict[_Key, list[float]] = {}
        self._last: dict[int, tuple[int, dict[_Key, list[float]]]] = {}

    def take(self, worker: int, snapshot: Snapshot) -> None:
        """The worker's latest; another process than before begins to count anew."""
        before = self._last.get(worker)
        if before is not None and before[0] != snapshot["pid"]:
            _add(self._gone, before[1])
        counted = {(name, tuple(labels)): [n] for name, labels, n in snapshot["counters"]}
        counted |= {(name, tuple(labels)): cells for name, labels, cells in snapshot["histograms"]}
        self._last[worker] = (snapshot["pid"], counted)

    def sums(self) -> dict[_Key, list[float]]:
        sums = {key: list(cells) for key, cells in self._gone.items()}
        for _, counted in self._last.values():
            _add(sums, counted)
        return sums


def _add(sums: dict[_Key, list[float]], more: Mapping[_Key, list[float]]) -> None:
    for key, cells in more.items():
        known = sums.get(key)
        sums[key] = [a + b for a, b in zip(known, cells, strict=True)] if known else list(cells)


class Exposition:
    """Writes the page. Thread-safe; one is written at a time."""

    def __init__(self, ask: Ask, *, supervised: bool) -> None:
        """``ask`` hears all workers. ``supervised``: this process is none of them."""
        self._ask = ask
        self._supervised = supervised
        self._totals = Totals()
        self._turn = threading.Lock()

    def page(self, as_openmetrics: bool = False) -> tuple[bytes, str]:
        """The metrics and their content type: Prometheus' own form, or that of OpenMetrics."""
        with self._turn:
            heard = self._ask()
            for worker, one in heard.items():
                if one.snapshot is not None:
                    self._totals.take(worker, one.snapshot)
            families = _Page(self._families(heard))
        if as_openmetrics:
            page: bytes = openmetrics.generate_latest(families)  # type: ignore[no-untyped-call]
            return page, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(families), CONTENT_TYPE_PLAIN_0_0_4

    def _families(self, heard: Mapping[int, Heard]) -> list[Metric]:
        sums = self._totals.sums()
        return [
            *_counters(sums),
            *_histograms(sums),
            *self._gauges(heard),
            *_server(heard),
        ]

    def _gauges(self, heard: Mapping[int, Heard]) -> Iterator[Metric]:
        said: dict[str, list[tuple[list[str], float]]] = {}
        for worker, one in heard.items():
            # A worker that hangs says nothing of itself; what all have in common still holds.
            if one.snapshot is not None and one.answered:
                _sort(said, str(worker), one.snapshot["gauges"])
        if self._supervised:
            _sort(said, SUPERVISOR, process_samples())
        for definition in OF_WORKERS:
            yield _family(definition, ("worker", *definition.labels), said.get(definition.name, ()))
        record = next(filter(None, map(_record_of, heard.values())), [])
        for definition in OF_THE_RECORD:
            samples = [(labels, value) for name, labels, value in record if name == definition.name]
            yield _family(definition, definition.labels, samples)


class _Page(Collector):
    """What prometheus_client encodes."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _record_of(one: Heard) -> list[list[Any]]:
    return one.snapshot["record"] if one.snapshot is not None else []


def _sort(
    said: dict[str, list[tuple[list[str], float]]], worker: str, samples: Iterable[list[Any]]
) -> None:
    for name, labels, value in samples:
        said.setdefault(name, []).append(([worker, *labels], value))


def _family(
    definition: Definition, labels: tuple[str, ...], samples: Iterable[tuple[list[str], float]]
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


def _server(heard: Mapping[int, Heard]) -> Iterator[Metric]:
    up, starts, build = OF_THE_SERVER
    workers = [(str(worker), one) for worker, one in heard.items()]
    yield _family(up, up.labels, [([name], int(one.answered)) for name, one in workers])
    yield _family(starts, starts.labels, [([name], one.starts) for name, one in workers])
    yield _family(build, build.labels, [([_version(), platform.python_version()], 1)])


def _version() -> str:
    try:
        return version("tollwire")
    except PackageNotFoundError:
        return "unknown"
