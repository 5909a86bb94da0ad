"""The metrics page of several workers, of ended ones and of hanging ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from tollwire.service.observability.instruments import CHUNK_BUCKETS_SECONDS
from tollwire.service.observability.metrics.exposition import Exposition, WorkerReport

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(page: bytes) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def snapshot(pid: int, created: int, chunks: int = 0, **more: Any) -> dict[str, Any]:
    cells = [0.0] * len(CHUNK_BUCKETS_SECONDS) + [float(chunks), 40.0 * chunks]
    return {
        "pid": pid,
        "counters": [["tollwire_records", ["CdrService/UploadCdrs", "created"], created]],
        "histograms": [["tollwire_upload_chunk_seconds", [], cells]],
        "gauges": [["tollwire_rates_loaded", [], 7]],
        "record": [],
    } | more


class Server:
    """Its workers report what a test puts into ``heard``."""

    def __init__(self) -> None:
        self.heard: dict[int, WorkerReport] = {}
        self._exposition = Exposition(self._ask, supervised=True)

    def _ask(self) -> Mapping[int, WorkerReport]:
        return self.heard

    def says(self) -> Samples:
        return samples(self._exposition.page()[0])

    def created(self) -> float | None:
        method = "CdrService/UploadCdrs"
        return of(self.says(), "tollwire_records_total", method=method, outcome="created")


def test_counters_are_added_up_and_gauges_shown_one_by_one() -> None:
    server = Server()
    server.heard = {
        0: WorkerReport(snapshot(100, 5, chunks=1), answered=True),
        1: WorkerReport(snapshot(101, 7, chunks=2), answered=True, starts=3),
    }
    found = server.says()
    assert server.created() == 12
    assert of(found, "tollwire_upload_chunk_seconds_count") == 3
    assert of(found, "tollwire_upload_chunk_seconds_sum") == 120
    assert of(found, "tollwire_upload_chunk_seconds_bucket", le="30.0") == 0
    assert of(found, "tollwire_upload_chunk_seconds_bucket", le="+Inf") == 3
    assert of(found, "tollwire_rates_loaded", worker="0") == 7
    assert of(found, "tollwire_worker_starts_total", worker="1") == 3
    assert of(found, "tollwire_process_threads", worker="supervisor") is not None


def test_the_counts_of_an_ended_worker_are_kept() -> None:
    server = Server()
    server.heard = {
        0: WorkerReport(snapshot(100, 5), True),
        1: WorkerReport(snapshot(101, 7), True),
    }
    assert server.created() == 12
    server.heard[0] = WorkerReport(snapshot(100, 6), answered=False)
    assert server.created() == 13
    # The new worker has not reported yet.
    server.heard[0] = WorkerReport(None, answered=False, starts=2)
    assert server.created() == 13
    server.heard[0] = WorkerReport(snapshot(200, 2), answered=True, starts=2)
    assert server.created() == 15
    server.heard[0] = WorkerReport(snapshot(200, 4), answered=True, starts=2)
    assert server.created() == 17


def test_a_hanging_worker_has_no_gauges() -> None:
    server = Server()
    server.heard = {
        0: WorkerReport(snapshot(100, 5), True),
        1: WorkerReport(snapshot(101, 7), False),
    }
    found = server.says()
    assert of(found, "tollwire_worker_up", worker="0") == 1
    assert of(found, "tollwire_worker_up", worker="1") == 0
    assert of(found, "tollwire_rates_loaded", worker="1") is None
    assert server.created() == 12


def test_no_worker_at_all() -> None:
    server = Server()
    found = server.says()
    assert of(found, "tollwire_process_threads", worker="supervisor") is not None
    assert server.created() is None


def test_both_formats_have_the_same_samples() -> None:
    record = [["tollwire_unrated_cdrs", ["NO_RATE"], 3]]
    heard = {0: WorkerReport(snapshot(100, 5, chunks=1, record=record), True)}
    exposition = Exposition(lambda: heard, supervised=False)
    page, content_type = exposition.page(as_openmetrics=True)
    assert content_type.startswith("application/openmetrics-text")
    there = {
        (sample.name, frozenset(sample.labels.items()))
        for family in openmetrics_families(page.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    assert there == set(samples(exposition.page()[0]))
